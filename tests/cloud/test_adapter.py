"""The adapter against a real OpenStack: the local cloud, or whichever ``MOYAI_TEST_CLOUD`` names.

Everything made carries a UID of its own and is taken away again; nothing else in the cloud is touched.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from moyai.cloud.capabilities import Capability, Cloud
from moyai.cloud.model import Network, Port, Power, Route, Router, SecurityGroup, SecurityGroupRule, SourceAddress, Subnet
from moyai.cloud.openstack import ApplicationCredential, OpenStackCloud, connect
from moyai.core.errors import Conflict, MoyaiError, NotFound, Terminal, UsageError
from moyai.core.ids import cluster_tag, new_uid


@dataclass
class Site:
    """A network with a router of its own, and what it is called."""

    uid: str
    cloud: OpenStackCloud
    network: Network
    subnet: Subnet
    router: Router
    group: SecurityGroup

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


@pytest.fixture(scope="module")
def cloud(cloud_name: str) -> OpenStackCloud:
    return connect(cloud_name)


@pytest.fixture(scope="module")
def site(cloud: OpenStackCloud) -> Generator[Site]:
    uid = new_uid()
    tags = [cluster_tag(uid)]
    calls = cloud
    try:
        external = calls.networks.networks(external=True)[0]
        network = calls.networks.create_network(name=f"{uid}-net", tags=tags)
        with ThreadPoolExecutor() as pool:
            group = pool.submit(calls.firewall.create_security_group, name=f"{uid}-group", description="test", tags=tags)
            router = pool.submit(calls.networks.create_router, name=f"{uid}-router", tags=tags)
            subnet = calls.networks.create_subnet(
                name=f"{uid}-subnet",
                network_id=network.id,
                cidr="10.77.0.0/24",
                allocation_pools=[("10.77.0.128", "10.77.0.254")],
                tags=tags,
            )
            made = Site(uid, cloud, network, subnet, router.result(), group.result())
        calls.networks.add_router_interface(made.router.id, subnet.id)
        calls.networks.set_router_gateway(made.router.id, external.id)
        yield replace(made, router=calls.networks.router(made.router.id))
    finally:
        clear(cloud, uid)


def clear(cloud: OpenStackCloud, uid: str) -> None:
    tag = cluster_tag(uid)
    for server in cloud.machines.servers(tag=tag):
        cloud.machines.delete_server(server.id)
    until(lambda: not cloud.machines.servers(tag=tag), 60)
    calls = cloud
    for address in calls.addresses.floating_ips(tag=tag):
        calls.addresses.delete_floating_ip(address.id)
    subnets = calls.networks.subnets(tag=tag)
    for router in calls.networks.routers(tag=tag):
        calls.pod_routing.remove_routes(router.id, router.routes)
        for subnet in subnets:
            calls.networks.remove_router_interface(router.id, subnet.id)
        calls.networks.delete_router(router.id)
    for port in calls.networks.ports(tag=tag):
        calls.networks.delete_port(port.id)
    for network in calls.networks.networks(tag=tag):
        calls.networks.delete_network(network.id)
    for group in calls.firewall.security_groups(tag=tag):
        calls.firewall.delete_security_group(group.id)


def until(done: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.3)


def test_the_adapter_is_what_the_others_were_promised(cloud: OpenStackCloud) -> None:
    promised: Cloud = cloud
    assert promised.account.project_id()
    assert promised.account.region()
    assert promised.capabilities() == frozenset(Capability)


def test_catalog_flavors_zones_and_quotas_are_read(cloud: OpenStackCloud) -> None:
    flavors = {flavor.name: flavor for flavor in cloud.machines.flavors()}
    assert flavors["m1.small"].memory_mb == 2048
    assert cloud.machines.zones()
    quotas = {quota.name: quota for quota in cloud.quotas.quotas()}
    assert {"cores", "ram", "instances", "port", "router", "network", "floatingip", "security_group_rule"} <= set(quotas)
    volumes = {quota.name: quota for quota in cloud.disks.quotas()}
    assert {"volumes", "gigabytes"} <= set(volumes)
    assert (cloud.account.login_url() or "").startswith("http")
    assert cloud.session.catalog_url("no-such-service") is None


def test_quotas_in_use_follow_what_is_made(site: Site) -> None:
    def used() -> int:
        return next(quota.used for quota in site.cloud.quotas.quotas() if quota.name == "port")

    before = used()
    port = site.port("counted")
    assert used() == before + 1
    site.cloud.networks.delete_port(port.id)


def test_all_carry_their_tag_and_are_found_by_it(site: Site) -> None:
    calls = site.cloud
    assert [network.id for network in calls.networks.networks(tag=site.tag)] == [site.network.id]
    assert [subnet.id for subnet in calls.networks.subnets(tag=site.tag)] == [site.subnet.id]
    assert [router.id for router in calls.networks.routers(tag=site.tag)] == [site.router.id]
    assert [group.id for group in calls.firewall.security_groups(tag=site.tag)] == [site.group.id]
    assert calls.networks.networks(tag=cluster_tag(new_uid())) == []
    assert site.router.external_address
    assert site.subnet.gateway == "10.77.0.1"


def test_what_a_crash_left_untagged_is_adopted(site: Site) -> None:
    calls = site.cloud
    group = calls.firewall.create_security_group(name=f"{site.uid}-untagged", tags=[])
    try:
        assert group.tags == ()
        calls.tags.add_tags("security_group", group.id, [site.tag, "other=1"])
        found = next(one for one in calls.firewall.security_groups(tag=site.tag) if one.id == group.id)
        assert found.tags == tuple(sorted([site.tag, "other=1"]))
        calls.tags.add_tags("security_group", group.id, ["third=1"])
        assert len(next(one for one in calls.firewall.security_groups(tag=site.tag) if one.id == group.id).tags) == 3
    finally:
        calls.firewall.delete_security_group(group.id)


def test_ports_have_what_was_asked_and_are_found_by_device(site: Site) -> None:
    calls = site.cloud
    port = site.port("a", "10.77.0.10")
    try:
        assert port.tags == (site.tag,)
        assert port.fixed_ips == ("10.77.0.10",)
        changed = calls.networks.update_port(port.id, send_from=[SourceAddress("10.244.3.0/24")])
        assert changed.send_from == (SourceAddress("10.244.3.0/24"),)
        assert calls.networks.update_port(port.id, send_from=[]).send_from == ()
        mine = calls.networks.ports(device_ids=[site.router.id])
        assert site.subnet.id in {subnet for one in mine for subnet in one.subnet_ids}
        with pytest.raises(Conflict):
            site.port("b", "10.77.0.10")
    finally:
        calls.networks.delete_port(port.id)
    calls.networks.delete_port(port.id)


def test_rules_come_in_one_call_and_twice_is_once(site: Site) -> None:
    calls = site.cloud
    wanted = [
        SecurityGroupRule(
            site.group.id, protocol="tcp", port_min=port, port_max=port, remote_cidr="10.0.0.0/8", description="d"
        )
        for port in range(30000, 30010)
    ]
    wanted += [
        SecurityGroupRule(site.group.id, remote_group_id=site.group.id),
        SecurityGroupRule(site.group.id, protocol="icmp"),
    ]
    first = calls.firewall.create_security_group_rules(wanted[:5])
    both = calls.firewall.create_security_group_rules(wanted)
    assert len(both) == len(wanted)
    assert {rule.id for rule in first} <= {rule.id for rule in both}
    again = calls.firewall.create_security_group_rules(
        [replace(rule, remote_cidr=rule.remote_cidr or "0.0.0.0/0") for rule in wanted[11:]]
    )
    assert [rule.id for rule in again] == [rule.id for rule in both if rule.protocol == "icmp"]
    ingress = [rule for rule in calls.firewall.security_group_rules([site.group.id]) if rule.direction == "ingress"]
    assert len(ingress) == len(wanted)
    for rule in both:
        calls.firewall.delete_security_group_rule(rule.id)
    assert not [rule for rule in calls.firewall.security_group_rules([site.group.id]) if rule.direction == "ingress"]


def test_routes_are_added_by_many_at_once_and_none_is_lost(site: Site) -> None:
    calls = site.cloud
    routes = [Route(f"10.244.{number}.0/24", f"10.77.0.{20 + number}") for number in range(12)]
    with ThreadPoolExecutor(6) as pool:
        added = [pool.submit(calls.pod_routing.add_routes, site.router.id, [route]) for route in routes]
    assert all(one.result() for one in added)
    assert set(calls.networks.router(site.router.id).routes) == set(routes)
    assert set(calls.pod_routing.add_routes(site.router.id, routes[:2]).routes) == set(routes)
    calls.pod_routing.remove_routes(site.router.id, routes[1:])
    assert calls.pod_routing.remove_routes(site.router.id, routes).routes == ()


def test_without_atomic_routes_none_is_lost_either(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = site.cloud

    def has_not(extension: str) -> bool:
        return False

    monkeypatch.setattr(calls, "_has", has_not)
    routes = [Route(f"10.245.{number}.0/24", f"10.77.0.{20 + number}") for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        added = [pool.submit(calls.pod_routing.add_routes, site.router.id, [route]) for route in routes]
    assert all(one.result() for one in added)
    assert set(calls.networks.router(site.router.id).routes) == set(routes)
    assert calls.pod_routing.remove_routes(site.router.id, routes).routes == ()


def test_a_router_in_use_is_a_conflict_and_its_interface_comes_once(site: Site) -> None:
    calls = site.cloud
    calls.networks.add_router_interface(site.router.id, site.subnet.id)
    with pytest.raises(Conflict) as caught:
        calls.networks.delete_router(site.router.id)
    assert caught.value.request_id
    with pytest.raises(NotFound):
        calls.networks.add_router_interface(site.router.id, "00000000-0000-0000-0000-000000000000")


def test_a_floating_ip_comes_moves_and_goes(site: Site) -> None:
    calls = site.cloud
    port = site.port("floating")
    address = calls.addresses.create_floating_ip(
        network_id=site.router.external_network_id, port_id=port.id, description="test", tags=[site.tag]
    )
    try:
        assert address.tags == (site.tag,)
        assert [one.id for one in calls.addresses.floating_ips(port_ids=[port.id])] == [address.id]
        assert calls.addresses.associate_floating_ip(address.id, None).port_id == ""
        assert [one.id for one in calls.addresses.floating_ips(tag=site.tag)] == [address.id]
        assert calls.addresses.associate_floating_ip(address.id, port.id).fixed_ip == port.fixed_ips[0]
    finally:
        calls.addresses.delete_floating_ip(address.id)
        calls.networks.delete_port(port.id)
    calls.addresses.delete_floating_ip(address.id)


def test_too_many_source_addresses_are_refused_in_the_clouds_words(site: Site) -> None:
    port = site.port("pairs")
    try:
        with pytest.raises(Terminal, match="allowed address pair"):
            site.cloud.networks.update_port(port.id, send_from=[SourceAddress(f"10.1.{n}.0/24") for n in range(40)])
    finally:
        site.cloud.networks.delete_port(port.id)


def test_an_image_is_uploaded_and_read(cloud: OpenStackCloud, tmp_path: Path) -> None:
    file = tmp_path / "image.tar"
    file.write_bytes(bytes(range(256)) * 20_000)
    name = f"test-{new_uid()}"
    image = cloud.images.upload(
        name=name, file=file, disk_format="raw", container_format="bare", properties={"moyai_format": "rootfs-tar"}
    )
    try:
        assert image.ready
        assert image.properties["moyai_format"] == "rootfs-tar"
        assert [one.id for one in cloud.images.images(name=name)] == [image.id]
    finally:
        cloud.images.delete_image(image.id)
    assert cloud.images.images(name=name) == []


def test_key_pairs(cloud: OpenStackCloud) -> None:
    name = f"test-{new_uid()}"
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl test"
    cloud.machines.create_keypair(name, key)
    try:
        assert name in cloud.machines.keypairs()
        with pytest.raises(Conflict):
            cloud.machines.create_keypair(name, key)
    finally:
        cloud.machines.delete_keypair(name)
    cloud.machines.delete_keypair(name)
    assert name not in cloud.machines.keypairs()


def test_an_application_credential_works_alone_and_is_limited(cloud: OpenStackCloud) -> None:
    name = f"test-{new_uid()}"
    credential_id, secret = cloud.credentials.create_credential(name=name, roles=["member"], description="test")
    try:
        assert cloud.credentials.credentials(name_prefix=name) == {name: credential_id}
        auth_url = cloud.account.login_url()
        assert auth_url
        limited = connect(credential=ApplicationCredential(auth_url, credential_id, secret, cloud.account.region()))
        assert limited.account.project_id() == cloud.account.project_id()
        assert limited.networks.networks(external=True)
        # an application credential may not make further ones
        with pytest.raises(Terminal, match="policy"):
            limited.credentials.create_credential(name=f"{name}-2", roles=["member"], description="test")
    finally:
        cloud.credentials.delete_credential(credential_id)
    with pytest.raises(Terminal):
        connect(credential=ApplicationCredential(auth_url, credential_id, secret)).machines.flavors()


def test_a_server_that_cannot_be_placed_says_why(site: Site) -> None:
    compute = site.cloud.machines
    image = next(iter(site.cloud.images.images()), None)
    assert image, "the cloud has no image"
    port = site.port("server")
    flavor = max(compute.flavors(), key=lambda one: one.memory_mb)
    with pytest.raises(MoyaiError, match=r"(?i)zone"):
        compute.create_server(
            name=f"{site.uid}-nowhere",
            image_id=image.id,
            flavor_id=flavor.id,
            port_ids=[port.id],
            user_data="#cloud-config\n",
            zone="no-such-zone",
            metadata={},
            tags=[site.tag],
        )
    site.cloud.networks.delete_port(port.id)


def test_a_server_is_made_read_stopped_started_and_deleted(site: Site) -> None:
    compute = site.cloud.machines
    image = next((one for one in site.cloud.images.images() if one.properties.get("moyai_format")), None)
    assert image, "the cloud has no node image"
    flavor = next(one for one in compute.flavors() if one.name == "m1.tiny")
    port = site.port("server", "10.77.0.40")
    zone = compute.zones()[-1]
    made = compute.create_server(
        name=f"{site.uid}-server",
        image_id=image.id,
        flavor_id=flavor.id,
        port_ids=[port.id],
        user_data="#cloud-config\nruncmd: [echo moyai-test-marker >/dev/console]\n",
        zone=zone,
        metadata={"moyai.role": "worker", "secret": "x"},
        tags=[site.tag],
    )
    until(lambda: compute.server(made.id).power is not Power.STARTING, 120)
    (server,) = compute.servers(tag=site.tag)
    assert (server.power, server.fault) == (Power.RUNNING, "")
    assert (server.zone, server.flavor_name, server.metadata["moyai.role"]) == (zone, "m1.tiny", "worker")
    assert [address.address for address in server.addresses] == ["10.77.0.40"]
    assert [one.id for one in site.cloud.networks.ports(device_ids=[server.id])] == [port.id]
    compute.delete_server_metadata(server.id, ["secret", "never-there"])
    assert dict(compute.server(server.id).metadata) == {"moyai.role": "worker"}
    until(lambda: bool(compute.console_log(server.id)), 30)
    compute.stop_server(server.id)
    until(lambda: compute.server(server.id).power is Power.OFF, 60)
    compute.stop_server(server.id)
    compute.start_server(server.id)
    until(lambda: compute.server(server.id).power is Power.RUNNING, 60)
    compute.delete_server(server.id)
    until(lambda: not compute.servers(tag=site.tag), 60)
    compute.delete_server(server.id)
    site.cloud.networks.delete_port(port.id)


def test_an_unknown_cloud_is_refused_with_those_there_are(cloud_name: str) -> None:
    with pytest.raises(UsageError, match=cloud_name):
        connect("no-such-cloud")
