"""``down``: remove a cluster with all that was made for it, and list at the end what is left.

Looks, plans, carries out, and looks again until nothing is left or nothing moves any more. Only the first look asks Kubernetes,
so only the first plan has steps that go through it. Always holds: what carries another UID is never touched; one thing that
will not go does not keep the others; the report is listed again from the cloud at the end, never from what the calls said; the
record stays as long as anything is left.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from moyai.cloud.capabilities import Cloud
from moyai.core.clock import Clock, SystemClock
from moyai.core.errors import MoyaiError, Terminal, UsageError, one_line
from moyai.core.keys import Kind
from moyai.core.paths import Paths
from moyai.core.progress import Progress, Reporter
from moyai.kube.quick import KubeApi
from moyai.lifecycle import execute, observe
from moyai.lifecycle.clusters import open_api, set_aside
from moyai.lifecycle.record import Record
from moyai.lifecycle.work import working
from moyai.plan import steps as s
from moyai.plan.graph import KeptObject, Plan
from moyai.plan.steps import Delete, StepId
from moyai.plan.teardown import Target, plan_down

#: How often the cloud is looked at again before what is left is reported as left.
ROUNDS = 4
_SILENT = (
    "the Kubernetes API does not answer: load balancers are removed in the cloud itself, and machines are shut down before "
    "volumes that stay are detached"
)
Outcome = Literal["gone", "kept", "left"]


@dataclass(frozen=True)
class ReportEntry:
    """One object in the report. ``why``: why it was kept or is left."""

    kind: Kind
    name: str
    id: str
    outcome: Outcome
    why: str = ""


@dataclass(frozen=True)
class DownReport:
    """``entries``: every object made or found, with what became of it, as the cloud lists it at the end."""

    name: str
    uid: str
    entries: tuple[ReportEntry, ...]
    seconds: Mapping[str, float] = field(default_factory=dict[str, float])

    @property
    def left(self) -> tuple[ReportEntry, ...]:
        return tuple(entry for entry in self.entries if entry.outcome == "left")

    def data(self) -> dict[str, Any]:
        """For ``--output json``, where an entry's outcome is called ``fate``."""
        counts = {outcome: sum(entry.outcome == outcome for entry in self.entries) for outcome in get_args(Outcome)}
        return {"name": self.name, "uid": self.uid, **counts, "objects": [_data(entry) for entry in self.entries]}


def _data(entry: ReportEntry) -> dict[str, str]:
    return {"kind": entry.kind, "name": entry.name, "id": entry.id, "fate": entry.outcome, "why": entry.why}


def target_of(name: str, paths: Paths, *, cloud: Cloud, uid: str = "") -> tuple[Target, Record | None]:
    """Which cluster is meant: by its record, else by what the cloud holds. UsageError when there is none, or several."""
    record = Record.open(paths, name) if name else None
    if record is not None and uid in ("", record.uid):
        return _recorded_target(record), record
    found = {uid: one.name for uid, one in observe.find_clusters(cloud).items()}
    if uid:
        if uid not in found:
            raise UsageError(f"no cluster with UID {uid} is in this cloud", hint=_there(found))
        return Target(found[uid], uid), None
    same = [candidate for candidate, called in found.items() if called == name]
    if len(same) == 1:
        return Target(name, same[0]), None
    if same:
        raise UsageError(f"several clusters {name!r} are in this cloud", hint=f"choose one by --uid: {', '.join(sorted(same))}")
    raise UsageError(f"there is no cluster {name!r}, neither a record here nor anything in the cloud", hint=_there(found))


def _recorded_target(record: Record) -> Target:
    try:
        spec = record.cluster.spec
    except UsageError:
        return Target(record.name, record.uid, record.intended)
    existing = spec.network.existing
    return Target(record.name, record.uid, record.intended, existing=existing, volumes=spec.volumes.reclaim_policy)


def _there(found: Mapping[str, str]) -> str:
    return (
        "there are " + ", ".join(f"{name} ({uid})" for uid, name in sorted(found.items())) if found else "there is none at all"
    )


def preview(target: Target, record: Record | None, *, cloud: Cloud) -> Plan:
    """The plan of ``down``, without doing anything."""
    return _planned(target, cloud, api=_api_of(record))


def _api_of(record: Record | None) -> KubeApi | None:
    """The way into the cluster; None without a record or a kubeconfig. Nothing is sent."""
    return open_api(record) if record is not None else None


