"""A new cluster's ranges and names against what the cloud shows; one that exists keeps what it has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from moyai.cloud.model import Flavor, FloatingIP, Image, Network, Subnet
from moyai.core.errors import PermissionRefused, UsageError
from moyai.core.ids import cluster_tag
from moyai.lifecycle import up as building
from moyai.lifecycle.host_address import towards
from moyai.plan import keys
from moyai.plan.cluster import plan_up
from moyai.plan.observed import AccountFacts, Observed, Recorded
from moyai.spec.load import parse
from tests.unit.lifecycle_world import World

CLOUD = Observed(
    flavors=(Flavor("f1", "m1.small", 1, 2048), Flavor("f2", "m1.medium", 2, 4096)),
    zones=("az1", "az2"),
    images=(Image("i", "moyai-node-1.37.1", "ACTIVE"),),
    networks=(Network("ext", "public", external=True), Network("ext2", "far", external=True)),
    subnets=(
        Subnet("s1", "v4", "ext", "198.51.100.0/24", gateway="198.51.100.1"),
        Subnet("s2", "v6", "ext", "2001:db8::/64"),
        Subnet("s3", "elsewhere", "ext2", "172.16.0.0/16"),
    ),
    floating_ips=(FloatingIP("f", "203.0.113.9", "ACTIVE", network_id="ext"),),
    account=AccountFacts("r", "http://10.255.0.1:5000/v3", "http://10.254.0.1:5001"),
)
NEW = Recorded("quickstart", "0123456789")


def _network(text: str) -> str:
    return f"spec: {{network: {{externalNetwork: public, {text}}}}}"


@pytest.mark.parametrize("field", ["nodeCIDR", "podCIDR", "serviceCIDR"])
@pytest.mark.parametrize(
    ("cidr", "message"),
    [
        ("198.51.0.0/16", "should be apart from 198.51.100.0/24, a subnet of network public"),
        ("203.0.0.0/16", "should be apart from 203.0.113.9/32, a floating address of network public"),
        ("10.255.0.0/16", "should be apart from 10.255.0.1/32, where the APIs of cloud moyai are"),
        ("10.254.0.0/16", "should be apart from 10.254.0.1/32, the image mirror of cloud moyai"),
    ],
)
def test_a_new_cluster_does_not_take_the_clouds_own_addresses(field: str, cidr: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan_up(parse(_network(f"{field}: {cidr}")), CLOUD, recorded=NEW)
    assert str(caught.value) == f"spec.network.{field}: '{cidr}', {message}"


@pytest.mark.parametrize("cidr", ["172.16.0.0/16", "198.50.0.0/16"])
def test_other_addresses_are_free(cidr: str) -> None:
    assert plan_up(parse(_network(f"podCIDR: {cidr}")), CLOUD, recorded=NEW)


@pytest.mark.parametrize("url", ["", "https://keystone.example.com:5000/v3", "https://[2001:db8::1]/v3", "nonsense"])
def test_a_cloud_that_shows_no_addresses_is_not_asked_for_them(url: str) -> None:
    dark = replace(CLOUD, subnets=(), floating_ips=(), account=AccountFacts("r", url, url))
    assert plan_up(parse(_network("nodeCIDR: 198.51.100.0/24, podCIDR: 10.255.0.0/16")), dark, recorded=NEW)


def test_name_servers_beyond_what_a_machine_asks() -> None:
    spec = parse(_network("dns: [192.0.2.1, 192.0.2.2, 192.0.2.3, 192.0.2.4]"))
    with pytest.raises(UsageError, match=r"^spec\.network\.dns: 4 name servers, should be at most 3: a machine's resolv\.conf"):
        plan_up(spec, CLOUD, recorded=NEW)


def test_a_cluster_that_exists_keeps_its_ranges() -> None:
    tags = (cluster_tag(NEW.uid),)
    exists = replace(
        CLOUD,
        networks=(*CLOUD.networks, Network("n", "quickstart-network", tags=tags)),
        subnets=(*CLOUD.subnets, Subnet("s", "quickstart-subnet", "n", "198.51.100.0/24", tags=tags)),
    )
    spec = parse(_network("nodeCIDR: 198.51.100.0/24, dns: [192.0.2.1, 192.0.2.2, 192.0.2.3, 192.0.2.4]"))
    assert plan_up(spec, exists, recorded=replace(NEW, intended=frozenset({keys.NETWORK})))


@pytest.mark.parametrize(
    ("address", "access", "notes"),
    [
        ("", "apiCIDRs: [10.0.0.0/8]", []),
        ("198.51.100.7", "apiCIDRs: [10.0.0.0/8, 198.51.100.0/24], sshCIDRs: []", []),
        ("198.51.100.7", "apiCIDRs: [10.0.0.0/8]", ["spec.access.apiCIDRs leaves out 198.51.100.7"]),
        ("198.51.100.7", "sshCIDRs: [10.0.0.0/8]", ["spec.access.sshCIDRs leaves out 198.51.100.7"]),
        # a router between a public host and a private network translates
        ("8.8.4.4", "apiCIDRs: [10.0.0.0/8]", []),
    ],
)
def test_a_plan_notes_that_it_shuts_this_host_out(address: str, access: str, notes: list[str]) -> None:
    here = replace(CLOUD, host_addresses={"ext": address} if address else {})
    spec = parse(f"spec: {{network: {{externalNetwork: public}}, access: {{{access}}}}}")
    plan = plan_up(spec, here, recorded=NEW)
    assert [note.partition(",")[0] for note in plan.notes] == notes


def test_an_unknown_load_balancer_provider_is_named_with_those_that_the_cloud_has() -> None:
    spec = parse("spec: {loadBalancer: {provider: nosuch}, network: {externalNetwork: public}}")
    offers = replace(CLOUD, balancer_providers=("ovn", "amphora"))
    with pytest.raises(UsageError) as caught:
        plan_up(spec, offers, recorded=NEW)
    assert (
        str(caught.value)
        == "spec.loadBalancer.provider: 'nosuch', cloud moyai has no such load balancer provider, should be one of amphora, ovn"
    )
    assert plan_up(spec, replace(CLOUD, balancer_providers=("nosuch",)), recorded=NEW)
    assert plan_up(spec, CLOUD, recorded=NEW), "a cloud that does not tell"


# ---- from a cloud


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_the_clouds_addresses_are_read_before_anything_is_made(world: World) -> None:
    external = next(network for network in world.store.networks if network.external)
    world.store.subnets.put(Subnet("s1", "v4", external.id, "198.18.0.0/24", gateway="198.18.0.1"))
    with pytest.raises(UsageError, match=r"apart from 198\.18\.0\.0/24, a subnet of network public"):
        world.up("spec: {network: {nodeCIDR: 198.18.0.0/24}}")
    with pytest.raises(UsageError, match=r"apart from 192\.0\.2\.1/32, where the APIs"):
        world.up("spec: {network: {nodeCIDR: 192.0.2.0/24}}")
    with pytest.raises(UsageError, match="no such load balancer provider, should be one of memory"):
        world.up("spec: {loadBalancer: {provider: nosuch}}")
    assert world.all_names() == ["subnets v4"]


def test_an_account_that_may_not_list_providers_builds_with_any(world: World) -> None:
    world.cloud.faults.fail_next("load_balancers.providers", PermissionRefused("policy"))
    assert building.preview(parse("spec: {loadBalancer: {provider: any}}"), world.cloud, paths=world.paths)


def test_providers_are_asked_for_only_when_one_is_named(world: World) -> None:
    building.preview(parse(""), world.cloud, paths=world.paths)
    assert world.store.calls["load_balancers.providers"] == 0


def test_this_hosts_own_address_is_found_without_sending() -> None:
    assert towards("127.0.0.9") == "127.0.0.1"
    assert towards("::1") == ""
    assert towards("255.255.255.255") == "" or towards("255.255.255.255").count(".") == 3
