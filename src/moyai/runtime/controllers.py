"""A process of controllers and services: caches, controllers, background tasks, election and probes, run as one.

A ``ControllerSet`` is a list of parts; a cloud controller manager, a CSI driver and an agent differ in what is on the list.
What always holds: probes answer before anything else begins; caches fill side by side, and warm-ups run beside them;
controllers and periodic tasks begin when all caches are full and this process leads; they stop at once when it no longer leads;
a part that ends takes the process with it (``manager``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from moyai.core.errors import MoyaiError, Retriable, UsageError
from moyai.kube.events import EventRecorder
from moyai.kube.informer import Informer
from moyai.kube.leader import LeaderElection
from moyai.kube.objects import reference
from moyai.kube.resources import Json, Resource
from moyai.kube.watching import Kube
from moyai.kube.workqueue import WorkQueue
from moyai.runtime.health import Check, HealthServer
from moyai.runtime.manager import run_until_stopped
from moyai.runtime.metrics import Metrics
from moyai.runtime.reconciler import Controller, OnError, Reconcile

T = TypeVar("T")
#: A background task, as it is started.
Task = Callable[[], Awaitable[None]]

_log = logging.getLogger(__name__)

#: A periodic task that failed with Retriable is repeated after this long.
_RETRY_SECONDS = 60.0
#: What is left of events when a process ends may take so long.
_FLUSH_SECONDS = 1.0


def _ignore(_key: str, _error: MoyaiError) -> None:
    return


@dataclass(frozen=True)
class Periodic:
    """``run`` is called at once and again ``seconds`` after it ended. An error of ours is logged."""

    name: str
    run: Task
    seconds: float


@dataclass(frozen=True)
class Part:
    """A controller as it registers itself.

    ``watch``: ties the caches to the queue, before they fill. ``workers``: how many keys are worked on at the same time.
    ``periodic``: what else the controller does from time to time while it runs.
    """

    name: str
    reconcile: Reconcile
    watch: Callable[[WorkQueue], None]
    workers: int = 1
    on_error: OnError = _ignore
    periodic: Sequence[Periodic] = ()


@dataclass(frozen=True)
class Probes:
    """``bind``: ``host:port`` (no host: all addresses). ``live`` and ``ready``: checks beside those of the set itself."""

    bind: str
    live: Mapping[str, Check] = field(default_factory=dict[str, Check])
    ready: Mapping[str, Check] = field(default_factory=dict[str, Check])


@dataclass(frozen=True)
class ControllerSetup:
    """A controller as a process takes it on: its part of the set, the caches that only it needs, tasks that run beside it
    (name → start), and what it adds to the readiness of the process (name → check)."""

    part: Part
    caches: tuple[Informer[Any], ...] = ()
    tasks: Mapping[str, Task] = field(default_factory=dict[str, Task])
    ready: Mapping[str, Check] = field(default_factory=dict[str, Check])


def cache(
    kube: Kube,
    resource: Resource,
    *,
    parse: Callable[[Json], T],
    metrics: Metrics,
    namespace: str | None = None,
    optional: bool = False,
    kind: str = "",
    events: EventRecorder | None = None,
) -> Informer[T]:
    """An informer whose breaks are counted in ``moyai_watch_breaks_total``, and objects that cannot be read in
    ``moyai_unreadable_objects_total``. With ``events`` there is one on each of these; ``kind`` is theirs. ``optional``: whether
    the API may have no such resource."""

    def broke(plural: str, _why: str) -> None:
        metrics.count("moyai_watch_breaks_total", resource=plural)

    def unreadable(found: Json, why: Exception) -> None:
        metrics.count("moyai_unreadable_objects_total", resource=resource.plural)
        if events:
            message = f"This object is left alone, because it cannot be read ({type(why).__name__}: {why})"
            events.event(reference(found, kind), "Warning", reason="Unreadable", message=message)

    return Informer(
        kube, resource, parse=parse, namespace=namespace, optional=optional, on_break=broke, on_unreadable=unreadable
    )


class ControllerSet:
    """``tasks`` (name → start) run from the start to the end, with and without the lease. ``warm_ups`` run beside the first
    lists, once; an error of ours in them is logged. ``at_end``: called when the controllers stop, before the ``tasks`` do.
    """

    def __init__(
        self,
        *,
        metrics: Metrics,
        caches: Sequence[Informer[Any]] = (),
        parts: Sequence[Part] = (),
        tasks: Mapping[str, Task] | None = None,
        warm_ups: Sequence[Task] = (),
        election: LeaderElection | None = None,
        probes: Probes | None = None,
        at_end: Task | None = None,
    ) -> None:
        self.metrics = metrics
        self._caches = tuple(caches)
        _refuse_twins(self._caches)
        self._tasks = dict(tasks or {})
        self._warm_ups = tuple(warm_ups)
        self._election = election
        self._probes = probes
        self._at_end = at_end
        self._leading = False
        self._working = False
        self._periodic = [one for part in parts for one in part.periodic]
        self.controllers: dict[str, Controller] = {}
        for part in parts:
            controller = Controller(part.name, part.reconcile, metrics=metrics, workers=part.workers, on_error=part.on_error)
            part.watch(controller.queue)
            self.controllers[part.name] = controller
        if self.controllers:
            self._describe()

    async def run(self, stop: asyncio.Event | None = None) -> bool:
        """True after ``stop`` or a signal, False when a part ended by itself."""
        health = await self._serve_probes()
        tasks: dict[str, Task] = {f"watch of {one.resource.plural}{one.where}": one.run for one in self._caches}
        tasks |= self._tasks
        if self.controllers:
            tasks["controllers"] = self._lead
        try:
            return await run_until_stopped(tasks, stop=stop)
        finally:
            # with a call under way the lease is not handed over: the next leader must find the object that the call makes
            if self._election and not self._working:
                await self._election.release()
            if health:
                await health.stop()

    async def _serve_probes(self) -> HealthServer | None:
        if self._probes is None:
            return None
        probes = self._probes
        checks: dict[str, Check] = {"caches": self._not_synced, "watches": self._not_healthy} if self._caches else {}
        health = HealthServer(live=probes.live, ready={**checks, **probes.ready}, metrics=self.metrics.text)
        host, _, port = probes.bind.rpartition(":")
        try:
            await health.start(host.strip("[]") or "0.0.0.0", int(port))
        except (OSError, ValueError) as error:
            raise UsageError(f"probes cannot be served on {probes.bind} ({error})") from error
        return health

    async def _lead(self) -> None:
        await asyncio.gather(*(one.synced.wait() for one in self._caches), *(_tried(one) for one in self._warm_ups))
        if self._election:
            await self._election.acquire()
        self._leading = self._working = True
        _log.info("starting: %s", ", ".join(self.controllers))
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one.run()) for one in self.controllers.values()]
                tasks += [group.create_task(_repeat(one)) for one in self._periodic]
                if self._election:
                    await self._election.hold()
                    for task in tasks:
                        task.cancel()
        finally:
            self._working = False
            self._leading = False
            if self._at_end:
                await self._at_end()

    def _not_synced(self) -> str:
        return "" if all(one.synced.is_set() for one in self._caches) else "not filled yet"

    def _not_healthy(self) -> str:
        broken = [one.resource.plural for one in self._caches if not one.healthy]
        return f"nothing heard of {', '.join(broken)} for a minute" if broken else ""

    def _describe(self) -> None:
        metrics, caches, controllers = self.metrics, self._caches, self.controllers
        metrics.describe("moyai_reconcile_total", "Reconciles by controller and outcome")
        metrics.describe("moyai_reconcile_seconds", "How long a reconcile takes, waiting for the cloud included")
        metrics.describe("moyai_cloud_calls_total", "Calls to the cloud by name and outcome")
        metrics.describe("moyai_cloud_credentials_refused_total", "Calls that the cloud refused because of the credentials")
        metrics.describe("moyai_unreadable_objects_total", "Objects of Kubernetes that could not be read, by resource")
        metrics.describe("moyai_watch_breaks_total", "Watches that broke, after which everything was listed again")
        metrics.describe("moyai_watch_up", "1 while the watch of a resource is alive")
        metrics.gauge("moyai_watch_up", lambda: {(("resource", one.resource.plural),): float(one.healthy) for one in caches})
        metrics.gauge(
            "moyai_queue_length", lambda: {(("controller", key),): one.queue.waiting for key, one in controllers.items()}
        )
        metrics.gauge("moyai_leading", lambda: {(): float(self._leading)})


def controller_set(
    setups: Sequence[ControllerSetup],
    *,
    metrics: Metrics,
    events: EventRecorder,
    bind: str,
    shared: Sequence[Informer[Any]] = (),
    warm_ups: Sequence[Task] = (),
    election: LeaderElection | None = None,
) -> ControllerSet:
    """The controllers of one process. ``shared``: caches that several of them use. ``events`` are sent from the start to the
    end, and those that wait when the controllers stop are sent first. ``bind``: see ``Probes``."""
    return ControllerSet(
        metrics=metrics,
        # several controllers may bring the same cache
        caches=list(dict.fromkeys([*shared, *(informer for one in setups for informer in one.caches)])),
        parts=[one.part for one in setups],
        tasks={"events": events.run, **{name: task for one in setups for name, task in one.tasks.items()}},
        warm_ups=warm_ups,
        election=election,
        probes=Probes(bind, ready={name: check for one in setups for name, check in one.ready.items()}),
        at_end=partial(events.flush, _FLUSH_SECONDS),
    )


def _refuse_twins(caches: Sequence[Informer[Any]]) -> None:
    """Two caches of the same objects would be watched by one of them alone, and the other would stay empty."""
    seen: set[tuple[Resource, str]] = set()
    for one in caches:
        if (one.resource, one.where) in seen:
            raise ValueError(f"two caches of {one.resource.plural}{one.where} in one process: share one of them")
        seen.add((one.resource, one.where))


async def _tried(warm_up: Task) -> None:
    try:
        await warm_up()
    except MoyaiError as error:
        _log.warning("not ready yet: %s", error)


async def _repeat(periodic: Periodic) -> None:
    while True:
        pause = periodic.seconds
        try:
            await periodic.run()
        except MoyaiError as error:
            pause = min(pause, _RETRY_SECONDS) if isinstance(error, Retriable) else pause
            _log.warning("%s: %s; again in %.0f s", periodic.name, error, pause)
        await asyncio.sleep(pause)
