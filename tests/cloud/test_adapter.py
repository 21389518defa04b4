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

from moyai.cloud.capabilities import Cloud
from moyai.cloud.model import AddressPair, Network, Port, Route, Router, SecurityGroup, SecurityGroupRule, Subnet
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
        return self.cloud.network.create_port(
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
    calls = cloud.network
    try:
        external = calls.networks(external=True)[0]
        network = calls.create_network(name=f"{uid}-net", tags=tags)
        with ThreadPoolExecutor() as pool:
            group = pool.submit(calls.create_security_group, name=f"{uid}-group", description="test", tags=tags)
            router = pool.submit(calls.create_router, name=f"{uid}-router", tags=tags)
            subnet = calls.create_subnet(
                name=f"{uid}-subnet",
                network_id=network.id,
                cidr="10.77.0.0/24",
                allocation_pools=[("10.77.0.128", "10.77.0.254")],
                tags=tags,
            )
            made = Site(uid, cloud, network, subnet, router.result(), group.result())
        calls.add_router_interface(made.router.id, subnet.id)
        calls.set_router_gateway(made.router.id, external.id)
        yield replace(made, router=calls.router(made.router.id))
    finally:
        clear(cloud, uid)


def clear(cloud: OpenStackCloud, uid: str) -> None:
    tag = cluster_tag(uid)
    for server in cloud.compute.servers(tag=tag):
        cloud.compute.delete_server(server.id)
    until(lambda: not cloud.compute.servers(tag=tag), 60)
    calls = cloud.network
    for address in calls.floating_ips(tag=tag):
        calls.delete_floating_ip(address.id)
    subnets = calls.subnets(tag=tag)
    for router in calls.routers(tag=tag):
        calls.remove_routes(router.id, router.routes)
        for subnet in subnets:
            calls.remove_router_interface(router.id, subnet.id)
        calls.delete_router(router.id)
    for port in calls.ports(tag=tag):
        calls.delete_port(port.id)
    for network in calls.networks(tag=tag):
        calls.delete_network(network.id)
    for group in calls.security_groups(tag=tag):
        calls.delete_security_group(group.id)


def until(done: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.3)


def test_the_adapter_is_what_the_others_were_promised(cloud: OpenStackCloud) -> None:
    promised: Cloud = cloud
    assert promised.identity.project_id()
    assert promised.identity.region()


def test_catalog_flavors_zones_and_quotas_are_read(cloud: OpenStackCloud) -> None:
    flavors = {flavor.name: flavor for flavor in cloud.compute.flavors()}
    assert flavors["m1.small"].memory_mb == 2048
    assert cloud.compute.zones()
    compute = {quota.name: quota for quota in cloud.compute.quotas()}
    assert {"cores", "ram", "instances"} <= set(compute)
    network = {quota.name: quota for quota in cloud.network.quotas()}
    assert {"port", "router", "network", "floatingip", "security_group_rule"} <= set(network)
    volumes = {quota.name: quota for quota in cloud.volumes.quotas()}
    assert {"volumes", "gigabytes"} <= set(volumes)
    assert (cloud.identity.service_url("identity") or "").startswith("http")
    assert cloud.identity.service_url("no-such-service") is None


def test_quotas_in_use_follow_what_is_made(site: Site) -> None:
    def used() -> int:
        return next(quota.used for quota in site.cloud.network.quotas() if quota.name == "port")

    before = used()
    port = site.port("counted")
    assert used() == before + 1
    site.cloud.network.delete_port(port.id)


def test_all_carry_their_tag_and_are_found_by_it(site: Site) -> None:
    calls = site.cloud.network
    assert [network.id for network in calls.networks(tag=site.tag)] == [site.network.id]
    assert [subnet.id for subnet in calls.subnets(tag=site.tag)] == [site.subnet.id]
    assert [router.id for router in calls.routers(tag=site.tag)] == [site.router.id]
    assert [group.id for group in calls.security_groups(tag=site.tag)] == [site.group.id]
    assert calls.networks(tag=cluster_tag(new_uid())) == []
    assert site.router.external_address
    assert site.subnet.gateway == "10.77.0.1"


def test_what_a_crash_left_untagged_is_adopted(site: Site) -> None:
    calls = site.cloud.network
    group = calls.create_security_group(name=f"{site.uid}-untagged", tags=[])
    try:
        assert group.tags == ()
        calls.add_tags("security_group", group.id, [site.tag, "other=1"])
        found = next(one for one in calls.security_groups(tag=site.tag) if one.id == group.id)
        assert found.tags == tuple(sorted([site.tag, "other=1"]))
        calls.add_tags("security_group", group.id, ["third=1"])
        assert len(next(one for one in calls.security_groups(tag=site.tag) if one.id == group.id).tags) == 3
    finally:
        calls.delete_security_group(group.id)


def test_ports_have_what_was_asked_and_are_found_by_device(site: Site) -> None:
    calls = site.cloud.network
    port = site.port("a", "10.77.0.10")
    try:
        assert port.tags == (site.tag,)
        assert port.fixed_ips == ("10.77.0.10",)
        changed = calls.update_port(port.id, address_pairs=[AddressPair("10.244.3.0/24")])
        assert changed.address_pairs == (AddressPair("10.244.3.0/24"),)
        assert calls.update_port(port.id, address_pairs=[]).address_pairs == ()
        mine = calls.ports(device_ids=[site.router.id])
        assert site.subnet.id in {subnet for one in mine for subnet in one.subnet_ids}
        with pytest.raises(Conflict):
            site.port("b", "10.77.0.10")
    finally:
        calls.delete_port(port.id)
    calls.delete_port(port.id)


def test_rules_come_in_one_call_and_twice_is_once(site: Site) -> None:
    calls = site.cloud.network
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
    first = calls.create_security_group_rules(wanted[:5])
    both = calls.create_security_group_rules(wanted)
    assert len(both) == len(wanted)
    assert {rule.id for rule in first} <= {rule.id for rule in both}
    again = calls.create_security_group_rules(
        [replace(rule, remote_cidr=rule.remote_cidr or "0.0.0.0/0") for rule in wanted[11:]]
    )
    assert [rule.id for rule in again] == [rule.id for rule in both if rule.protocol == "icmp"]
    ingress = [rule for rule in calls.security_group_rules([site.group.id]) if rule.direction == "ingress"]
    assert len(ingress) == len(wanted)
    for rule in both:
        calls.delete_security_group_rule(rule.id)
    assert not [rule for rule in calls.security_group_rules([site.group.id]) if rule.direction == "ingress"]


def test_routes_are_added_by_many_at_once_and_none_is_lost(site: Site) -> None:
    calls = site.cloud.network
    routes = [Route(f"10.244.{number}.0/24", f"10.77.0.{20 + number}") for number in range(12)]
    with ThreadPoolExecutor(6) as pool:
        added = [pool.submit(calls.add_routes, site.router.id, [route]) for route in routes]
    assert all(one.result() for one in added)
    assert set(calls.router(site.router.id).routes) == set(routes)
    assert set(calls.add_routes(site.router.id, routes[:2]).routes) == set(routes)
    calls.remove_routes(site.router.id, routes[1:])
    assert calls.remove_routes(site.router.id, routes).routes == ()


def test_without_atomic_routes_none_is_lost_either(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = site.cloud.network

    def has_not(extension: str) -> bool:
        return False

    monkeypatch.setattr(calls, "_has", has_not)
    routes = [Route(f"10.245.{number}.0/24", f"10.77.0.{20 + number}") for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        added = [pool.submit(calls.add_routes, site.router.id, [route]) for route in routes]
    assert all(one.result() for one in added)
    assert set(calls.router(site.router.id).routes) == set(routes)
    assert calls.remove_routes(site.router.id, routes).routes == ()


def test_a_router_in_use_is_a_conflict_and_its_interface_comes_once(site: Site) -> None:
    calls = site.cloud.network
    calls.add_router_interface(site.router.id, site.subnet.id)
    with pytest.raises(Conflict) as caught:
        calls.delete_router(site.router.id)
    assert caught.value.request_id
    with pytest.raises(NotFound):
        calls.add_router_interface(site.router.id, "00000000-0000-0000-0000-000000000000")


def test_a_floating_ip_comes_moves_and_goes(site: Site) -> None:
    calls = site.cloud.network
    port = site.port("floating")
    address = calls.create_floating_ip(
        network_id=site.router.external_network_id, port_id=port.id, description="test", tags=[site.tag]
    )
    try:
        assert address.tags == (site.tag,)
        assert [one.id for one in calls.floating_ips(port_ids=[port.id])] == [address.id]
        assert calls.associate_floating_ip(address.id, None).port_id == ""
        assert [one.id for one in calls.floating_ips(tag=site.tag)] == [address.id]
        assert calls.associate_floating_ip(address.id, port.id).fixed_ip == port.fixed_ips[0]
    finally:
        calls.delete_floating_ip(address.id)
        calls.delete_port(port.id)
    calls.delete_floating_ip(address.id)


def test_too_many_address_pairs_are_refused_in_the_clouds_words(site: Site) -> None:
    port = site.port("pairs")
    try:
        with pytest.raises(Terminal, match="allowed address pair"):
            site.cloud.network.update_port(port.id, address_pairs=[AddressPair(f"10.1.{n}.0/24") for n in range(40)])
    finally:
        site.cloud.network.delete_port(port.id)


def test_an_image_is_uploaded_and_read(cloud: OpenStackCloud, tmp_path: Path) -> None:
    file = tmp_path / "image.tar"
    file.write_bytes(bytes(range(256)) * 20_000)
    name = f"test-{new_uid()}"
    image = cloud.images.upload(
        name=name, file=file, disk_format="raw", container_format="bare", properties={"moyai_format": "rootfs-tar"}
    )
    try:
        assert image.status == "ACTIVE"
        assert image.properties["moyai_format"] == "rootfs-tar"
        assert [one.id for one in cloud.images.images(name=name)] == [image.id]
    finally:
        cloud.images.delete_image(image.id)
    assert cloud.images.images(name=name) == []


def test_key_pairs(cloud: OpenStackCloud) -> None:
    name = f"test-{new_uid()}"
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl test"
    cloud.compute.create_keypair(name, key)
    try:
        assert name in cloud.compute.keypairs()
        with pytest.raises(Conflict):
            cloud.compute.create_keypair(name, key)
    finally:
        cloud.compute.delete_keypair(name)
    cloud.compute.delete_keypair(name)
    assert name not in cloud.compute.keypairs()


def test_an_application_credential_works_alone_and_is_limited(cloud: OpenStackCloud) -> None:
    name = f"test-{new_uid()}"
    credential_id, secret = cloud.identity.create_application_credential(name=name, roles=["member"], description="test")
    try:
        assert cloud.identity.application_credentials(name_prefix=name) == {name: credential_id}
        auth_url = cloud.identity.service_url("identity")
        assert auth_url
        limited = connect(credential=ApplicationCredential(auth_url, credential_id, secret, cloud.identity.region()))
        assert limited.identity.project_id() == cloud.identity.project_id()
        assert limited.network.networks(external=True)
        # an application credential may not make further ones
        with pytest.raises(Terminal, match="policy"):
            limited.identity.create_application_credential(name=f"{name}-2", roles=["member"], description="test")
    finally:
        cloud.identity.delete_application_credential(credential_id)
    with pytest.raises(Terminal):
        connect(credential=ApplicationCredential(auth_url, credential_id, secret)).compute.flavors()


def test_a_server_that_cannot_be_placed_says_why(site: Site) -> None:
    compute = site.cloud.compute
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
    site.cloud.network.delete_port(port.id)


def test_a_server_is_made_read_stopped_started_and_deleted(site: Site) -> None:
    compute = site.cloud.compute
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
    until(lambda: compute.server(made.id).status != "BUILD", 120)
    (server,) = compute.servers(tag=site.tag)
    assert (server.status, server.fault) == ("ACTIVE", "")
    assert (server.zone, server.flavor_name, server.metadata["moyai.role"]) == (zone, "m1.tiny", "worker")
    assert [address.address for address in server.addresses] == ["10.77.0.40"]
    assert [one.id for one in site.cloud.network.ports(device_ids=[server.id])] == [port.id]
    compute.set_server_metadata(server.id, {"moyai.pool": "w"})
    compute.delete_server_metadata(server.id, ["secret", "never-there"])
    assert dict(compute.server(server.id).metadata) == {"moyai.role": "worker", "moyai.pool": "w"}
    until(lambda: bool(compute.console_log(server.id)), 30)
    compute.stop_server(server.id)
    until(lambda: compute.server(server.id).status == "SHUTOFF", 60)
    compute.stop_server(server.id)
    compute.start_server(server.id)
    until(lambda: compute.server(server.id).status == "ACTIVE", 60)
    compute.delete_server(server.id)
    until(lambda: not compute.servers(tag=site.tag), 60)
    compute.delete_server(server.id)
    site.cloud.network.delete_port(port.id)


def test_an_unknown_cloud_is_refused_with_those_there_are(cloud_name: str) -> None:
    with pytest.raises(UsageError, match=cloud_name):
        connect("no-such-cloud")
