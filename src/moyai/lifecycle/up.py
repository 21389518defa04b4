"""``up``: bring a cluster to its spec, from wherever it stands.

Reads the cloud, plans, carries out the plan side by side, and waits for what Kubernetes makes of it. Always holds: nothing is
made before the whole plan is known to fit; every object is in the record before it is in the cloud; run again after any
interruption it finishes the work, and run again after success it finds nothing to do.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from moyai.bootstrap import user_data
from moyai.cloud.capabilities import Cloud
from moyai.core.clock import Clock, SystemClock
from moyai.core.errors import MoyaiError, Terminal
from moyai.core.graph import Task, TaskFunction, run_graph
from moyai.core.ids import cluster_tag, new_uid
from moyai.core.paths import Paths
from moyai.core.progress import Reporter
from moyai.core.progress import Step as Progress
from moyai.kube import resources
from moyai.kube.objects import parse_deployment, parse_node
from moyai.kube.quick import KubeApi
from moyai.lifecycle import addons, drain, observe, waits
from moyai.lifecycle.clusters import open_api
from moyai.lifecycle.execute import Executor, Hooks
from moyai.lifecycle.orders import Orders, makes_plane
from moyai.lifecycle.record import Record, locked
from moyai.plan import steps as s
from moyai.plan.changes import changed_nodes, refuse_changes
from moyai.plan.cluster import plan_up
from moyai.plan.observed import Observed, Recorded
from moyai.plan.rules import API_PORT
from moyai.plan.steps import Plan
from moyai.spec.load import dump
from moyai.spec.model import Cluster

#: Names of the waits, as the display shows them.
MACHINES, API, NODES, ADDONS = "machines boot", "Kubernetes API answers", "nodes Ready", "add-ons run"
VOLUMES = "volumes ready"
WORKERS = 24
#: What a machine does not need to boot: made while Kubernetes starts, so that the cloud is free for the machines before.
_NOT_FOR_BOOTING = (s.SetRules, s.SetGateway, s.AddInterface)


@dataclass(frozen=True)
class UpResult:
    """``changed``: whether anything was done. ``seconds``: what each phase took, by name."""

    name: str
    uid: str
    changed: bool
    kubeconfig: Path
    api: str
    nodes: tuple[str, ...]
    seconds: Mapping[str, float]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Start:
    """Where a cluster stands before ``up`` does anything."""

    record: Record | None
    past: Recorded
    observed: Observed
    api: KubeApi | None
    healthy: bool


def preview(cluster: Cluster, cloud: Cloud, paths: Paths) -> Plan:
    """The plan of ``up``, without doing anything."""
    return plan_up(cluster, *_observed(_look(cluster, cloud, paths, SystemClock())))


def _observed(start: _Start) -> tuple[Observed, Recorded]:
    return start.observed, start.past


def up(cluster: Cluster, cloud: Cloud, paths: Paths, reporter: Reporter, *, clock: Clock | None = None) -> UpResult:
    """Bring ``cluster`` to its spec. Raises UsageError or Terminal; whatever is half-made then, the next call finishes."""
    with locked(paths, cluster.name):
        return _Up(cluster, cloud, paths, reporter, clock or SystemClock()).run()


def _look(cluster: Cluster, cloud: Cloud, paths: Paths, clock: Clock) -> _Start:
    """Read record, cloud and Kubernetes, side by side. Refuses changes that cannot be made."""
    record = Record.open(paths, cluster.name, clock)
    if record is None:
        past = Recorded(cluster.name, new_uid())
        return _Start(None, past, observe.take(cloud, name=cluster.name, uid=past.uid), None, healthy=False)
    refuse_changes(record.spec, dump(cluster))
    api = open_api(record)
    with ThreadPoolExecutor(2, thread_name_prefix="look") as pool:
        nodes = pool.submit(_nodes, api, addons.deployments(record))
        observed = observe.take(cloud, name=cluster.name, uid=record.uid)
        names, healthy = nodes.result()
    return _Start(record, record.recorded(), _with_nodes(observed, names), api if names is not None else None, healthy)


def _nodes(api: KubeApi | None, addon_names: Collection[str]) -> tuple[frozenset[str] | None, bool]:
    """(names of the nodes, whether all of them are Ready and the add-ons run); None when the API does not answer."""
    if api is None:
        return None, False
    try:
        nodes = [parse_node(one) for one in api.list(resources.NODES, timeout=3)]
        deployments = [parse_deployment(one) for one in api.list(resources.DEPLOYMENTS, namespace="kube-system", timeout=3)]
    except MoyaiError:
        return None, False
    names = frozenset(node.name for node in nodes)
    ready, known = waits.node_states(nodes)
    done = {one.name for one in deployments if one.done}
    return names, names <= ready & known and set(addon_names) <= done


def _with_nodes(observed: Observed, names: frozenset[str] | None) -> Observed:
    return replace(observed, kube_nodes=names)


class _Up:
    def __init__(self, cluster: Cluster, cloud: Cloud, paths: Paths, reporter: Reporter, clock: Clock) -> None:
        self.cluster = cluster
        self.cloud = cloud
        self.paths = paths
        self.reporter = reporter
        self.clock = clock
        self.abort = waits.Abort()
        self.api: KubeApi | None = None
        self.late: list[str] = []

    def run(self) -> UpResult:
        with self.reporter.step("look at the cloud"):
            start = _look(self.cluster, self.cloud, self.paths, self.clock)
            self.plan = plan = plan_up(self.cluster, start.observed, start.past)
        self.observed, self.was_there = start.observed, start.record is not None
        self.api = start.api
        names = {node.name for node in plan.nodes}
        quiet = not plan and start.healthy and start.past.ready and (start.observed.kube_nodes or frozenset()) >= names
        notes = [*plan.notes, *self._pool_notes(start.record)]
        self.record = start.record or Record.create(
            self.paths, self.cluster.name, dump(self.cluster), self.clock, uid=start.past.uid
        )
        # before the spec is on record: an interrupted change is seen again by the next run
        renewed = self._follow_policy(start)
        self.record.set_spec(dump(self.cluster))
        if not quiet:
            self._prepare()
            self._carry_out()
        notes += self.late
        for note in notes:
            self.reporter.note(note)
        return UpResult(
            name=self.cluster.name,
            uid=self.record.uid,
            changed=not quiet or renewed,
            kubeconfig=self.record.folder / "kubeconfig",
            api=f"https://{self.record.api_address}:{API_PORT}",
            nodes=tuple(node.name for node in plan.nodes),
            seconds=dict(self.reporter.timings),
            notes=tuple(notes),
        )

    def _follow_policy(self, start: _Start) -> bool:
        record = start.record
        if record is None or start.api is None or not addons.has_volumes(record):
            return False
        before = record.spec["spec"]["volumes"]["reclaimPolicy"]
        changed = before != self.cluster.spec.volumes.reclaim_policy
        return addons.follow_reclaim_policy(start.api, self.cluster, changed=changed)

    def _pool_notes(self, record: Record | None) -> list[str]:
        if record is None:
            return []
        notes = [
            f"pool {name}: new labels and taints are for new nodes; those that are there keep theirs"
            for name in changed_nodes(record.spec, dump(self.cluster))
        ]
        if record.ready and not addons.has_volumes(record):
            notes.append(
                "this cluster was built by a moyai without volumes, and its machines do not hold the CSI driver: "
                "`moyai down`, then `moyai up` build it with volumes"
            )
        return notes

    def _prepare(self) -> None:
        """Everything that must be on disk before the cloud is asked for anything."""
        record, plan = self.record, self.plan
        self.orders = Orders(
            self.cluster,
            self.cloud,
            record,
            plan=plan,
            observed=self.observed,
            clock=self.clock,
            kube=self._kube,
        )
        record.seat({node.name: node.seat for node in plan.nodes})
        named = " ".join(step.key for step in plan.steps).split(" ")
        for name in record.recorded().seats:
            if name not in named and name not in {node.name for node in plan.nodes}:
                record.unseat(name)

    # ---- the graph

    def _carry_out(self) -> None:
        plan, record = self.plan, self.record
        plane = plan.nodes[0]
        self.executor = executor = Executor(
            self.cloud,
            record,
            uid=record.uid,
            known=plan.known,
            clock=self.clock,
            hooks=Hooks(self.orders.order, self._drain, self._forget, self.orders.public_key),
        )
        keys = [step.key for step in plan.steps]
        whole = makes_plane(plan)
        removed = tuple(key for key in keys if key.startswith("delete server "))
        tasks: list[Task] = []
        for step in plan.steps:
            after = step.after
            if isinstance(step, s.CreateServer) and step.node.role == "worker" and not whole:
                # a token may have to be made first, and only the API can do that
                after = (*after, API)
            if isinstance(step, s.DrainNode):
                after = (*after, API)
            # not where machines go as well: their draining waits for the API, and that for the router
            if isinstance(step, _NOT_FOR_BOOTING) and whole and not removed:
                after = (*after, MACHINES)
            tasks.append(Task(step.key, lambda _, progress, step=step: executor.run(step, progress), after))
        servers = tuple(key for key in keys if key.startswith(("server ", "start ")))
        attached = tuple(
            key for key in (s.FLOATING_IP, s.ATTACH, s.server_key(plane.name), f"start {plane.name}") if key in keys
        )
        joins = tuple(key for key in servers if key not in attached)
        tasks += [
            Task(MACHINES, lambda _, progress: self._machines(progress), (*servers, *removed)),
            Task(API, lambda _, progress: self._wait_api(progress), attached),
            Task(NODES, lambda _, progress: self._wait_nodes(progress), (API, *joins, *removed)),
            Task(ADDONS, lambda _, progress: self._wait_addons(progress), (API, *joins, *removed)),
            Task(VOLUMES, lambda _, progress: self._wait_volumes(progress), (API, *joins, *removed)),
        ]
        try:
            run_graph([replace(task, run=self._aborting(task.run)) for task in tasks], self.reporter, workers=WORKERS)
        finally:
            self.abort.set()
        self._forget_deleted()

    def _aborting(self, run: TaskFunction) -> TaskFunction:
        """A failure anywhere ends all waits: nobody waits minutes for what can no longer come."""

        def call(results: Mapping[str, Any], progress: Progress) -> Any:
            try:
                return run(results, progress)
            except BaseException:
                self.abort.set()
                raise

        return call

    def _forget_deleted(self) -> None:
        gone = [step.key.removeprefix("delete ") for step in self.plan.steps if isinstance(step, s.Delete)]
        if gone:
            self.record.forget(*gone)
        for key in gone:
            if key.startswith("port "):
                self.record.unseat(key.removeprefix("port "))

    # ---- waits

    def _kube(self) -> KubeApi:
        if self.api is None:
            self.orders.api_address(self.executor)
            self.api = open_api(self.record)
            assert self.api is not None
        return self.api

    def _server_ids(self) -> dict[str, str]:
        return {node.name: self.executor.id(s.server_key(node.name)) for node in self.plan.nodes}

    def _machines(self, progress: Progress) -> None:
        names = [node.name for node in self.plan.nodes]
        waits.machines(self.cloud.machines, self.record.uid, names, clock=self.clock, abort=self.abort, progress=progress)

    def _wait_api(self, progress: Progress) -> None:
        plane = self.plan.nodes[0]
        server_id = self.executor.id(s.server_key(plane.name))
        compute = self.cloud.machines
        waits.api_answers(self._kube(), compute, server_id, clock=self.clock, abort=self.abort, progress=progress)
        self.record.set_ready()
        # the key has served: the machine has opened its secrets
        server = next((server for server in self.observed.servers if server.id == server_id), None)
        if server is None or user_data.KEY_METADATA in server.metadata:
            compute.delete_server_metadata(server_id, [user_data.KEY_METADATA])

    def _wait_nodes(self, progress: Progress) -> None:
        waits.nodes_ready(
            self._kube(),
            self.cloud.machines,
            self._server_ids(),
            clock=self.clock,
            abort=self.abort,
            progress=progress,
        )

    def _wait_addons(self, progress: Progress) -> None:
        waits.addons_run(
            self._kube(),
            addons.DEPLOYMENTS,
            addons.DAEMON_SETS,
            clock=self.clock,
            abort=self.abort,
            progress=progress,
        )

    def _wait_volumes(self, progress: Progress) -> None:
        """A cluster without volumes can be used: what is wrong with them is said, and does not end `up` as a failure."""
        if not addons.has_volumes(self.record):
            return
        names, sets = addons.VOLUME_DEPLOYMENTS, addons.VOLUME_DAEMON_SETS
        try:
            waits.addons_run(self._kube(), names, sets, clock=self.clock, abort=self.abort, progress=progress)
        except waits.Stopped:
            raise
        except Terminal as error:
            self.late.append(f"claims of volumes must wait: {error.message}; all else works, and `moyai up` looks again")

    # ---- taking nodes out

    def _drain(self, name: str, progress: Progress) -> None:
        drain.drain(self._kube(), name, clock=self.clock, progress=progress)

    def _forget(self, name: str) -> None:
        if self.api is not None or self.record.ready:
            drain.forget_node(self._kube(), name, clock=self.clock)


def cluster_servers(cloud: Cloud, uid: str) -> list[Any]:
    """The cluster's servers, by name."""
    return sorted(cloud.machines.servers(tag=cluster_tag(uid)), key=lambda server: server.name)
