"""A place of one's own in a cloud that has no more than every cloud has: a private network and a firewall group.

Everything carries a UID of its own; nothing else in the cloud is touched. A runner brings its cloud along with ``BareRunner``.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

from moyai.cloud.capabilities import Cloud
from moyai.cloud.model import Network, Power, SecurityGroup, Server, Subnet
from moyai.core.clock import Clock
from moyai.core.ids import CLUSTER_TAG, cluster_tag, new_uid
from tests.contract.site import until

CIDR = "10.78.0.0/24"


@dataclass(frozen=True)
class BareRunner:
    """What servers and disks are made of here. ``step_gb``: the size of the smallest disk, and by how much it grows.
    ``seconds``: how long one piece of the cloud's work may take."""

    cloud: Cloud
    clock: Clock
    image_id: str
    flavor_id: str
    user_data: str
    public_key: str
    step_gb: int = 1
    seconds: float = 120.0


@dataclass(frozen=True)
class BareSite:
    uid: str
    runner: BareRunner
    network: Network
    subnet: Subnet
    group: SecurityGroup

    @property
    def cloud(self) -> Cloud:
        return self.runner.cloud

    @property
    def tag(self) -> str:
        return cluster_tag(self.uid)

    @property
    def own(self) -> dict[str, str]:
        """The metadata that every cloud shows."""
        return {CLUSTER_TAG: self.uid}

    def until(self, done: Callable[[], bool]) -> None:
        until(done, self.runner.seconds, clock=self.runner.clock)

    def server(self, name: str, *, zone: str = "") -> Server:
        """One that runs, on the site's network, in the site's group."""
        cloud, called = self.cloud, f"site-{name}"
        port = cloud.networks.create_port(
            name=called,
            network_id=self.network.id,
            subnet_id=self.subnet.id,
            fixed_ip="10.78.0.40",
            security_group_ids=[self.group.id],
            tags=[self.tag],
        )
        made = cloud.machines.create_server(
            name=called,
            image_id=self.runner.image_id,
            flavor_id=self.runner.flavor_id,
            port_ids=[port.id],
            user_data=self.runner.user_data,
            zone=zone or cloud.machines.zones()[-1],
            metadata=self.own,
            tags=[self.tag],
        )
        self.until(lambda: cloud.machines.server(made.id).power is Power.RUNNING)
        return cloud.machines.server(made.id)

    def remove(self, server: Server) -> None:
        """With its ports, where these are left."""
        self.cloud.machines.delete_server(server.id)
        self.until(lambda: not any(one.id == server.id for one in self.cloud.machines.servers()))
        for port in self.cloud.networks.ports(tag=self.tag):
            self.cloud.networks.delete_port(port.id)


@contextmanager
def building_bare(runner: BareRunner) -> Generator[BareSite]:
    """A site that is taken away again, whatever happens."""
    cloud, uid = runner.cloud, new_uid()
    tags = [cluster_tag(uid)]
    try:
        network = cloud.networks.create_network(name="site-network", tags=tags)
        subnet = cloud.networks.create_subnet(name="site-subnet", network_id=network.id, cidr=CIDR, tags=tags)
        group = cloud.firewall.create_security_group(name="site-group", description="test", tags=tags)
        yield BareSite(uid, runner, network, subnet, group)
    finally:
        _clear(runner, uid=uid)


def _clear(runner: BareRunner, *, uid: str) -> None:
    cloud, tag = runner.cloud, cluster_tag(uid)
    for server in cloud.machines.servers(tag=tag):
        cloud.machines.delete_server(server.id)
    until(lambda: not cloud.machines.servers(tag=tag), runner.seconds, clock=runner.clock)
    for disk in cloud.disks.volumes(metadata={CLUSTER_TAG: uid}):
        cloud.disks.delete_volume(disk.id)
    for port in cloud.networks.ports(tag=tag):
        cloud.networks.delete_port(port.id)
    for network in cloud.networks.networks(tag=tag):
        cloud.networks.delete_network(network.id)
    for group in cloud.firewall.security_groups(tag=tag):
        cloud.firewall.delete_security_group(group.id)
