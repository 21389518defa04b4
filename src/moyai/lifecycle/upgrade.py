"""``upgrade``: bring the machines of a cluster to another version of Kubernetes, and back.

The version of a cluster is changed by replacing its machines, in the rounds of ``up``. Always holds: what is in the way is
found before anything is changed; the record says where the upgrade stands before machines follow; a run that ends anywhere
goes on with the next one; from one minor version to the next the new control planes behave as the old ones until the upgrade
is finalized, so that until then all of it can be taken back.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from moyai.cloud.capabilities import Cloud
from moyai.core.clock import Clock, SystemClock
from moyai.core.errors import Terminal, UsageError
from moyai.core.ids import version_in_image
from moyai.core.kubernetes_version import is_version
from moyai.core.paths import Paths
from moyai.core.progress import Reporter
from moyai.lifecycle.cluster_use import read_use
from moyai.lifecycle.clusters import require
from moyai.lifecycle.mode_state import refuse_while_moving
from moyai.lifecycle.record import Mirror, Record
from moyai.lifecycle.rounds import Rounds, Start
from moyai.lifecycle.up import look, rounds_of
from moyai.lifecycle.upgrade_state import go_on, is_paused
from moyai.lifecycle.work import working
from moyai.plan.cluster.preflight import check_upgrade
from moyai.plan.graph import Plan, Replacement
from moyai.plan.versions import Stage, Upgrade, Wish, after, decide, left, plan_links
from moyai.spec.model import Cluster


@dataclass(frozen=True)
class Preview:
    """``upgrade``: None where there is nothing to do. ``links``: the versions on the way. ``plan``: the first round, with all
    machines that are replaced by this command up to the first of the versions."""

    name: str
    upgrade: Upgrade | None
    links: tuple[str, ...]
    plan: Plan

    @property
    def begin(self) -> str:
        """The version that the machines go on from."""
        if self.upgrade is None:
            return ""
        return self.upgrade.target if self.upgrade.stage is Stage.BACK else self.upgrade.begin

    @property
    def needs(self) -> tuple[str, ...]:
        """The versions that machines are made with meanwhile."""
        both = (self.upgrade.begin, self.upgrade.target) if self.upgrade and self.upgrade.moves else ()
        return tuple(dict.fromkeys((*both, *self.links)))


@dataclass(frozen=True)
class UpgradeResult:
    """``version``: of the cluster now. ``upgrade``: what is left of it. ``paused``: whether somebody stopped it on the way."""

    name: str
    version: str
    upgrade: Upgrade | None
    changed: bool
    paused: bool = False
    notes: tuple[str, ...] = ()


def preview(
    name: str, cloud: Cloud, *, wish: Wish, paths: Paths, makes: Collection[str] = (), clock: Clock | None = None
) -> Preview:
    """What ``upgrade`` would do, without doing anything. ``makes``: versions whose images are made when they are needed.

    UsageError for what is in the way.
    """
    return _Upgrading(name, cloud, paths=paths, makes=makes, clock=clock or SystemClock()).preview(wish)


def upgrade(
    name: str,
    cloud: Cloud,
    *,
    wish: Wish,
    paths: Paths,
    reporter: Reporter,
    makes: Collection[str] = (),
    clock: Clock | None = None,
) -> UpgradeResult:
    """Do what ``wish`` asks for, or go on with what was begun. The cloud has the images that ``Preview.needs`` names.

    Raises UsageError before anything is changed; whatever is half-done after another error, the next call finishes.
    """
    clock = clock or SystemClock()
    with working(paths, name, command="moyai upgrade", clock=clock, tell=reporter.note) as work:
        upgrading = _Upgrading(name, cloud, paths=paths, makes=makes, clock=clock, mirror=work)
        with reporter.step("look whether the cluster can be upgraded"):
            seen = upgrading.preview(wish)
        if seen.upgrade is None and wish.soak_hours is not None:
            upgrading.set_soak(wish.soak_hours)
        return upgrading.run(seen.upgrade, reporter=reporter)


class _Upgrading:
    def __init__(
        self,
        name: str,
        cloud: Cloud,
        *,
        paths: Paths,
        makes: Collection[str],
        clock: Clock,
        mirror: Mirror | None = None,
    ) -> None:
        self._mirror = mirror
        self._name, self._cloud, self._paths, self._makes, self._clock = name, cloud, paths, makes, clock
        self._offered: frozenset[str] = frozenset()

    def preview(self, wish: Wish) -> Preview:
        record = self._record()
        if record.restores:
            raise UsageError(f"cluster {record.name} is being restored from a backup", hint="`moyai restore FILE` goes on")
        refuse_while_moving(record)
        there = _versions(self._cloud)
        self._offered = there | frozenset(self._makes)
        begun, has = record.upgrade, str(record.spec["spec"]["kubernetesVersion"])
        wanted = decide(has, begun, wish=wish, offered=self._offered, now=self._clock.now())
        if begun is not None and wanted.stage is Stage.SOAKING:
            return Preview(record.name, None, (), Plan())
        start = self._look(record.cluster)
        if begun is None or begun.stage is not wanted.stage:
            self._refuse(start, wanted)
        links = (wanted.end,)
        if wanted.stage is Stage.FORWARD and wanted.target != wanted.goal:
            links = (*links, *plan_links(wanted.target, wanted.goal, offered=self._offered))
        if {wanted.target, *((wanted.begin,) if wanted.moves else ())} <= there:
            start = self._look(record.cluster, wanted)
        return Preview(record.name, wanted, links, _with_later(start, wanted))

    def set_soak(self, hours: float) -> None:
        record = self._record()
        if record.upgrade is not None:
            record.set_upgrade(replace(record.upgrade, soak_hours=hours))

    def run(self, wanted: Upgrade | None, *, reporter: Reporter) -> UpgradeResult:
        record = self._record()
        if wanted is None:
            return UpgradeResult(record.name, record.spec["spec"]["kubernetesVersion"], record.upgrade, changed=False)
        go_on(record)
        rounds = rounds_of(self._cloud, self._paths, reporter=reporter, clock=self._clock, mirror=self._mirror)
        notes: tuple[str, ...] = ()
        at: Upgrade | None = wanted
        while at is not None and at.stage is not Stage.SOAKING:
            # on record first: whatever happens now, the next run goes on here
            record.set_upgrade(at)
            start = self._replace(record, rounds)
            notes = start.plan.notes
            if rounds.stopped:
                break
            record = start.record or record
            at = self._next(record, at)
        for note in (*notes, *dict.fromkeys(rounds.late)):
            reporter.note(note)
        record = self._record()
        version = record.spec["spec"]["kubernetesVersion"]
        return UpgradeResult(
            *(record.name, version, record.upgrade, rounds.changed), paused=rounds.stopped, notes=(*notes, *rounds.late)
        )

    def _replace(self, record: Record, rounds: Rounds) -> Start:
        """Replace the machines of this stage, until none is left or somebody asks for a pause."""

        def again() -> Start:
            return rounds.look(record.cluster, hold=False)

        start = again()
        most = 2 * len(record.allocations) + 6
        start = rounds.run(start, start.record or record, again=again, most=most, stop=lambda: is_paused(record))
        at = record.upgrade
        if at and not rounds.stopped and (rest := left(at, start.observed, recorded=start.recorded)):
            names = ", ".join(name for name, _ in rest)
            raise Terminal(f"{names} cannot be replaced now", hint="`moyai status` says why; `moyai upgrade` goes on")
        return start

    def _next(self, record: Record, done: Upgrade) -> Upgrade | None:
        """Put on record that the work of this stage is done, and what follows."""
        follows = after(done, offered=self._offered, now=self._clock.now())
        record.set_upgrade(follows, version=done.end)
        return follows

    def _refuse(self, start: Start, wanted: Upgrade) -> None:
        api = start.api
        use = read_use(api) if api and start.observed.kube and wanted.stage is Stage.FORWARD else None
        check_upgrade(
            start.facts.cluster,
            start.observed,
            recorded=start.recorded,
            upgrade=wanted,
            made_for=self._offered,
            use=use,
        )

    def _look(self, cluster: Cluster, wanted: Upgrade | None = None) -> Start:
        """UsageError for what no plan can be made for: nothing is changed yet."""
        try:
            return look(cluster, self._cloud, paths=self._paths, clock=self._clock, hold=wanted is None, upgrade=wanted)
        except Terminal as error:
            raise UsageError(error.message, hint=error.hint) from None

    def _record(self) -> Record:
        return require(self._paths, self._name, mirror=self._mirror)


def _versions(cloud: Cloud) -> frozenset[str]:
    """Those that the cloud has a node image of."""
    return frozenset(filter(is_version, (version_in_image(one.name) for one in cloud.images.images())))


def _with_later(start: Start, wanted: Upgrade) -> Plan:
    """The plan of the first round, with the machines whose turn comes after those that it can name itself."""
    named = {one.node for one in start.plan.replacements}
    rest = left(wanted, start.observed, recorded=start.recorded)
    later = tuple(Replacement(name, f"Kubernetes {had} → {wanted.end}") for name, had in rest if name not in named)
    return replace(start.plan, replacements=(*start.plan.replacements, *later))
