"""``moyai net migrate``: bring a cluster that runs to another mode of its pod network, node by node.

Always holds: where the change stands is on disk before nodes follow, so that a run that ends anywhere goes on with the next;
the recorded spec has a mode only when all nodes have it; while a change is under way, no other command changes the cluster
but `moyai down`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from moyai.bootstrap import pki
from moyai.bootstrap.addons import addons_of, agent_manifests, controller_manifests
from moyai.bootstrap.machine import ServerContent, addon_facts
from moyai.cloud.capabilities import Cloud
from moyai.core.clock import Clock, SystemClock
from moyai.core.errors import Terminal, UsageError
from moyai.core.paths import Paths
from moyai.core.progress import Progress, Reporter
from moyai.kube.objects import parse_daemon_set, parse_deployment, parse_node
from moyai.kube.resources import DAEMON_SETS, DEPLOYMENTS, NODES
from moyai.lifecycle import addon_objects, execute, waits
from moyai.lifecycle.clusters import open_api, require
from moyai.lifecycle.execute.context import Context, Handler, handles
from moyai.lifecycle.mode_state import ModeChange, mode_change, refuse_while_moving, set_mode_change
from moyai.lifecycle.record import Mirror, Record
from moyai.lifecycle.up import Start, look, secrets_of
from moyai.lifecycle.work import working
from moyai.plan import steps as s
from moyai.plan.addons import Addon, AddonFacts
from moyai.plan.cluster import situation
from moyai.plan.cluster.migration import FINAL, check_migration, plan_migration, with_mode
from moyai.plan.cluster.situation import Situation
from moyai.plan.graph import Plan
from moyai.plan.node_network import MOVES, MOVES_BGP
from moyai.plan.pod_network.mode_change import AgentStage, stages, way
from moyai.plan.steps.moving import ApplyControllers, ApplyStage, WaitWorkload
from moyai.spec.load import dump, validate
from moyai.spec.model import Cluster

_STAGE_PAUSE = 0.5


@dataclass(frozen=True)
class ModeResult:
    """``way``: the modes that the cluster has had in turn."""

    name: str
    mode: str
    way: tuple[str, ...]
    notes: tuple[str, ...] = ()


def preview_migration(name: str, cloud: Cloud, *, to: str, paths: Paths, clock: Clock | None = None) -> list[tuple[str, Plan]]:
    """(mode, what is done on the way to it) for each mode on the way. Raises as ``migrate``."""
    moving = _Moving(name, cloud, paths=paths, clock=clock or SystemClock())
    return moving.preview(to)


def migrate(name: str, cloud: Cloud, *, to: str, paths: Paths, reporter: Reporter, clock: Clock | None = None) -> ModeResult:
    """Bring the cluster to mode ``to``, or go on with that.

    Raises UsageError before anything is changed; whatever is half-done after another error, the next call finishes.
    """
    clock = clock or SystemClock()
    with working(paths, name, command="moyai net migrate", clock=clock, tell=reporter.note) as work:
        return _Moving(name, cloud, paths=paths, clock=clock, mirror=work).run(to, reporter=reporter)


@dataclass(frozen=True)
class _Leg:
    """From the mode on record to the next."""

    start: Start
    now: Situation
    target: Cluster
    plan: Plan


class _Moving:
    def __init__(self, name: str, cloud: Cloud, *, paths: Paths, clock: Clock, mirror: Mirror | None = None) -> None:
        self._mirror = mirror
        self._name, self._cloud, self._paths, self._clock = name, cloud, paths, clock
        self._notes: list[str] = []

    def preview(self, to: str) -> list[tuple[str, Plan]]:
        record = require(self._paths, self._name, mirror=self._mirror)
        begun = self._begun(record, to)
        cluster = record.cluster
        modes = way(cluster.spec.network.mode, to)
        found: list[tuple[str, Plan]] = []
        for number, mode in enumerate(modes):
            leg = self._leg(record, cluster, mode=mode, begun=begun if number == 0 else None, first=number == 0)
            found.append((mode, leg.plan))
            cluster = leg.target
        return found

    def run(self, to: str, *, reporter: Reporter) -> ModeResult:
        record = require(self._paths, self._name, mirror=self._mirror)
        begun = self._begun(record, to)
        modes = way(record.cluster.spec.network.mode, to)
        for number, mode in enumerate(modes):
            with reporter.step(f"look whether the pod network can go to {mode}"):
                leg = self._leg(record, record.cluster, mode=mode, begun=begun, first=number == 0)
            set_mode_change(record, ModeChange(to, begun.stage if begun else ""))
            self._carry_out(leg, record, to=to, reporter=reporter)
            # the mode is on record before its last stage is forgotten: the next run begins with the next mode
            record.set_spec(dump(leg.target))
            set_mode_change(record, ModeChange(to))
            begun = None
        set_mode_change(record, None)
        for note in self._notes:
            reporter.note(note)
        return ModeResult(record.name, to, modes, tuple(self._notes))

    def _begun(self, record: Record, to: str) -> ModeChange | None:
        begun = mode_change(record)
        if begun is not None and begun.target != to:
            refuse_while_moving(record)
        if record.restores:
            raise UsageError(f"cluster {record.name} is being restored from a backup", hint="`moyai restore FILE` goes on")
        if record.upgrade is not None and record.upgrade.moves:
            raise UsageError(f"cluster {record.name} is being upgraded", hint="`moyai upgrade` goes on")
        if not record.ready:
            raise UsageError(f"cluster {record.name} was never finished", hint="`moyai up` goes on")
        return begun

    def _leg(self, record: Record, cluster: Cluster, *, mode: str, begun: ModeChange | None, first: bool) -> _Leg:
        start = look(record.cluster, self._cloud, paths=self._paths, clock=self._clock)
        if start.observed.kube is None:
            raise Terminal(f"the Kubernetes API of cluster {record.name} does not answer", hint="`moyai status` says more")
        if first and begun is None and (start.plan or start.plan.replacements):
            raise Terminal(
                f"cluster {record.name} is not as its spec says", hint="`moyai up` first: `moyai plan` shows what it would do"
            )
        observed = replace(
            start.observed, sources_allowed=self._cloud.networks.sources_allowed(cluster.spec.network.existing.network)
        )
        now = situation(cluster, observed, recorded=start.recorded, addons=start.facts.addons)
        # the rules of a spec hold for the new mode, too
        target = validate(dump(with_mode(cluster, mode)), source="--to", recorded=True)
        check_migration(now, target)
        self._check_agents(record, now, target=target)
        agents = self._agents(start, target)
        plan = plan_migration(now, target, clears=agents.unwanted, begun=begun.stage if begun else "")
        return _Leg(start, now, target, plan)

    def _check_agents(self, record: Record, now: Situation, *, target: Cluster) -> None:
        """Raises UsageError where agents of an older moyai would not understand a stage."""
        if not stages(now.spec, target.spec):
            return
        api = open_api(record)
        nodes = [parse_node(one) for one in api.list(NODES)] if api else []
        wanted = {node.name for node in now.nodes}
        able = MOVES_BGP if "bgp" in (now.spec.network.mode, target.spec.network.mode) else MOVES
        old = sorted(node.name for node in nodes if node.name in wanted and node.annotations.get(able) != "true")
        if old:
            raise UsageError(
                f"--to {target.spec.network.mode}: the agents of {', '.join(old[:3])} are of an older moyai, which cannot move",
                hint="replace these machines first: delete one in the cloud, and `moyai up` makes it again",
            )

    def _agents(self, start: Start, target: Cluster) -> Addon:
        offered = addons_of(
            self._cloud.kind.volume_names,
            spec=target.spec,
            ready=True,
            intended=start.recorded.intended,
            capabilities=start.observed.capabilities,
        )
        return next(one for one in offered if one.live)

    def _carry_out(self, leg: _Leg, record: Record, *, to: str, reporter: Reporter) -> None:
        authorities = pki.ensure(record.folder / "pki", self._clock)
        context = execute.Context(
            self._cloud,
            record,
            uid=record.uid,
            clock=self._clock,
            made=leg.start.plan.made,
            open_api=lambda: open_api(record),
        )
        facts = addon_facts(
            replace(leg.start.facts, cluster=leg.target), made=leg.start.plan.made, secrets=secrets_of(record, authorities)
        )

        def begin(stage: str) -> None:
            set_mode_change(record, ModeChange(to, stage))

        staged = {one.name: one for one in stages(leg.now.spec, leg.target.spec)}
        handlers = execute.table(
            execute.Making(context, public_key="", render=_no_server),
            execute.Removing(context),
            MovingSteps(context, facts=facts, staged=staged, begin=begin),
        )

        def failed(_step: s.Step, _error: BaseException, _progress: Progress) -> bool:
            context.abort.set()
            return False

        try:
            execute.carry_out(leg.plan, handlers, reporter=reporter, suffix=f" ({leg.target.spec.network.mode})", failed=failed)
        finally:
            context.abort.set()
        self._notes += context.notes


def _no_server(*_: object) -> ServerContent:
    raise AssertionError("a change of mode makes no machine")


class MovingSteps:
    """``facts``: of the cluster in its new mode. ``begin``: called before a stage is applied, with its name."""

    def __init__(
        self, context: Context, *, facts: AddonFacts, staged: Mapping[str, AgentStage], begin: Callable[[str], None]
    ) -> None:
        self._context, self._facts, self._staged, self._begin = context, facts, staged, begin

    def handlers(self) -> Mapping[type[s.Step], Handler]:
        return dict(
            [
                handles(ApplyStage, self._stage),
                handles(ApplyControllers, self._controllers),
                handles(WaitWorkload, self._wait),
                handles(s.RemoveAddon, self._remove),
            ]
        )

    def _stage(self, step: ApplyStage, _: Progress) -> None:
        self._begin(step.stage)
        stage = None if step.stage == FINAL else self._staged[step.stage]
        addon_objects.apply(self._context.api(), agent_manifests(self._facts, stage=stage))

    def _remove(self, _step: s.RemoveAddon, _: Progress) -> None:
        addon_objects.remove(self._context.api(), agent_manifests(self._facts))

    def _controllers(self, _step: ApplyControllers, _: Progress) -> None:
        mode = self._facts.cluster.spec.network.mode
        addon_objects.apply(self._context.api(), controller_manifests(self._facts, revision=mode))

    def _wait(self, step: WaitWorkload, progress: Progress) -> None:
        def check() -> str:
            return "" if self._done(step) else f"{step.workload} is not new and ready on all nodes yet"

        def late(missing: str) -> Terminal:
            return Terminal(
                f"waited {step.seconds:.0f} s: {missing}",
                hint="`moyai kubectl -n kube-system get pods -o wide` says more; the same command goes on here",
            )

        waits.wait(
            check,
            clock=self._context.clock,
            abort=self._context.abort,
            progress=progress,
            timeout=step.seconds,
            failed=late,
            interval=_STAGE_PAUSE,
        )

    def _done(self, step: WaitWorkload) -> bool:
        api = self._context.api()
        if step.daemon_set:
            return parse_daemon_set(api.get(DAEMON_SETS, step.workload, namespace="kube-system")).done
        return parse_deployment(api.get(DEPLOYMENTS, step.workload, namespace="kube-system")).done
