"""``up``: bring a cluster to its spec, from wherever it stands.

Looks, plans, carries out the plan, in the rounds of ``lifecycle.rounds``. Always holds: nothing is made
before the whole plan is known to fit; every object is in the record before it is in the cloud; run again after any interruption
it finishes the work, and run again after success it finds nothing to do.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from moyai.bootstrap import pki, user_data
from moyai.bootstrap.api_server import new_encryption_key
from moyai.bootstrap.cluster_plan import plan_cluster
from moyai.bootstrap.machine import ClusterFacts, Secrets, ServerContent, addon_manifests, machine_content, server_content
from moyai.bootstrap.sent_start import START_KEY
from moyai.bootstrap.sizes import check_user_data
from moyai.cloud.capabilities import Capability, Cloud
from moyai.core.clock import Clock, SystemClock
from moyai.core.errors import Terminal
from moyai.core.ids import new_uid
from moyai.core.kubernetes_version import version_numbers
from moyai.core.paths import Paths
from moyai.core.progress import Progress, Reporter
from moyai.lifecycle import certificates, execute, observe
from moyai.lifecycle.certificates import Certificate, credential_problem, kubeconfig_life
from moyai.lifecycle.clusters import open_api
from moyai.lifecycle.etcd_data import MakeData
from moyai.lifecycle.execute.starting import send_by_ssh
from moyai.lifecycle.machine_notes import MachineNotes
from moyai.lifecycle.mode_state import refuse_while_moving
from moyai.lifecycle.observe import Answers
from moyai.lifecycle.record import Mirror, Record
from moyai.lifecycle.record_format import ENCRYPTION_KEY, SECRET_NAMES
from moyai.lifecycle.rotation_state import prepare
from moyai.lifecycle.rounds import Rounds, Start
from moyai.lifecycle.work import working
from moyai.plan import keys
from moyai.plan import steps as s
from moyai.plan.changes import refuse_version
from moyai.plan.cloud_names import name_notes, names_in_cloud
from moyai.plan.demands import asks_types
from moyai.plan.graph import Made, Plan
from moyai.plan.machine_template import Versions
from moyai.plan.observed import Observed, Recorded
from moyai.plan.rules import API_PORT
from moyai.plan.versions import Upgrade, versions_now
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


def version_of(cluster: Cluster, paths: Paths) -> str:
    """The version of Kubernetes that the cluster is to have; one that exists keeps its own. UsageError where the spec names
    another one."""
    record = Record.open(paths, cluster.name)
    return (_carried_on(cluster, record) if record else cluster).spec.kubernetes_version


def preview(
    cluster: Cluster,
    cloud: Cloud,
    *,
    paths: Paths,
    clock: Clock | None = None,
    replaced: str = "",
    answers: Answers | None = None,
) -> Plan:
    """The plan of ``up``, without doing anything. ``answers``: of the cloud, that the caller has already."""
    return look(cluster, cloud, paths=paths, clock=clock or SystemClock(), replaced=replaced, answers=answers).plan


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
    with working(paths, cluster.name, command="moyai up", clock=clock, tell=reporter.note) as work:
        rounds = rounds_of(cloud, paths, reporter=reporter, clock=clock, data=data, mirror=work)
        if known := Record.open(paths, cluster.name):
            refuse_while_moving(known)
        start = rounds.look(cluster, replaced=replaced)
        spec = dump(start.facts.cluster)
        record = start.record or Record.create(paths, cluster.name, spec=spec, clock=clock, uid=start.recorded.uid, mirror=work)
        if record.restores and data is None:
            raise Terminal(f"cluster {cluster.name} is being restored from a backup", hint="`moyai restore FILE` goes on")

        def resume() -> Start:
            return rounds.resume(cluster, replaced=replaced)

        start = rounds.run(start, record, again=lambda: rounds.look(cluster), most=_rounds(start.plan), resume=resume)
        record = start.record or record
        # last: an interrupted change is seen again by the next run
        record.set_spec(_kept_version(spec, record))
    changed, late = rounds.changed, rounds.late
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


def rounds_of(
    cloud: Cloud,
    paths: Paths,
    *,
    reporter: Reporter,
    clock: Clock,
    data: MakeData | None = None,
    mirror: Mirror | None = None,
) -> Rounds:
    """The rounds of a command that brings a cluster to its spec. ``data``: see ``up``. ``mirror``: of the record."""

    def looks(cluster: Cluster, replaced: str, *, hold: bool) -> Start:
        return look(cluster, cloud, paths=paths, clock=clock, replaced=replaced, hold=hold, mirror=mirror)

    def carries(start: Start, record: Record, *, suffix: str) -> tuple[str, ...]:
        return carry_out(start, cloud, record=record, reporter=reporter, clock=clock, data=data, suffix=suffix)

    return Rounds(looks, carries, reporter=reporter, clock=clock)


def _carried_on(cluster: Cluster, record: Record) -> Cluster:
    """The spec of a cluster that exists, with the version of Kubernetes that it has. UsageError where it names another one."""
    kept = carried_on(cluster, record.spec)
    asked, has, upgrade = cluster.spec.kubernetes_version, record.spec["spec"]["kubernetesVersion"], record.upgrade
    known = {has, *((upgrade.begin, upgrade.target) if upgrade and upgrade.moves else ())}
    if "kubernetes_version" in cluster.spec.model_fields_set:
        refuse_version(asked, sorted(known, key=version_numbers), back=upgrade is not None and asked == upgrade.begin)
    return kept.with_version(has)


def _kept_version(spec: Mapping[str, Any], record: Record) -> dict[str, Any]:
    """The spec that is recorded: while machines have different versions, that is the one that the cluster had."""
    return _with_version(spec, record.spec["spec"]["kubernetesVersion"])


def _with_version(spec: Mapping[str, Any], version: str) -> dict[str, Any]:
    return {**spec, "spec": {**spec["spec"], "kubernetesVersion": version}}


def look(
    cluster: Cluster,
    cloud: Cloud,
    *,
    paths: Paths,
    clock: Clock,
    replaced: str = "",
    hold: bool = True,
    upgrade: Upgrade | None = None,
    answers: Answers | None = None,
    mirror: Mirror | None = None,
) -> Start:
    """Read record, cloud and Kubernetes side by side, and plan. ``hold``: while an upgrade is under way, machines of another
    version stay. ``upgrade``: one that is not on record yet. ``answers``: what the caller has asked the cloud already."""
    record = Record.open(paths, cluster.name, clock=clock, mirror=mirror)
    recorded = record.recorded() if record else Recorded(cluster.name, new_uid())
    notes = MachineNotes(record.folder) if record else None
    if record and notes:
        life = kubeconfig_life(record.folder)
        recorded = replace(recorded, kubeconfig_life=life, now=clock.now(), unstarted=notes.unstarted())
    cluster = _carried_on(cluster, record) if record else cluster
    upgrade = upgrade or (record.upgrade if record else None)
    api = open_api(record) if record else None
    with ThreadPoolExecutor(2, thread_name_prefix="look") as pool:
        kube = pool.submit(observe.kube_facts, api, cloud.kind.volume_names, ask_version=upgrade is not None)
        certified = pool.submit(certificates.known, record.folder, api, timeout=3) if record and record.ready else None
        # the provider of a cluster that exists is written in its controllers
        provider = not recorded.ready and bool(cluster.spec.load_balancer.provider)
        observed = observe.take(
            cloud,
            name=cluster.name,
            uid=recorded.uid,
            ask_providers=provider,
            ask_login=not recorded.ready,
            ask_rights=not recorded.ready,
            existing=cluster.spec.network.existing,
            ask_balancer=cluster.spec.control_plane.balanced,
            ask_types=asks_types(cluster.spec),
            answers=answers or Answers(),
            notes=notes,
        )
        observed = replace(observed, kube=kube.result())
        known = certified.result() if certified else ()
    versions = None
    if upgrade:
        versions = replace(versions_now(upgrade, observed, recorded=recorded), held=hold)
        cluster = cluster.with_version(versions.control_planes)
    planned = plan_cluster(
        cluster,
        observed,
        kind=cloud.kind,
        recorded=recorded,
        before=_with_version(record.spec, cluster.spec.kubernetes_version) if record else None,
        replaced=replaced,
        versions=versions,
    )
    cluster, plan = planned.cluster, planned.plan
    planes = [node.name for node in plan.nodes if node.role == "control-plane"]
    called = names_in_cloud(cloud.kind, cluster.name, uid=recorded.uid, nodes=plan.nodes)
    # without a record, the next command draws another UID, and other names follow from it
    names = name_notes(called, plan.nodes) if record else ()
    endings = _endings(known, observed, uid=recorded.uid, planes=planes, clock=clock)
    stands = f"the upgrade from {upgrade.begin} to {upgrade.target} is {upgrade.stage}: `moyai status`" if upgrade else ""
    said = (planned.mode_note, stands if hold else "")
    plan = replace(plan, notes=(*filter(None, said), *plan.notes, *names, *endings))
    facts = ClusterFacts(
        cluster=cluster,
        uid=recorded.uid,
        plan=plan,
        addons=planned.addons,
        account=observed.account,
        cloud_kind=cloud.kind,
        capabilities=observed.capabilities,
        versions=versions or Versions.of(cluster.spec),
    )
    check_user_data(facts)
    return Start(record, recorded, observed, plan, facts, api)


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


def carry_out(
    start: Start,
    cloud: Cloud,
    *,
    record: Record,
    reporter: Reporter,
    clock: Clock,
    data: MakeData | None,
    suffix: str,
) -> tuple[str, ...]:
    """Run the plan; returns what the user must hear of all the same."""
    plan = start.plan.part
    if record.rotation:
        # a killed rotation may have left the record's keys half-way
        prepare(record, record.rotation)
    # all secrets of the machines' user data are on disk before the cloud is asked for anything
    authorities = pki.ensure(record.folder / "pki", clock)
    login = pki.RSA_LOGIN_KEY if cloud.kind.takes_rsa_keys else pki.LOGIN_KEY
    public_key = pki.ensure_ssh_key(record.folder, login)[1]
    start_key = pki.ensure_ssh_key(record.folder, START_KEY)[1] if cloud.kind.starts_by_script else ""
    encrypted = start.facts.cluster.spec.security.encryption_at_rest
    _ensure_secrets(record, token=not start.recorded.ready, encryption=encrypted and not start.recorded.ready)
    record.allocate({node.name: node.allocation for node in plan.nodes})
    for name in plan.released:
        record.release(name)
    if start.observed.kube:
        record.seen(start.observed.kube.in_service)

    def render(step: s.CreateServer, made: Made) -> ServerContent:
        known = replace(secrets_of(record, authorities), start_key=start_key)
        return server_content(step, start.facts, made=made, secrets=known)

    def render_machine(step: s.CreateMachine) -> ServerContent:
        return machine_content(step, start.facts)

    def manifests(name: str, made: Made) -> str:
        addon = next(one for one in start.facts.addons if one.name == name)
        return addon_manifests(addon, start.facts, made=made, secrets=secrets_of(record, authorities))

    context = execute.Context(
        cloud,
        record,
        uid=record.uid,
        clock=clock,
        made=plan.made,
        open_api=lambda: open_api(record),
        machine_notes=MachineNotes(record.folder),
    )
    handlers = execute.table(
        execute.Making(context, public_key=public_key, render=render),
        execute.Balancing(context),
        execute.Removing(context),
        execute.Beside(context, render=render_machine),
        execute.Inside(context, authorities=authorities, manifests=manifests),
        execute.Waiting(context),
        execute.Starting(context, send=send_by_ssh),
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


def secrets_of(record: Record, authorities: pki.Pki) -> Secrets:
    """As they are on disk now: steps that ran before may have added some."""
    kept = record.secrets()
    return Secrets(
        pki=authorities,
        token=kept.get("token", ""),
        unsealing_key=kept["key"],
        encryption_key=kept.get(ENCRYPTION_KEY, ""),
        credentials={key: kept.get(name, "") for key, name in SECRET_NAMES.items()},
    )


def _change_notes(start: Start) -> list[str]:
    notes: list[str] = []
    without = keys.secret(keys.VOLUMES_CREDENTIAL) not in start.recorded.intended
    if start.recorded.ready and without and Capability.DISKS in start.observed.capabilities:
        notes.append(
            "this cluster was built without volumes, and its machines do not hold the CSI driver: "
            "`moyai down`, then `moyai up` build it with volumes"
        )
    return notes
