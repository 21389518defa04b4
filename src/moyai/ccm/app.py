"""The cloud controller manager as a process: the list of its controllers, run until a signal.

The start is arranged so that the first reconcile comes soon: what is slow to import is imported beside the first connection,
and the first call to the cloud, which logs in, is made while the caches fill.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import cast
from uuid import uuid4

from moyai.ccm.announced.metallb_resources import AnnounceResources
from moyai.ccm.announced.pools import PoolController
from moyai.ccm.announced.provider import AnnouncedProvider
from moyai.ccm.cloud_balancers import CloudBalancerProvider
from moyai.ccm.egress_ips import EgressIpController
from moyai.ccm.fencing import LEASE_NAMESPACE, FencingController, in_use
from moyai.ccm.group_rules import GroupRules
from moyai.ccm.manifests import NAME, NAMESPACE
from moyai.ccm.nodes import NodeController, NodeLifecycleController
from moyai.ccm.octavia.provider import OctaviaProvider
from moyai.ccm.orphans import OrphanRemoval
from moyai.ccm.provider import ServiceProvider
from moyai.ccm.routes import RouteController
from moyai.ccm.servers import Servers
from moyai.ccm.service import ServiceController
from moyai.ccm.settings import CONTROLLERS, CcmConfig, read_ccm_config
from moyai.cloud.adapter import Adapter
from moyai.cloud.config_file import read_text
from moyai.cloud.service_balancers import HasServiceBalancers
from moyai.core.clock import Clock, SystemClock
from moyai.core.errors import NotFound, UsageError
from moyai.core.ids import RESTORED, ClusterIdentity
from moyai.kube.events import EventRecorder
from moyai.kube.informer import Informer
from moyai.kube.leader import LeaderElection
from moyai.kube.objects import Node, Reference, Service, parse_lease, parse_node, parse_range, parse_service
from moyai.kube.objects.egress import parse_egress_address
from moyai.kube.objects.meta import part, text
from moyai.kube.resources import CONFIG_MAPS, EGRESS_ADDRESSES, LEASES, NODES, SERVICES
from moyai.kube.watching import Kube, KubeClient
from moyai.plan.announce.metallb_words import CLASSES
from moyai.plan.fencing import Policy
from moyai.runtime.calls import CloudCalls, Threads
from moyai.runtime.controllers import ControllerSet, ControllerSetup, cache, controller_set
from moyai.runtime.logs import set_up
from moyai.runtime.metrics import Metrics

#: Threads for blocking calls: as many as the workers of these controllers can use at once, so that none waits for another.
#: Nodes and fencing share theirs, because they share one list of the machines.
_MACHINE_THREADS = 12
_ROUTE_THREADS = 4
_BALANCER_THREADS = 16
_RULE_THREADS = 2
_EGRESS_THREADS = 2


@dataclass(frozen=True)
class CcmOptions:
    """``bind``: ``host:port`` of probes and metrics. ``kubeconfig`` None: as a pod of the cluster. ``pod_ranges``: CIDRs."""

    cloud_config: Path
    cluster_name: str
    pod_ranges: tuple[str, ...] = ()
    controllers: tuple[str, ...] = CONTROLLERS
    bind: str = "127.0.0.1:10258"
    kubeconfig: Path | None = None
    leader_elect: bool = True
    log_level: str = "info"


def main(options: CcmOptions, adapter: Adapter) -> int:
    """Runs until a signal (0) or until a part of it ends (1). Raises UsageError for what it cannot start with."""
    config = _read(options, adapter)
    set_up(options.log_level, config.cloud.secrets)
    return asyncio.run(_main(options, config, adapter=adapter))


def _read(options: CcmOptions, adapter: Adapter) -> CcmConfig:
    config = read_ccm_config(read_text(options.cloud_config), adapter)
    for one in options.pod_ranges:
        try:
            ip_network(one)
        except ValueError:
            raise UsageError(f"--cluster-cidr {one!r} is no CIDR", hint="for example 10.244.0.0/16") from None
    if unknown := sorted(set(options.controllers) - set(CONTROLLERS)):
        raise UsageError(f"there is no controller {unknown[0]!r}", hint=f"there are: {', '.join(CONTROLLERS)}")
    if "service" in options.controllers and not config.cluster.cluster_uid:
        raise UsageError(
            "cloud config has no cluster-uid",
            hint="set it in section [Moyai]: any word that no other cluster of the project has",
        )
    return config


async def _main(options: CcmOptions, config: CcmConfig, *, adapter: Adapter) -> int:
    # a cloud's client takes its time to import: beside the connection to Kubernetes nobody waits for it
    threading.Thread(target=adapter.load, name="import", daemon=True).start()
    metrics = Metrics()
    kube = KubeClient.connect(options.kubeconfig)
    try:
        cloud = await asyncio.to_thread(adapter.log_in, config.cloud)
        calls = CloudCalls(cloud, metrics, config.cloud.region)
        return 0 if await controller_manager(options, config, kube=kube, calls=calls, metrics=metrics).run() else 1
    finally:
        await kube.close()


def controller_manager(
    options: CcmOptions,
    config: CcmConfig,
    *,
    kube: Kube,
    calls: CloudCalls,
    metrics: Metrics,
    clock: Clock | None = None,
    poll: float = 0.2,
) -> ControllerSet:
    """All controllers of one cluster that ``options`` and ``config`` ask for. ``poll``: see ``OctaviaProvider``."""
    time = clock or SystemClock()
    events = EventRecorder(kube, component=NAME)
    shared = _SharedParts(
        options=options,
        config=config,
        kube=kube,
        calls=calls,
        metrics=metrics,
        clock=time,
        poll=poll,
        nodes=cache(kube, NODES, parse=parse_node, metrics=metrics, kind="Node", events=events),
        services=cache(kube, SERVICES, parse=parse_service, metrics=metrics, kind="Service", events=events),
        servers=Servers(
            calls.on(Threads("machines", _MACHINE_THREADS)),
            uid=config.cluster.cluster_uid,
            clock=time,
            untagged=not calls.cloud.kind.needs_tags,
        ),
        events=events,
    )
    wanted = [one for name, build in _BUILDERS.items() if name in options.controllers for one in build(shared)]
    return controller_set(
        wanted,
        metrics=metrics,
        events=events,
        bind=options.bind,
        shared=[shared.nodes, shared.services],
        warm_ups=[partial(_log_in, shared.servers)] if "node" in options.controllers else [],
        election=_election(kube) if options.leader_elect else None,
    )


@dataclass(frozen=True)
class _SharedParts:
    """What several controllers use."""

    options: CcmOptions
    config: CcmConfig
    kube: Kube
    calls: CloudCalls
    metrics: Metrics
    clock: Clock
    poll: float
    nodes: Informer[Node]
    services: Informer[Service]
    servers: Servers
    events: EventRecorder

    @property
    def policy(self) -> Policy:
        return cast("Policy", self.config.cluster.fencing)


def _node(shared: _SharedParts) -> tuple[ControllerSetup, ...]:
    controller = NodeController(
        kube=shared.kube,
        nodes=shared.nodes,
        servers=shared.servers,
        region=shared.calls.region,
        events=shared.events,
        clock=shared.clock,
    )
    return (ControllerSetup(controller.part()),)


def _node_lifecycle(shared: _SharedParts) -> tuple[ControllerSetup, ...]:
    fences = "fencing" in shared.options.controllers and shared.policy != "off"
    controller = NodeLifecycleController(
        kube=shared.kube,
        nodes=shared.nodes,
        servers=shared.servers,
        events=shared.events,
        clock=shared.clock,
        in_use=partial(in_use, shared.kube) if fences else None,
    )
    return (ControllerSetup(controller.part()),)


def _fencing(shared: _SharedParts) -> tuple[ControllerSetup, ...]:
    leases = cache(shared.kube, LEASES, parse=parse_lease, metrics=shared.metrics, namespace=LEASE_NAMESPACE)
    controller = FencingController(
        kube=shared.kube,
        nodes=shared.nodes,
        leases=leases,
        servers=shared.servers,
        events=shared.events,
        metrics=shared.metrics,
        policy=shared.policy,
        clock=shared.clock,
    )
    return (ControllerSetup(controller.part(), (leases,)),)


def _route(shared: _SharedParts) -> tuple[ControllerSetup, ...]:
    if not (shared.config.route.router_id and shared.options.pod_ranges):
        return ()
    controller = RouteController(
        kube=shared.kube,
        nodes=shared.nodes,
        calls=shared.calls.on(Threads("routes", _ROUTE_THREADS)),
        servers=shared.servers,
        router_id=shared.config.route.router_id,
        ranges=shared.options.pod_ranges,
        clock=shared.clock,
    )
    return (ControllerSetup(controller.part()),)


def _service(shared: _SharedParts) -> tuple[ControllerSetup, ...]:
    providers: dict[str, ServiceProvider] = {}
    if shared.config.load_balancer.enabled:
        providers[""] = _cloud_provider(shared)
    announced: list[ControllerSetup] = []
    if shared.config.announce.ranges:
        given = shared.config.announce.load_balancer_class
        # the cloud's load balancers stay the default where there are any
        classes = [*CLASSES, *filter(None, [given]), *([] if "" in providers else [""])]
        provider, pools = _announced(shared, classes)
        providers |= dict.fromkeys(classes, provider)
        announced = [pools]
    if not providers:
        return ()
    controller = ServiceController(
        kube=shared.kube, services=shared.services, nodes=shared.nodes, providers=providers, events=shared.events
    )
    orphans = OrphanRemoval(
        # each provider under one of its classes
        providers={name: one for one, name in {one: name for name, one in providers.items()}.items()},
        alive=controller.alive,
        events=shared.events,
        metrics=shared.metrics,
        about=Reference("Deployment", NAME, "", NAMESPACE),
        restored=partial(_restored, shared.kube),
    )
    return (ControllerSetup(replace(controller.part(), periodic=[orphans.periodic()])), *announced)


def _egress_ips(shared: _SharedParts) -> tuple[ControllerSetup, ...]:
    if not shared.config.announce.ranges:
        return ()
    # agents of an older moyai came without the definition of the kind
    addresses = cache(shared.kube, EGRESS_ADDRESSES, parse=parse_egress_address, metrics=shared.metrics, optional=True)
    controller = EgressIpController(
        kube=shared.kube,
        addresses=addresses,
        calls=shared.calls.on(Threads("egress addresses", _EGRESS_THREADS)),
        config=shared.config,
        cluster=_identity(shared),
        events=shared.events,
    )
    return (ControllerSetup(controller.part, (addresses,)),)


async def _restored(kube: Kube) -> str:
    try:
        found = await kube.get(CONFIG_MAPS, RESTORED, namespace=NAMESPACE)
    except NotFound:
        return ""
    return text(part(found, "data"), "made") or "an unknown time"


def _cloud_provider(shared: _SharedParts) -> ServiceProvider:
    """By load balancers of the cloud: by those that it makes for Services itself, else by trees."""
    calls = shared.calls.on(Threads("balancers", _BALANCER_THREADS))
    if isinstance(calls.cloud, HasServiceBalancers):
        return CloudBalancerProvider(
            calls=calls, balancers=calls.cloud.service_balancers, services=shared.services, cluster=_identity(shared)
        )
    return OctaviaProvider(
        calls=calls,
        config=shared.config,
        cluster=_identity(shared),
        clock=shared.clock,
        poll=shared.poll,
    )


def _announced(shared: _SharedParts, classes: Collection[str]) -> tuple[AnnouncedProvider, ControllerSetup]:
    config = shared.config
    resources = AnnounceResources(
        kube=shared.kube,
        events=shared.events,
        metrics=shared.metrics,
        permitted=[parse_range(one) for one in config.announce.ranges],
    )
    groups = config.cluster.node_security_group_ids if config.load_balancer.manage_security_groups else ()
    provider = AnnouncedProvider(
        kube=shared.kube,
        services=shared.services,
        resources=resources,
        rules=GroupRules(shared.calls.on(Threads("ports of Services", _RULE_THREADS)), groups),
        cluster=_identity(shared),
        classes=classes,
    )
    pools = PoolController(
        kube=shared.kube, resources=resources, addresses=provider.addresses, events=shared.events, clock=shared.clock
    )
    return provider, ControllerSetup(pools.part, resources.caches)


def _identity(shared: _SharedParts) -> ClusterIdentity:
    return ClusterIdentity(shared.options.cluster_name, shared.config.cluster.cluster_uid)


#: Name of a controller (``CONTROLLERS``) → what makes it, with what it brings along; nothing where the configuration has
#: nothing for it to do.
_BUILDERS: dict[str, Callable[[_SharedParts], tuple[ControllerSetup, ...]]] = {
    "node": _node,
    "node-lifecycle": _node_lifecycle,
    "fencing": _fencing,
    "route": _route,
    "service": _service,
    "egress-ips": _egress_ips,
}


def _election(kube: Kube) -> LeaderElection:
    return LeaderElection(kube, name=NAME, namespace=NAMESPACE, identity=f"{socket.gethostname()}_{uuid4().hex[:8]}")


async def _log_in(servers: Servers) -> None:
    """The first call logs in and finds the services, which takes longer than all that follows."""
    await servers.all(max_age=60)
