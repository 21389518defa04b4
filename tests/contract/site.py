"""A place of one's own in some cloud: a network with a router and a security group, made for tests and taken away again.

Everything carries a UID of its own; nothing else in the cloud is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from moyai.cloud.capabilities import Capability, Cloud
from moyai.cloud.load_balancers import BalancerState
from moyai.cloud.model import Network, Port, Router, SecurityGroup, Server, Subnet
from moyai.cloud.own_machine import Guest
from moyai.core.clock import Clock
from moyai.core.ids import cluster_tag, new_uid


class Machine(Protocol):
    """A look into the machine of a server."""

    def guest(self) -> Guest:
        """What the adapter finds out there, from the sources that the machine has now."""
        ...

    def has(self, paths: Sequence[str]) -> bool:
        """Whether one of these paths in ``/dev/disk/by-id`` exists there now."""
        ...


@dataclass(frozen=True)
class Runner:
    """What a runner of the suite brings along with its cloud.

    ``clock``: what the cloud's time follows. ``log_in``: the cloud as an application credential (id, secret) sees it.
    ``lacking``: a cloud of the same kind without one of the capabilities that a cloud of this kind may lack. ``enter``: a look
    into the machine of a server that was made with ``user_data``.
    """

    clock: Clock
    log_in: Callable[[str, str], Cloud]
    lacking: Callable[[Capability], Cloud]
    enter: Callable[[Server], Machine]
    user_data: str


@dataclass(frozen=True)
class Site:
    uid: str
    cloud: Cloud
    runner: Runner
    network: Network
    subnet: Subnet
    router: Router
    group: SecurityGroup

    @property
    def clock(self) -> Clock:
        return self.runner.clock

    @property
    def user_data(self) -> str:
        return self.runner.user_data

    def log_in(self, credential_id: str, secret: str) -> Cloud:
        return self.runner.log_in(credential_id, secret)

    def lacking(self, capability: Capability) -> Cloud:
        return self.runner.lacking(capability)

    def enter(self, server: Server) -> Machine:
        return self.runner.enter(server)

    @property
    def tag(self) -> str:
        return cluster_tag(self.uid)

    def port(self, name: str, address: str = "") -> Port:
        return self.cloud.networks.create_port(
            name=f"{self.uid}-{name}",
            network_id=self.network.id,
            subnet_id=self.subnet.id,
            fixed_ip=address,
            security_group_ids=[self.group.id],
            tags=[self.tag],
        )

    def until(self, done: Callable[[], bool], seconds: float) -> None:
        until(done, seconds, clock=self.clock)


@contextmanager
def building(cloud: Cloud, runner: Runner) -> Generator[Site]:
    """A site that is taken away again, whatever happens."""
    uid = new_uid()
    tags = [cluster_tag(uid)]
    try:
        external = cloud.networks.networks(external=True)[0]
        network = cloud.networks.create_network(name=f"{uid}-net", tags=tags)
        with ThreadPoolExecutor() as pool:
            group = pool.submit(cloud.firewall.create_security_group, name=f"{uid}-group", description="test", tags=tags)
            router = pool.submit(cloud.routers.create_router, name=f"{uid}-router", tags=tags)
            subnet = cloud.networks.create_subnet(
                name=f"{uid}-subnet",
                network_id=network.id,
                cidr="10.77.0.0/24",
                allocation_pools=[("10.77.0.128", "10.77.0.254")],
                tags=tags,
            )
            made = Site(uid, cloud, runner, network, subnet, router.result(), group.result())
        cloud.routers.add_router_interface(made.router.id, subnet.id)
        cloud.routers.set_router_gateway(made.router.id, external.id)
        yield replace(made, router=cloud.routers.router(made.router.id))
    finally:
        clear(cloud, runner.clock, uid=uid)


def clear(cloud: Cloud, clock: Clock, *, uid: str) -> None:
    """Delete all that carries the UID."""
    tag = cluster_tag(uid)
    for server in cloud.machines.servers(tag=tag):
        cloud.machines.delete_server(server.id)
    until(lambda: not cloud.machines.servers(tag=tag), 60, clock=clock)
    for balancer in cloud.load_balancers.load_balancers(tag=tag):
        until(lambda one=balancer: not _pending(cloud, one.id), 60, clock=clock)
        cloud.load_balancers.delete(balancer.id)
    until(lambda: not cloud.load_balancers.load_balancers(tag=tag), 60, clock=clock)
    for address in cloud.addresses.floating_ips(tag=tag):
        cloud.addresses.delete_floating_ip(address.id)
    subnets = cloud.networks.subnets(tag=tag)
    for router in cloud.routers.routers(tag=tag):
        cloud.pod_routing.remove_routes(router.id, router.routes)
        for subnet in subnets:
            cloud.routers.remove_router_interface(router.id, subnet.id)
        cloud.routers.delete_router(router.id)
    for port in cloud.networks.ports(tag=tag):
        cloud.networks.delete_port(port.id)
    for network in cloud.networks.networks(tag=tag):
        cloud.networks.delete_network(network.id)
    for group in cloud.firewall.security_groups(tag=tag):
        cloud.firewall.delete_security_group(group.id)


def _pending(cloud: Cloud, balancer_id: str) -> bool:
    found = cloud.load_balancers.load_balancers()
    return any(one.state is BalancerState.BUSY for one in found if one.id == balancer_id)


def until(done: Callable[[], bool], seconds: float, *, clock: Clock) -> None:
    deadline = clock.monotonic() + seconds
    while not done():
        assert clock.monotonic() < deadline, f"not within {seconds} s"
        clock.sleep(0.3)
