"""The cloud controller manager as a process: puts the parts together, runs them until a signal, and hands the lease back.

The order of the start is chosen so that the first reconcile comes soon: what is slow to import is imported beside the first
connection, and the controllers start as soon as the caches are full.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import cast
from uuid import uuid4

from moyai.ccm.fencing import LEASE_NAMESPACE, FencingController, bound
from moyai.ccm.manifests import NAME, NAMESPACE
from moyai.ccm.nodes import NodeController, NodeLifecycleController
from moyai.ccm.octavia.addresses import FloatingIPs, NodeRules
from moyai.ccm.octavia.balancer import Balancers
from moyai.ccm.routes import RouteController
from moyai.ccm.servers import Servers
from moyai.ccm.service import ServiceController
from moyai.ccm.settings import CONTROLLERS, CloudConfig, read_cloud_config
from moyai.cloud.factory import connect_with
from moyai.core.clock import Clock, SystemClock
from moyai.core.errors import MoyaiError, UsageError
from moyai.kube.events import EventRecorder
from moyai.kube.informer import Informer
from moyai.kube.leader import LeaderElection
from moyai.kube.objects import Lease, Node, Service, parse_lease, parse_node, parse_service
from moyai.kube.resources import LEASES, NODES, SERVICES
from moyai.kube.watching import Kube, KubeClient
from moyai.plan.fencing import Policy
from moyai.plan.load_balancer import ClusterIdentity
from moyai.runtime.calls import CloudCalls
from moyai.runtime.health import HealthServer
from moyai.runtime.logs import set_up
from moyai.runtime.manager import run_until_stopped
from moyai.runtime.metrics import Metrics
from moyai.runtime.reconciler import Controller, Reconcile

_log = logging.getLogger(__name__)

#: Blocking calls to the cloud at the same time. Each waits nearly always; more would only cost memory.
_THREADS = 8
_SERVICE_WORKERS = 8
_ORPHAN_SECONDS = 3600.0


@dataclass(frozen=True)
class Options:
    """``bind``: ``host:port`` of probes and metrics. ``kubeconfig`` None: as a pod of the cluster. ``pod_ranges``: CIDRs."""

    cloud_config: Path
    cluster_name: str
    pod_ranges: tuple[str, ...] = ()
    controllers: tuple[str, ...] = CONTROLLERS
    bind: str = "127.0.0.1:10258"
    kubeconfig: Path | None = None
    leader_elect: bool = True
    log_level: str = "info"


def main(options: Options) -> int:
    """Runs until a signal (0) or until a part of it ends (1). Raises UsageError for what it cannot start with."""
    config = _read(options)
    secrets = (config.cloud.application_credential_secret, config.cloud.password)
    set_up(options.log_level, secrets)
    return asyncio.run(_main(options, config))


def _read(options: Options) -> CloudConfig:
    try:
        text = options.cloud_config.read_text()
    except OSError as error:
        raise UsageError(f"cloud config {options.cloud_config} cannot be read ({error.strerror})") from error
    config = read_cloud_config(text)
    for one in options.pod_ranges:
        try:
            ip_network(one)
        except ValueError:
            raise UsageError(f"--cluster-cidr {one!r} is no CIDR", hint="for example 10.244.0.0/16") from None
    if unknown := sorted(set(options.controllers) - set(CONTROLLERS)):
        raise UsageError(f"there is no controller {unknown[0]!r}", hint=f"there are: {', '.join(CONTROLLERS)}")
    if "service" in options.controllers and not config.moyai.cluster_uid:
        raise UsageError(
            "cloud config has no cluster-uid",
            hint="set it in section [Moyai]: any word that no other cluster of the project has",
        )
    return config


async def _main(options: Options, config: CloudConfig) -> int:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="cloud"))
    # keystoneauth takes its time to import: beside the first list from Kubernetes nobody waits for it
    threading.Thread(target=_warm, name="warm", daemon=True).start()
    metrics = Metrics()
    kube = KubeClient.connect(options.kubeconfig)
    try:
        cloud = await asyncio.to_thread(connect_with, config.cloud)
        manager = Manager(options, config, kube=kube, calls=CloudCalls(cloud, metrics, config.cloud.region), metrics=metrics)
        return 0 if await manager.run() else 1
    finally:
        await kube.close()


def _warm() -> None:
    import moyai.cloud.openstack.session  # noqa: F401  # pyright: ignore[reportUnusedImport]


class Manager:
    """All controllers of one cluster. ``run`` works until stopped; tests bring their own ``kube`` and ``cloud``."""

    def __init__(
        self,
        options: Options,
        config: CloudConfig,
        *,
        kube: Kube,
        calls: CloudCalls,
        metrics: Metrics,
        clock: Clock | None = None,
        poll: float = 0.2,
    ) -> None:
        self._options = options
        self.metrics = metrics
        self._clock = clock or SystemClock()
        self._leading = False

        def broke(resource: str, _why: str) -> None:
            metrics.count("moyai_watch_breaks_total", resource=resource)

        self.nodes: Informer[Node] = Informer(kube, NODES, parse_node, on_break=broke)
        self.services: Informer[Service] = Informer(kube, SERVICES, parse_service, on_break=broke)
        self._caches: list[Informer[Node] | Informer[Service] | Informer[Lease]] = [self.nodes, self.services]
        self._events = EventRecorder(kube, component=NAME)
        cluster = ClusterIdentity(options.cluster_name, config.moyai.cluster_uid)
        servers = Servers(calls, config.moyai.cluster_uid, self._clock)
        self._servers = servers
        self.controllers: dict[str, Controller] = {}
        self._tasks: dict[str, Callable[[], Awaitable[None]]] = {}
        wanted = set(options.controllers)
        policy = cast("Policy", config.moyai.fencing)
        if "node" in wanted:
            node = NodeController(
                kube=kube,
                nodes=self.nodes,
                servers=servers,
                region=calls.region,
                events=self._events,
                clock=self._clock,
            )
            node.watch(self._add("node", node.reconcile, workers=4).queue)
        if "node-lifecycle" in wanted:
            lifecycle = NodeLifecycleController(
                kube=kube,
                nodes=self.nodes,
                servers=servers,
                events=self._events,
                clock=self._clock,
                bound=partial(bound, kube) if "fencing" in wanted and policy != "off" else None,
            )
            lifecycle.watch(self._add("node-lifecycle", lifecycle.reconcile, workers=2).queue)
        if "fencing" in wanted:
            leases = Informer(kube, LEASES, parse_lease, namespace=LEASE_NAMESPACE, on_break=broke)
            self._caches.append(leases)
            fencing = FencingController(
                kube=kube,
                nodes=self.nodes,
                leases=leases,
                servers=servers,
                events=self._events,
                metrics=metrics,
                policy=policy,
                clock=self._clock,
            )
            fencing.watch(self._add("fencing", fencing.reconcile, workers=4).queue)
        if "route" in wanted and config.route.router_id and options.pod_ranges:
            route = RouteController(
                kube=kube,
                nodes=self.nodes,
                calls=calls,
                servers=servers,
                router_id=config.route.router_id,
                ranges=options.pod_ranges,
                events=self._events,
                clock=self._clock,
            )
            route.watch(self._add("route", route.reconcile).queue)
        if "service" in wanted and config.load_balancer.enabled:
            service = ServiceController(
                kube=kube,
                services=self.services,
                nodes=self.nodes,
                balancers=Balancers(calls, cluster, self._clock, poll=poll),
                floating=FloatingIPs(calls, cluster),
                rules=NodeRules(calls, cluster, config),
                config=config,
                cluster=cluster,
                events=self._events,
            )
            controller = self._add("service", service.reconcile, workers=_SERVICE_WORKERS, on_error=service.failed)
            service.watch(controller.queue)
            self._tasks["orphans"] = lambda: self._clean_orphans(service)
        self._election = (
            LeaderElection(kube, name=NAME, namespace=NAMESPACE, identity=f"{socket.gethostname()}_{uuid4().hex[:8]}")
            if options.leader_elect
            else None
        )
        self._describe()

    def _add(
        self,
        name: str,
        reconcile: Reconcile,
        *,
        workers: int = 1,
        on_error: Callable[[str, MoyaiError], None] = lambda _key, _error: None,
    ) -> Controller:
        controller = Controller(name, reconcile, metrics=self.metrics, workers=workers, on_error=on_error)
        self.controllers[name] = controller
        self._tasks[name] = controller.run
        return controller

    async def run(self, stop: asyncio.Event | None = None) -> bool:
        """True when it was told to stop, False when a part of it ended."""
        host, _, port = self._options.bind.rpartition(":")
        health = HealthServer(
            live={},
            ready={"caches": self._not_synced, "watches": self._not_healthy},
            metrics=self.metrics.text,
        )
        try:
            await health.start(host.strip("[]"), int(port))
        except (OSError, ValueError) as error:
            raise UsageError(f"probes cannot be served on {self._options.bind} ({error})") from error
        try:
            return await run_until_stopped(
                {
                    **{f"watch of {one.resource.plural}": one.run for one in self._caches},
                    "events": self._events.run,
                    "controllers": self._lead,
                },
                stop=stop,
            )
        finally:
            if self._election:
                await self._election.release()
            await health.stop()

    async def _warm(self) -> None:
        """The first call logs in and finds the services, which takes longer than all that follows: not after the caches are
        full but meanwhile."""
        if "node" in self.controllers:
            try:
                await self._servers.all(max_age=60)
            except MoyaiError as error:
                _log.warning("the cloud does not answer yet: %s", error)

    async def _lead(self) -> None:
        await asyncio.gather(*(one.synced.wait() for one in self._caches), self._warm())
        if self._election:
            await self._election.acquire()
        self._leading = True
        _log.info("starting: %s", ", ".join(self.controllers))
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(_run(task)) for task in self._tasks.values()]
                if self._election:
                    await self._election.hold()
                    for task in tasks:
                        task.cancel()
        finally:
            self._leading = False
            await self._events.flush(1.0)

    async def _clean_orphans(self, service: ServiceController) -> None:
        while True:
            try:
                await service.clean_orphans()
            except MoyaiError as error:
                _log.warning("looking for what was left behind: %s", error)
            await asyncio.sleep(_ORPHAN_SECONDS)

    def _not_synced(self) -> str:
        return "" if all(one.synced.is_set() for one in self._caches) else "not filled yet"

    def _not_healthy(self) -> str:
        broken = [one.resource.plural for one in self._caches if not one.healthy]
        return f"nothing heard of {', '.join(broken)} for a minute" if broken else ""

    def _describe(self) -> None:
        metrics = self.metrics
        metrics.describe("moyai_reconcile_total", "Reconciles by controller and outcome")
        metrics.describe("moyai_reconcile_seconds", "How long a reconcile takes, waiting for the cloud included")
        metrics.describe("moyai_cloud_calls_total", "Calls to the cloud by name and outcome")
        metrics.describe("moyai_watch_breaks_total", "Watches that broke and were listed anew")
        metrics.describe("moyai_watch_up", "1 while the watch of a resource is alive")
        metrics.gauge(
            "moyai_watch_up",
            lambda: {(("resource", one.resource.plural),): float(one.healthy) for one in self._caches},
        )
        metrics.gauge(
            "moyai_queue_length", lambda: {(("controller", key),): len(one.queue) for key, one in self.controllers.items()}
        )
        metrics.gauge("moyai_leading", lambda: {(): float(self._leading)})


async def _run(task: Callable[[], Awaitable[None]]) -> None:
    await task()
