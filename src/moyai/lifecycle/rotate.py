"""``certificates renew`` and the rotations of authorities and keys: bring the machines of a running cluster to new ones.

Always holds: the record says which stage comes before anything follows it, and a stage ends only when all machines have it; a
run that ends anywhere goes on with the next one; one rotation is under way at a time; what is in the way is found before
anything is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from moyai.bootstrap import pki
from moyai.cloud.capabilities import Cloud
from moyai.core.clock import Clock, SystemClock
from moyai.core.errors import MoyaiError, Retriable, Terminal, UsageError
from moyai.core.ids import cluster_tag
from moyai.core.keys import Key
from moyai.core.paths import Paths
from moyai.core.progress import Progress, Reporter
from moyai.core.waiting import NotYet, until
from moyai.kube.objects import Node, parse_node
from moyai.kube.quick import KubeApi
from moyai.kube.resources import NODES
from moyai.lifecycle import execute
from moyai.lifecycle.clusters import no_kubeconfig, open_api, require
from moyai.lifecycle.record import Record
from moyai.lifecycle.record_format import ENCRYPTION_KEY
from moyai.lifecycle.rotation_state import prepare
from moyai.lifecycle.work import working
from moyai.plan import keys
from moyai.plan import steps as s
from moyai.plan.cluster.credentials import USES
from moyai.plan.graph import Made, Plan
from moyai.plan.rotation import (
    COMMANDS,
    Rotated,
    Rotation,
    begin,
    finished,
    following,
    plan_credentials,
    plan_stage,
    stages_left,
)

#: Seconds for nodes of a rotation that goes on to be Ready again.
SETTLE_TIMEOUT = 120.0


@dataclass(frozen=True)
class StagePlan:
    """``rotation``: at the stage that the plan brings all machines to."""

    rotation: Rotation
    plan: Plan


@dataclass(frozen=True)
class RotationResult:
    """``waits_until``: when the next stage may begin (ISO 8601), empty where the rotation is done."""

    name: str
    what: str
    waits_until: str = ""


def preview(name: str, cloud: Cloud, *, what: Rotated, paths: Paths, clock: Clock | None = None) -> tuple[StagePlan, ...]:
    """All stages that are left, with their steps, without doing anything. UsageError for what is in the way."""
    record = require(paths, name)
    rotation = _wanted(record, what, now=(clock or SystemClock()).now())
    planner = _planner(record, cloud, rotation=rotation)
    return tuple(StagePlan(one, planner(one)) for one in stages_left(rotation))


def rotate(
    name: str, cloud: Cloud, *, what: Rotated, paths: Paths, reporter: Reporter, clock: Clock | None = None
) -> RotationResult:
    """Begin a rotation, or go on with the one that was begun. UsageError before anything is changed; whatever is half-done
    after another error, the next call finishes."""
    clock = clock or SystemClock()
    with working(paths, name, command=COMMANDS[what], clock=clock, tell=reporter.note) as work:
        record = require(paths, name, mirror=work)
        at = _wanted(record, what, now=clock.now())
        with reporter.step("look at the cluster") as progress:
            if record.rotation:
                _settle(record, clock=clock, progress=progress)
            planner = _planner(record, cloud, rotation=at)
        while True:
            if at.done:
                later = following(at)
                if later is None:
                    record.set_rotation(None)
                    return RotationResult(name, str(what))
                if at.due is not None and at.waits(clock.now()):
                    return RotationResult(name, str(what), at.due.isoformat(timespec="seconds"))
                at = later
            # on record first: whatever happens now, the next run goes on here
            record.set_rotation(at)
            prepare(record, at)
            record.publish()
            for note in _carry_out(record, cloud, rotation=at, plan=planner(at), reporter=reporter, clock=clock):
                reporter.note(note)
            at = finished(at, now=clock.now())
            record.set_rotation(at)


def _wanted(record: Record, what: Rotated, *, now: datetime) -> Rotation:
    """The rotation that is begun now, or the one that goes on."""
    if record.restores:
        raise UsageError(f"cluster {record.name} is being restored from a backup", hint="`moyai restore FILE` goes on")
    if not record.ready:
        raise UsageError(f"cluster {record.name} was never finished", hint="`moyai up` goes on")
    if what is Rotated.ENCRYPTION_KEY and not record.secret(ENCRYPTION_KEY):
        raise UsageError(f"cluster {record.name} has no encryption key: it stores Secrets as they are")
    at = record.rotation
    if at is None:
        return begin(what, now=now)
    if at.what is not what:
        raise UsageError(
            f"cluster {record.name}: the rotation of its {at.what} is under way", hint=f"`{COMMANDS[at.what]}` goes on"
        )
    return at


def _planner(record: Record, cloud: Cloud, *, rotation: Rotation) -> Callable[[Rotation], Plan]:
    """Makes the plan of a stage. UsageError for what is in the way of the whole rotation."""
    api = _api(record)
    if rotation.what is Rotated.CREDENTIALS:
        parts = _parts(record, cloud, rotation=rotation)
        return lambda at: plan_credentials(at, parts, uses=USES)
    planes, workers = _nodes(record, api)
    return lambda at: plan_stage(at, planes=planes, workers=workers)


def _parts(record: Record, cloud: Cloud, *, rotation: Rotation) -> dict[Key, str]:
    """Credential of the cluster → name of the one that comes in its place."""
    found = {key: made for key, made in record.objects.items() if key in USES and made.id}
    if not found:
        raise UsageError(
            f"cluster {record.name} logs in with your own credential, which moyai neither makes nor deletes",
            hint="`moyai status` shows it",
        )
    login = cloud.credentials.own_login()
    if not login.may_issue:
        raise UsageError(
            f"your login may not make credentials{': ' if login.refusal else ''}{login.refusal}", hint="log in with a password"
        )
    return {key: keys.later_name(record.name, record.uid, what=key.name, stamp=rotation.stamp) for key in found}


def _api(record: Record) -> KubeApi:
    api = open_api(record)
    if api is None:
        raise no_kubeconfig(record.name)
    return api


def _nodes(record: Record, api: KubeApi) -> tuple[Sequence[str], Sequence[str]]:
    """(control planes, workers). UsageError where one of them is not there to get its keys."""
    try:
        nodes = [parse_node(one) for one in api.list(NODES)]
    except MoyaiError as error:
        raise UsageError(f"cluster {record.name} does not answer: {error.message}", hint="`moyai status`") from None
    away = sorted(node.name for node in nodes if not node.ready)
    away += sorted(set(record.allocations) - {node.name for node in nodes})
    if away:
        raise UsageError(
            f"nodes {', '.join(away)} are not Ready, so they would be left behind with old keys",
            hint="`moyai up` brings them back; `moyai status` shows them",
        )
    planes = sorted((node for node in nodes if node.control_plane), key=_order)
    workers = sorted((node for node in nodes if not node.control_plane), key=_order)
    return tuple(node.name for node in planes), tuple(node.name for node in workers)


def _settle(record: Record, *, clock: Clock, progress: Progress) -> None:
    """What a killed run has started again a moment ago is waited for; afterwards what is away is in the way."""

    def look() -> NotYet | None:
        away = [one.name for one in map(parse_node, _api(record).list(NODES)) if not one.ready]
        return NotYet(f"{', '.join(away)} are not Ready yet") if away else None

    with suppress(Retriable):
        until(look, clock=clock, timeout=SETTLE_TIMEOUT, pause=1.0, on_wait=progress.progress)


def _order(node: Node) -> tuple[int, str]:
    return len(node.name), node.name


def _carry_out(
    record: Record, cloud: Cloud, *, rotation: Rotation, plan: Plan, reporter: Reporter, clock: Clock
) -> tuple[str, ...]:
    """Run the plan of a stage; returns what the user must hear of all the same."""
    authorities = pki.ensure(record.folder / "pki", clock)
    servers = {keys.server(one.name): one.id for one in cloud.machines.servers(tag=cluster_tag(record.uid))}
    made = Made(ids=servers, api_address=record.api_address)
    context = execute.Context(cloud, record, uid=record.uid, clock=clock, made=made, open_api=lambda: open_api(record))
    handlers = execute.table(
        execute.Inside(context, authorities=authorities, manifests=_no_manifests),
        execute.Waiting(context),
        execute.Crediting(context),
        execute.Rotating(context, rotation, authorities=authorities, encrypts=bool(record.secret(ENCRYPTION_KEY))),
    )

    def failed(_step: s.Step, _error: BaseException, _progress: Progress) -> bool:
        context.abort.set()
        return False

    try:
        execute.carry_out(plan, handlers, reporter=reporter, suffix=f" ({rotation.stage})", failed=failed)
    finally:
        context.abort.set()
    return tuple(context.notes)


def _no_manifests(name: str, _made: Made) -> str:
    raise Terminal(f"a rotation applies no add-on {name}")