def _planned(target: Target, cloud: Cloud, *, api: KubeApi | None) -> Plan:
    """Read the cloud, and Kubernetes beside it where there is a way into the cluster, and plan."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="look") as pool:
        asked = pool.submit(observe.kube_use, api, cloud.kind.volume_names)
        observed = observe.take(cloud, name=target.name, uid=target.uid, plan_for="down", existing=target.existing)
        observed = replace(observed, in_use=asked.result())
    plan = plan_down(observed, target)
    silent = api is not None and observed.in_use is None
    return replace(plan, notes=(*plan.notes, _SILENT)) if silent and plan else plan


def down(
    target: Target,
    record: Record | None,
    *,
    cloud: Cloud,
    paths: Paths,
    reporter: Reporter,
    clock: Clock | None = None,
) -> DownReport:
    """Remove the cluster; returns the report. Raises Terminal when the cloud cannot be asked at all, or when another cluster
    has got the name of the one that was meant.
    """
    with working(paths, target.name, command="moyai down", clock=clock, tell=reporter.note):
        # since the target was chosen, and a question answered, another command may have removed the cluster and made it again
        now = Record.open(paths, target.name, clock=clock)
        if now is not None and now.uid == target.uid:
            target, record = _recorded_target(now), now
        elif now is not None and record is not None:
            raise Terminal(
                f"cluster {target.name} ({target.uid}) was removed meanwhile, and {now.uid} was made under its name",
                hint="`moyai down` again removes that one",
            )
        else:
            record = None
        return _Down(target, record, cloud=cloud, reporter=reporter, clock=clock or SystemClock()).run()


class _Down:
    def __init__(self, target: Target, record: Record | None, *, cloud: Cloud, reporter: Reporter, clock: Clock) -> None:
        self.target = target
        self.record = record
        self.cloud = cloud
        self.reporter = reporter
        self.clock = clock
        self.api = _api_of(record)
        self.failures: dict[tuple[Kind, str], str] = {}
        self.met: dict[tuple[Kind, str], str] = {}
        #: Disks that stay, also those that hang on nothing of the cluster any more in the end.
        self.disks: dict[tuple[Kind, str], KeptObject] = {}

    def run(self) -> DownReport:
        # Kubernetes is asked once: what does not end through it then goes in the cloud itself
        plan = self._look("look at the cloud", api=self.api)
        before: set[StepId] | None = None
        for number in range(ROUNDS):
            if not plan or (before is not None and before == {step.id for step in plan.steps} and number > 1):
                break
            before = {step.id for step in plan.steps}
            self._carry_out(plan, number)
            plan = self._look("list what is left" + (f" ({number + 1})" if number else ""))
        report = self._report(plan)
        if not report.left and self.record is not None:
            shutil.rmtree(set_aside(self.record.folder), ignore_errors=True)
            self.record.remove()
        return report

    def _look(self, name: str, *, api: KubeApi | None = None) -> Plan:
        with self.reporter.step(name) as progress:
            plan = _planned(self.target, self.cloud, api=api)
            for note in plan.notes:
                progress.progress(note)
        for step in plan.steps:
            if isinstance(step, Delete):
                self.met[(step.kind, step.object_id)] = step.name
        for kept in plan.kept:
            if kept.kind in (Kind.VOLUME, Kind.SNAPSHOT):
                self.disks[(kept.kind, kept.object_id)] = kept
        return plan

    def _carry_out(self, plan: Plan, number: int) -> None:
        context = execute.Context(self.cloud, None, uid=self.target.uid, clock=self.clock, open_api=lambda: self.api)

        def failed(step: s.Step, error: BaseException, progress: Progress) -> bool:
            if not isinstance(error, MoyaiError):
                return False
            # what depends on it is tried all the same: the cloud says best what it allows
            progress.progress(f"failed: {one_line(error)}")
            if isinstance(step, Delete):
                self.failures[(step.kind, step.object_id)] = one_line(error)
            return True

        execute.carry_out(
            plan,
            execute.table(execute.Ending(context), execute.Removing(context)),
            reporter=self.reporter,
            suffix=f" (again, {number})" if number else "",
            failed=failed,
        )

    def _report(self, plan: Plan) -> DownReport:
        left = {(step.kind, step.object_id) for step in plan.steps if isinstance(step, Delete)}
        kept = {key: kept for key, kept in self.disks.items() if key not in self.met}
        kept |= {(kept.kind, kept.object_id): kept for kept in plan.kept}
        entries = [
            ReportEntry(kind, name, identity, "left", self.failures.get((kind, identity), "it is still listed"))
            if (kind, identity) in left
            else ReportEntry(kind, name, identity, "gone")
            for (kind, identity), name in self.met.items()
        ]
        entries += [ReportEntry(item.kind, item.name, item.object_id, "kept", item.why) for item in kept.values()]
        known = {entry.id for entry in entries}
        if self.record is not None:
            # made by an earlier `up` and gone before this `down` looked
            for made in self.record.objects.values():
                if made.id and made.id not in known and made.key.kind is not Kind.SECRET:
                    entries.append(ReportEntry(made.key.kind, made.name or str(made.key), made.id, "gone"))
        order = {"left": 0, "kept": 1, "gone": 2}
        entries.sort(key=lambda entry: (order[entry.outcome], entry.kind, entry.name))
        return DownReport(self.target.name, self.target.uid, tuple(entries), dict(self.reporter.timings))


def check(report: DownReport) -> None:
    """Raises Terminal when anything is left."""
    if report.left:
        names = ", ".join(f"{entry.kind} {entry.name}" for entry in report.left[:3])
        more = f" and {len(report.left) - 3} more" if len(report.left) > 3 else ""
        raise Terminal(
            f"cluster {report.name}: {len(report.left)} objects are left in the cloud: {names}{more}",
            hint="`moyai down` again goes on from here",
        )
