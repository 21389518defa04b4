"""``up``: bring a cluster to its spec, from wherever it stands.

Looks, plans, carries out the plan; where machines are out of date it does so again until none is. Always holds: nothing is made
before the whole plan is known to fit; every object is in the record before it is in the cloud; run again after any interruption
it finishes the work, and run again after success it finds nothing to do.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from moyai.bootstrap import pki, user_data
from moyai.bootstrap.addons import addons_of
from moyai.bootstrap.api_server import new_encryption_key
from moyai.bootstrap.machine import ClusterFacts, Secrets, ServerContent, addon_manifests, server_content
from moyai.bootstrap.sizes import check_user_data
from moyai.cloud.capabilities import Capability, Cloud
from moyai.core.clock import Clock, SystemClock
from moyai.core.errors import Terminal
from moyai.core.ids import new_uid
from moyai.core.paths import Paths
from moyai.core.progress import Progress, Reporter
from moyai.lifecycle import certificates, execute, observe
from moyai.lifecycle.certificates import Certificate, credential_problem, kubeconfig_life
from moyai.lifecycle.clusters import open_api
from moyai.lifecycle.etcd_data import MakeData
from moyai.lifecycle.record import Record, locked
from moyai.lifecycle.record_format import ENCRYPTION_KEY, SECRET_NAMES
from moyai.plan import keys
from moyai.plan import steps as s
from moyai.plan.cloud_names import name_notes, names_in_cloud
from moyai.plan.cluster import plan_up
from moyai.plan.graph import Made, Plan
from moyai.plan.observed import Observed, Recorded
from moyai.plan.pod_network.choice import choose_mode
from moyai.plan.rules import API_PORT
from moyai.spec.load import carried_on, dump
from moyai.spec.model import Cluster


@dataclass(frozen=True)
class UpResult:
    """``changed``: whether anything was done. ``seconds``: how long each step was under way, by name. ``own_seconds``: how long
    without what it waited for others."""

    name: str
    uid: str
    changed: bool
    kubeconfig: Path
    api: str
    nodes: tuple[str, ...]
    seconds: Mapping[str, float]
    own_seconds: Mapping[str, float]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Start:
    """Where a cluster stands before ``up`` does anything, and what is to be done. ``facts``: with the cluster as its spec has
    it, and as it was built where the spec says nothing of its security."""

    record: Record | None
    recorded: Recorded
    observed: Observed
    plan: Plan
    facts: ClusterFacts


def version_of(cluster: Cluster, paths: Paths) -> str:
    """The version of Kubernetes that the cluster is to have; one that exists keeps its own where the spec names none."""
    record = Record.open(paths, cluster.name)
    return (carried_on(cluster, record.spec) if record else cluster).spec.kubernetes_version


def preview(cluster: Cluster, cloud: Cloud, *, paths: Paths, clock: Clock | None = None, replaced: str = "") -> Plan:
    """The plan of ``up``, without doing anything."""
    return _look(cluster, cloud, paths=paths, clock=clock or SystemClock(), replaced=replaced).plan


def up(
    cluster: Cluster,
    cloud: Cloud,
    *,
    paths: Paths,
    reporter: Reporter,
    clock: Clock | None = None,
    replaced: str = "",
    data: MakeData | None = None,
) -> UpResult:
    """Bring ``cluster`` to its spec. ``replaced``: name of a control plane in whose place another one is made. ``data``: makes
    etcd's data for a cluster that is restored from a backup.

    Raises UsageError or Terminal; whatever is half-made then, the next call finishes.
    """
    clock = clock or SystemClock()
    late: list[str] = []
    changed, number = False, 1
    with locked(paths, cluster.name):
        with reporter.step("look at the cloud"):
            start = _look(cluster, cloud, paths=paths, clock=clock, replaced=replaced)
        spec, most = dump(start.facts.cluster), _rounds(start.plan)
        record = start.record or Record.create(paths, cluster.name, spec=spec, clock=clock, uid=start.recorded.uid)
        if record.restores and data is None:
            raise Terminal(f"cluster {cluster.name} is being restored from a backup", hint="`moyai restore FILE` goes on")
        while start.plan or start.plan.replacements:
            changed = changed or bool(start.plan)
            late += _carry_out(start, cloud, record=record, reporter=reporter, clock=clock, data=data, suffix=_of_round(number))
            if not start.plan.replacements:
                break
            number += 1
            if number > most:
                names = ", ".join(one.node for one in start.plan.replacements)
                raise Terminal(f"{names} are still out of date after {most} rounds", hint="`moyai plan` says why")
            with reporter.step(f"look at the cloud{_of_round(number)}"):
                start = _look(cluster, cloud, paths=paths, clock=clock, replaced="")
            record = start.record or record
        # last: an interrupted change is seen again by the next run
        record.set_spec(spec)
    plan = start.plan
    notes = (*plan.notes, *_change_notes(start), *dict.fromkeys(late))
    for note in notes:
        reporter.note(note)
    return UpResult(
        name=cluster.name,
        uid=record.uid,
        changed=changed,
        kubeconfig=record.folder / "kubeconfig",
        api=f"https://{record.api_address}:{API_PORT}",
        nodes=tuple(node.name for node in plan.nodes),
        seconds=dict(reporter.timings),
        own_seconds=dict(reporter.own),
        notes=notes,
    )


def _rounds(first: Plan) -> int:
    """How often `up` plans at most. Each plan replaces a machine, makes one that was missing, or mends the cluster before; the
    last one finds nothing to do."""
    return 2 * len(first.replacements) + 4


def _of_round(number: int) -> str:
    """Tells the steps of a round from those of the first."""
    return f" (round {number})" if number > 1 else ""


def _look(cluster: Cluster, cloud: Cloud, *, paths: Paths, clock: Clock, replaced: str) -> _Start:
    """Read record, cloud and Kubernetes side by side, and plan."""
    record = Record.open(paths, cluster.name, clock=clock)
    recorded = record.recorded() if record else Recorded(cluster.name, new_uid())
    if record:
        recorded = replace(recorded, kubeconfig_life=kubeconfig_life(record.folder), now=clock.now())
    cluster = carried_on(cluster, record.spec) if record else cluster
    api = open_api(record) if record else None
    with ThreadPoolExecutor(2, thread_name_prefix="look") as pool:
        kube = pool.submit(observe.kube_facts, api, cloud.kind.volume_names)
        certified = pool.submit(certificates.known, record.folder, api, timeout=3) if record and record.ready else None
        # the provider of a cluster that exists is written in its controllers
        provider = not recorded.ready and bool(cluster.spec.load_balancer.provider)
        observed = observe.take(
            cloud,
            name=cluster.name,
            uid=recorded.uid,
            ask_providers=provider,
            ask_login=not recorded.ready,
            ask_sources=not recorded.ready,
        )
        observed = replace(observed, kube=kube.result())
        known = certified.result() if certified else ()
    choice = choose_mode(cluster, observed)
    cluster = choice.cluster
    addons = addons_of(
        cloud.kind.volume_names,
        spec=cluster.spec,
        ready=recorded.ready,
        intended=recorded.intended,
        capabilities=observed.capabilities,
    )
    before = record.spec if record else None
    plan = plan_up(cluster, observed, recorded=recorded, addons=addons, before=before, replaced=replaced)
    planes = [node.name for node in plan.nodes if node.role == "control-plane"]
    called = names_in_cloud(cloud.kind, cluster.name, uid=recorded.uid, nodes=plan.nodes)
    # without a record, the next command draws another UID, and other names follow from it
    names = name_notes(called, plan.nodes) if record else ()
    endings = _endings(known, observed, uid=recorded.uid, planes=planes, clock=clock)
    plan = replace(plan, notes=(*filter(None, [choice.note]), *plan.notes, *names, *endings))
    facts = ClusterFacts(
        cluster=cluster,
        uid=recorded.uid,
        plan=plan,
        addons=addons,
        account=observed.account,
        cloud_kind=cloud.kind,
        capabilities=observed.capabilities,
    )
    check_user_data(facts)
    return _Start(record, recorded, observed, plan, facts)


def _endings(
    known: Iterable[Certificate], observed: Observed, *, uid: str, planes: Sequence[str], clock: Clock
) -> Iterator[str]:
    """Certificates and credentials that end soon, and that no step of a plan renews. ``planes``: of the control planes."""
    now = clock.now()
    ends = observed.credential_ends.items()
    problems = (
        *(one.problem(now, control_planes=planes) for one in known if one.renewed_by != "moyai up"),
        *(credential_problem(name, end, now=now) for name, end in ends if keys.is_unique_name(name, uid)),
    )
    yield from filter(None, problems)


def _carry_out(
    start: _Start,
    cloud: Cloud,
    *,
    record: Record,
    reporter: Reporter,
    clock: Clock,
    data: MakeData | None,
    suffix: str,
) -> tuple[str, ...]:
    """Run the plan; returns what the user must hear of all the same."""
    plan = start.plan
    # all secrets of the machines' user data are on disk before the cloud is asked for anything
    authorities = pki.ensure(record.folder / "pki", clock)
    public_key = pki.ensure_ssh_key(record.folder)[1]
    encrypted = start.facts.cluster.spec.security.encryption_at_rest
    _ensure_secrets(record, token=not start.recorded.ready, encryption=encrypted and not start.recorded.ready)
    record.allocate({node.name: node.allocation for node in plan.nodes})
    for name in plan.released:
        record.release(name)
    if start.observed.kube:
        record.seen(start.observed.kube.in_service)

    def render(step: s.CreateServer, made: Made) -> ServerContent:
        return server_content(step, start.facts, made=made, secrets=_secrets(record, authorities))

    def manifests(name: str, made: Made) -> str:
        addon = next(one for one in start.facts.addons if one.name == name)
        return addon_manifests(addon, start.facts, made=made, secrets=_secrets(record, authorities))

    context = execute.Context(cloud, record, uid=record.uid, clock=clock, made=plan.made, open_api=lambda: open_api(record))
    handlers = execute.table(
        execute.Making(context, public_key=public_key, render=render),
        execute.Removing(context),
        execute.Inside(context, authorities=authorities, manifests=manifests),
        execute.Waiting(context),
        *([execute.Restoring(context, data=data)] if data else []),
    )

    def failed(_step: s.Step, _error: BaseException, _progress: Progress) -> bool:
        context.abort.set()
        return False

    try:
        execute.carry_out(plan, handlers, reporter=reporter, suffix=suffix, failed=failed)
    finally:
        context.abort.set()
    return tuple(context.notes)


def _ensure_secrets(record: Record, *, token: bool, encryption: bool) -> None:
    """``token``: whether the control plane's user data is yet to be made with a token; later tokens are made by a step.

    ``encryption``: whether it is to store Secrets encrypted. The key is made once: what is stored needs it for ever.
    """
    if token and not record.secret("token"):
        record.keep_token(user_data.new_token())
    if not record.secret("key"):
        record.keep_secret("key", secrets.token_urlsafe(32))
    if encryption and not record.secret(ENCRYPTION_KEY):
        record.keep_secret(ENCRYPTION_KEY, new_encryption_key())


def _secrets(record: Record, authorities: pki.Pki) -> Secrets:
    """As they are on disk now: steps that ran before may have added some."""
    kept = record.secrets()
    return Secrets(
        pki=authorities,
        token=kept.get("token", ""),
        unsealing_key=kept["key"],
        encryption_key=kept.get(ENCRYPTION_KEY, ""),
        credentials={key: kept.get(name, "") for key, name in SECRET_NAMES.items()},
    )


def _change_notes(start: _Start) -> list[str]:
    notes: list[str] = []
    without = keys.secret(keys.VOLUMES_CREDENTIAL) not in start.recorded.intended
    if start.recorded.ready and without and Capability.DISKS in start.observed.capabilities:
        notes.append(
            "this cluster was built without volumes, and its machines do not hold the CSI driver: "
            "`moyai down`, then `moyai up` build it with volumes"
        )
    return notes
