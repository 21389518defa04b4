"""The load balancer of the cloud before the API: what it is like, and which control planes it sends to.

Pure. Always holds: no control plane is led in before it is Ready, but for the first one of a new cluster; one that leaves is
led out before its API server ends, and after those that stay are led in. The address is that of a port of ours, so a load
balancer that failed is replaced without a change of the address.
"""

from __future__ import annotations

from collections.abc import Iterator

from moyai.cloud.load_balancers import (
    BalancerState,
    BalancingAlgorithm,
    CheckType,
    Listener,
    LoadBalancer,
    Member,
    Monitor,
    Pool,
    TrafficProtocol,
)
from moyai.plan import keys
from moyai.plan import steps as s
from moyai.plan.cluster.situation import Situation
from moyai.plan.rules import API_PORT
from moyai.spec.model import ClusterSpec

#: A connection on which nothing is sent stays for an hour: watches are silent for long, and clients look after them themselves.
_SILENCE_MS = 3_600_000
_CONNECT_MS = 2_000
#: The shortest that clouds take, in seconds: a control plane that dies without a word gets no new connection after two.
_CHECK = Monitor(
    type=CheckType.HTTPS,
    delay=1,
    timeout=1,
    max_retries=1,
    max_retries_down=2,
    url_path="/readyz",
    http_method="GET",
    expected_codes="200",
)
#: It comes back from none of these.
_LOST = (BalancerState.FAILED, BalancerState.DELETING, BalancerState.DELETED)


def plan_balancer(now: Situation, *, port: str) -> Iterator[s.Step]:
    """``port``: name of the port that has its address."""
    found, whole = now.existing.balancer, usable(now)
    made = s.created(keys.API_BALANCER)
    if whole is None:
        if found is not None:
            why = f"it is {found.status}" if found.state in _LOST else "parts of it are gone"
            yield s.Delete(key=keys.API_BALANCER, object_id=found.id, why=why)
        wanted = wanted_balancer(now, members=tuple(map(_member, first_planes(now))))
        after = (s.created(keys.port(port)), s.deleted(keys.API_BALANCER))
        yield s.CreateBalancer(key=keys.API_BALANCER, after=after, balancer=wanted, port=port)
    elif whole.allowed_cidrs != (cidrs := allowed(now.spec)) and set(whole.allowed_cidrs) != set(cidrs):
        yield s.SetBalancerAccess(key=keys.API_BALANCER_ACCESS, cidrs=cidrs)
    if misled(now):
        yield s.LeadBalancer(key=keys.API_BALANCER, planes=first_planes(now))
    led = led_at_first(now)
    # a node that leaves must not be waited for: the wait for all nodes comes after its end
    ready = s.reached(s.PLANES) if now.leaving_planes else s.reached(s.NODES)
    for node in now.control_planes:
        if node.address not in led:
            after = (made, s.StepId(s.Verb.SET, keys.API_BALANCER), s.created(keys.server(node.name)), s.reached(s.API), ready)
            yield s.LeadIn(key=keys.api_member(node.name), after=after, node=node.name, address=node.address)


def lead_out(now: Situation, name: str, *, after: tuple[s.StepId, ...]) -> Iterator[s.Step]:
    """For a control plane that leaves, once those that stay are led in."""
    address = now.plane_address(name)
    if now.spec.control_plane.balanced and address in led_at_first(now):
        others = (s.StepId(s.Verb.ADD, keys.api_member(node.name)) for node in now.control_planes)
        yield s.LeadOut(
            key=keys.api_member(name),
            after=(s.created(keys.API_BALANCER), *others, *after),
            node=name,
            address=address,
            stay_addresses=tuple(node.address for node in now.control_planes),
        )


def usable(now: Situation) -> Listener | None:
    """The listener of the load balancer that exists; None where it must be made again, or for the first time."""
    found = now.existing.balancer
    if found is None or found.state in _LOST:
        return None
    listener = next((one for one in found.listeners if one.port == API_PORT), None)
    return listener if listener and listener.pool and listener.pool.monitor else None


def misled(now: Situation) -> bool:
    """Whether a load balancer that exists must send to other control planes before the API can answer."""
    if (whole := usable(now)) is None:
        return False
    first = frozenset(address for _, address in first_planes(now))
    if now.makes_cluster:
        return _led(whole) != first
    return now.observed.kube is None and bool(first) and not _led(whole) & first


def led_at_first(now: Situation) -> frozenset[str]:
    """Addresses of the control planes that it sends to before others are led in or out."""
    whole = usable(now)
    if whole is None or misled(now):
        return frozenset(address for _, address in first_planes(now))
    return _led(whole)


def first_planes(now: Situation) -> tuple[tuple[str, str], ...]:
    """Name and address of the control planes that a new load balancer sends to: the one that begins the cluster, or those of
    which nothing says that they do not work."""
    if now.founder:
        return tuple((node.name, node.address) for node in now.control_planes if node.name == now.founder)
    planes = {node.name: node.address for node in now.control_planes}
    planes |= {name: now.plane_address(name) for name in now.leaving_planes}
    alive = [name for name, address in planes.items() if address and now.lives(name)]
    kube = now.observed.kube
    working = [name for name in alive if kube and name in kube.in_service and not _stopped(now, name)]
    return tuple((name, planes[name]) for name in working or alive)


def wanted_balancer(now: Situation, *, members: tuple[Member, ...]) -> LoadBalancer:
    name = keys.object_name(now.cluster.name, keys.API_BALANCER)
    pool = Pool(
        name=name,
        protocol=TrafficProtocol.TCP,
        algorithm=BalancingAlgorithm.LEAST_CONNECTIONS,
        members=members,
        monitor=_CHECK,
    )
    listener = Listener(
        name=name,
        protocol=TrafficProtocol.TCP,
        port=API_PORT,
        pool=pool,
        allowed_cidrs=allowed(now.spec),
        timeout_client_data_ms=_SILENCE_MS,
        timeout_member_data_ms=_SILENCE_MS,
        timeout_member_connect_ms=_CONNECT_MS,
    )
    return LoadBalancer(
        name=name,
        description=f"Kubernetes API of cluster {now.cluster.name}",
        provider=now.spec.load_balancer.provider,
        listeners=(listener,),
    )


def allowed(spec: ClusterSpec) -> tuple[str, ...]:
    """Who may connect: those of the spec, and the cluster's own machines and pods. Empty: everybody."""
    if any(cidr.prefixlen == 0 for cidr in spec.access.api_cidrs):
        return ()
    own = (spec.network.node_cidr, spec.network.pod_cidr, *(one.cidr for one in spec.networks))
    return tuple(dict.fromkeys(map(str, (*spec.access.api_cidrs, *own))))


def _led(listener: Listener) -> frozenset[str]:
    return frozenset(one.address for one in listener.pool.members) if listener.pool else frozenset()


def _member(plane: tuple[str, str]) -> Member:
    name, address = plane
    return Member(address=address, port=API_PORT, name=name)


def _stopped(now: Situation, name: str) -> bool:
    known = now.observed.kube.node(name) if now.observed.kube else None
    return known is not None and known.stopped
