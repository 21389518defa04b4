"""A cluster on networks that exist: what a plan takes from them, what it refuses, what stays when the cluster goes."""
# ruff: noqa: E501 (messages are compared whole)

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from moyai.cloud.capabilities import Capability
from moyai.cloud.memory import Killed, MemoryCloud
from moyai.cloud.model import Network, Route, Router, Subnet
from moyai.core.errors import MoyaiError, Terminal
from moyai.core.keys import Kind
from moyai.lifecycle import execute
from moyai.lifecycle.record import Record
from moyai.spec.load import dump
from tests.unit.lifecycle_world import World

#: An own network behind an own router, as many a project has one for all its machines.
OWN = "spec: {network: {existing: {network: office, router: edge}, mode: host-gw}}"
#: A network of the company's, which its own routers serve.
PROVIDER = "spec: {network: {existing: {network: corp}, disableExternalNetwork: true, mode: auto}}"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def office(cloud: MemoryCloud, *, pools: tuple[str, str] = ("172.20.5.100", "172.20.5.200")) -> Subnet:
    """A network, its subnet and a router that leads out of it, all the user's."""
    external = next(one for one in cloud.store.networks if one.external)
    network = cloud.networks.create_network(name="office", tags=["env=prod"])
    subnet = cloud.networks.create_subnet(
        name="desks", network_id=network.id, cidr="172.20.5.0/24", allocation_pools=[pools], tags=[]
    )
    router = cloud.routers.create_router(name="edge", tags=[])
    cloud.routers.set_router_gateway(router.id, external.id)
    cloud.routers.add_router_interface(router.id, subnet.id)
    return subnet


def corp(cloud: MemoryCloud) -> Subnet:
    """A network of another project's, in a cloud that lets nobody make routers and floating IPs."""
    made = cloud.networks.create_network(name="corp", tags=[])
    subnet = cloud.networks.create_subnet(name="floor-3", network_id=made.id, cidr="172.21.0.0/23", tags=[])
    cloud.store.networks.put(replace(cloud.store.networks[made.id], foreign=True))
    cloud.store.routers_allowed = cloud.store.addresses_allowed = False
    return subnet


def users_own(world: World) -> list[object]:
    """All that is the user's, as it is now."""
    store = world.store
    return [
        *(one for one in store.networks if not one.external),
        *store.subnets,
        *store.routers,
        *(one for one in store.ports if not one.use.deletable),
    ]


def test_machines_get_addresses_from_a_network_of_the_users_and_nothing_of_it_changes(world: World) -> None:
    office(world.cloud)
    before = users_own(world)
    made = world.up(OWN)
    assert users_own(world) == before
    record = Record.open(world.paths, "quickstart")
    assert record is not None
    given = {one.name: one.fixed_ips[0] for one in world.store.ports if one.use.deletable}
    assert set(given) == set(made.nodes)
    assert {name: one.address for name, one in record.allocations.items()} == given
    assert all(address.startswith("172.20.5.1") for address in given.values())
    assert str(record.cluster.spec.network.node_cidr) == "172.20.5.0/24"
    assert made.api == f"https://{next(iter(world.store.floating_ips)).address}:6443"
    assert not world.up(OWN).changed
    report = world.down()
    assert not report.left
    assert users_own(world) == before
    assert not {"office", "desks", "edge"} & {entry.name for entry in report.entries}


def test_the_plan_says_that_addresses_are_guesses_and_lists_all_that_follows(world: World) -> None:
    office(world.cloud)
    plan = world.preview(OWN)
    texts = [step.text for step in plan.steps]
    assert "create port quickstart-workers-0 172.20.5.102 or another address, pods 10.244.1.0/24" in texts
    assert "create server quickstart-workers-0 (m1.small in az1)" in texts
    assert not {Kind.NETWORK, Kind.SUBNET, Kind.ROUTER, Kind.GATEWAY, Kind.INTERFACE} & {step.key.kind for step in plan.steps}
    assert any(note.startswith("network office gives the machines their addresses") for note in plan.notes)
    assert {step.key.kind for step in plan.part.steps} == {Kind.PORT, Kind.SECURITY_GROUP}


def test_routes_of_the_users_router_are_told_and_taken_away_again(world: World) -> None:
    office(world.cloud)
    edge = next(iter(world.store.routers))
    old = Route("192.168.77.0/24", "172.20.5.9")
    world.cloud.pod_routing.add_routes(edge.id, [old])
    before = users_own(world)
    spec = OWN.replace("host-gw", "routes")
    assert "router edge is yours and stays: it gets a route for each node, which `down` takes away" in world.preview(spec).notes
    world.up(spec)
    routes = world.store.routers[edge.id].routes
    assert old in routes
    assert len(routes) == 4
    assert not world.down().left
    assert users_own(world) == before


def test_a_router_of_the_users_gets_the_clusters_subnet_and_loses_it_again(world: World) -> None:
    office(world.cloud)
    before = users_own(world)
    spec = "spec: {network: {existing: {router: edge}}}"
    notes = world.preview(spec).notes
    assert (
        "router edge is yours and stays: it gets an interface in the cluster's subnet and a route for each node, which `down` takes away"
        in notes
    )
    world.up(spec)
    assert [one.name for one in world.store.routers] == ["edge"]
    assert len(world.cloud.networks.ports(device_ids=[next(iter(world.store.routers)).id])) == 2
    assert not world.up(spec).changed
    assert not world.down().left
    assert users_own(world) == before


def test_a_provider_network_carries_a_cluster_without_router_and_floating_ip(world: World) -> None:
    corp(world.cloud)
    before = users_own(world)
    made = world.up(PROVIDER)
    record = Record.open(world.paths, "quickstart")
    assert record is not None
    plane = record.allocations["quickstart-control-plane-0"].address
    assert made.api == f"https://{plane}:6443"
    assert plane in (record.folder / "kubeconfig").read_text()
    assert not list(world.store.floating_ips)
    assert not list(world.store.routers)
    assert record.cluster.spec.network.mode == "vxlan"
    assert not world.up(PROVIDER).changed
    assert not world.down().left
    assert users_own(world) == before


def test_a_record_names_what_is_used_by_its_id_so_that_a_second_thing_of_that_name_is_no_matter(world: World) -> None:
    corp(world.cloud)
    world.up(PROVIDER)
    record = Record.open(world.paths, "quickstart")
    assert record is not None
    world.cloud.networks.create_network(name="corp", tags=[])
    # the record's spec says it for every command that reads it; the user's file has to say it too
    assert not world.up(record.cluster).changed
    with pytest.raises(MoyaiError, match="should be the id of one network: 2 of cloud moyai have it"):
        world.preview(PROVIDER)


def test_machines_are_added_to_a_network_of_the_users(world: World) -> None:
    corp(world.cloud)
    world.up(PROVIDER)
    more = PROVIDER.replace("spec: {", "spec: {nodePools: [{name: workers, replicas: 4}], ")
    plan = world.preview(more)
    assert plan.unsettled == {"quickstart-workers-2", "quickstart-workers-3"}
    assert len(world.up(more).nodes) == 5
    fewer = PROVIDER.replace("spec: {", "spec: {nodePools: [{name: workers, replicas: 1}], ")
    world.up(fewer)
    assert sorted(one.name for one in world.store.ports if one.use.deletable) == [
        "quickstart-control-plane-0",
        "quickstart-workers-0",
    ]


def test_several_control_planes_take_a_virtual_address_that_the_cloud_gives_to_nobody(world: World) -> None:
    office(world.cloud)
    plane = "controlPlane: {replicas: 3, apiServerFixedIP: 172.20.5.50}"
    spec = OWN.replace("spec: {", f"spec: {{{plane}, ").replace("mode: host-gw", "mode: host-gw, disableExternalNetwork: true")
    made = world.up(spec)
    assert made.api == "https://172.20.5.50:6443"
    reserved = next(one for one in world.store.ports if one.name == "quickstart-api")
    assert reserved.fixed_ips == ("172.20.5.50",)
    assert not world.up(spec).changed
    assert not world.down().left


def spoil(world: World, what: str) -> None:
    """Makes the office unfit."""
    store = world.store
    subnet = next(one for one in store.subnets if one.name == "desks")
    router = next(iter(store.routers))
    if what == "no dhcp":
        store.subnets.put(replace(subnet, dhcp=False))
    elif what == "two networks":
        store.networks.put(Network("other", "office"))
    elif what == "two subnets":
        world.cloud.networks.create_subnet(name="guests", network_id=subnet.network_id, cidr="172.20.6.0/24", tags=[])
    elif what == "no gateway":
        store.routers.put(replace(router, external_network_id=""))
    elif what == "no interface":
        world.cloud.routers.remove_router_interface(router.id, subnet.id)
    elif what == "two routers":
        store.routers.put(Router("other", "edge", router.external_network_id))


@pytest.mark.parametrize(
    ("what", "section", "message"),
    [
        ("", "existing: {network: offce}", "spec.network.existing.network: 'offce', cloud moyai has no such network, should be one of office, public"),
        ("", "existing: {network: office, subnet: attic}", "spec.network.existing.subnet: 'attic', cloud moyai has no such subnet, should be one of desks"),
        ("", "existing: {network: office, router: ege}", "spec.network.existing.router: 'ege', cloud moyai has no such router, should be one of edge"),
        ("", "existing: {network: office}, podCIDR: 172.20.0.0/16", "spec.network.podCIDR: '172.20.0.0/16', should be apart from 172.20.5.0/24, subnet desks of yours"),
        ("", "existing: {network: office}, serviceCIDR: 172.20.0.0/20", "spec.network.serviceCIDR: '172.20.0.0/20', should be apart from 172.20.5.0/24, subnet desks of yours"),
        ("", "existing: {network: office}, nodeCIDR: 10.8.0.0/24", "spec.network.nodeCIDR: '10.8.0.0/24', should be left out or '172.20.5.0/24', the range of subnet desks"),
        ("", "existing: {router: edge}, nodeCIDR: 172.20.0.0/20", "spec.network.nodeCIDR: '172.20.0.0/20', should be apart from 172.20.5.0/24, subnet desks of yours"),
        ("no dhcp", "existing: {network: office}", "spec.network.existing.subnet: 'desks' has no DHCP, by which machines get their addresses, should have it"),
        ("two networks", "existing: {network: office}", "should be the id of one network: 2 of cloud moyai have it"),
        ("two routers", "existing: {network: office, router: edge}", "should be the id of one router: 2 of cloud moyai have it"),
        ("two subnets", "existing: {network: office}", "spec.network.existing.subnet: left out, should be one of desks, guests: network office has several IPv4 subnets"),
        ("no gateway", "existing: {network: office}", "spec.network.existing.router: 'edge' leads to no external network, should lead to one"),
        ("no interface", "existing: {network: office, router: edge}", "spec.network.existing.router: 'edge' has no interface in subnet desks, should have one"),
        ("no interface", "existing: {network: office}", "spec.network.disableExternalNetwork: false, should be true: no router of yours leads out of subnet desks, so floating IPs do not lead to its machines"),
        ("no interface", "existing: {network: office}, disableExternalNetwork: true", "spec.network.mode: 'routes', should be 'host-gw': no router of yours has an interface in the machines' subnet"),
    ],
)  # fmt: skip
def test_a_network_that_does_not_fit_is_refused_in_one_line_and_nothing_is_made(
    world: World, what: str, section: str, message: str
) -> None:
    office(world.cloud)
    spoil(world, what)
    changes = world.mortal.changes
    with pytest.raises(MoyaiError) as caught:
        world.up(f"spec: {{network: {{{section}}}}}")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert world.mortal.changes == changes


def test_a_subnet_with_too_few_addresses_is_refused(world: World) -> None:
    office(world.cloud, pools=("172.20.5.100", "172.20.5.102"))
    with pytest.raises(
        MoyaiError, match=r"'desks' has no address left for node quickstart-workers-1, should have one for each"
    ):
        world.preview(OWN)


def test_a_tag_names_a_network(world: World) -> None:
    subnet = office(world.cloud)
    world.up("spec: {network: {existing: {network: env=prod}, mode: host-gw}}")
    record = Record.open(world.paths, "quickstart")
    assert record is not None
    named = dump(record.cluster)["spec"]["network"]["existing"]
    assert (named["network"], named["subnet"]) == (subnet.network_id, subnet.id)


def test_a_cloud_that_forbids_routers_is_refused_before_anything_is_made(world: World) -> None:
    corp(world.cloud)
    changes = world.mortal.changes
    with pytest.raises(Terminal, match=r"has no routers: .*: name a network of yours in spec.network.existing"):
        world.up("spec: {network: {mode: vxlan}}")
    assert world.mortal.changes == changes


def test_a_cluster_that_exists_stays_where_it_is(world: World) -> None:
    office(world.cloud)
    world.up("")
    with pytest.raises(MoyaiError, match=r"spec.network.existing: .* should stay .* while the cluster exists"):
        world.preview("spec: {network: {existing: {network: office}}}")


def test_a_cloud_that_does_not_take_existing_networks_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch, capabilities=frozenset(Capability) - {Capability.EXISTING_NETWORKS})
    office(world.cloud)
    with pytest.raises(
        MoyaiError, match=r"spec.network.existing: given, should be left out: cloud moyai does not put clusters"
    ):
        world.preview(OWN)


def test_a_second_cluster_of_the_same_name_is_refused_on_a_network_of_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = World(tmp_path / "a", monkeypatch)
    corp(first.cloud)
    first.up(PROVIDER)
    second = World(tmp_path / "b", monkeypatch)
    second.cloud = first.cloud
    with pytest.raises(Terminal, match=r"metadata.name: 'quickstart' is taken in cloud moyai by cluster"):
        second.preview(PROVIDER)


@pytest.mark.exhaustive
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_an_up_that_is_killed_at_any_change_is_finished_by_the_next_and_down_leaves_what_is_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    monkeypatch.setattr(execute, "WORKERS", 1)
    counted = World(tmp_path / "count", monkeypatch)
    office(counted.cloud)
    start, spec = counted.mortal.changes, OWN.replace("host-gw", "routes")
    counted.up(spec)
    for number in range(1, counted.mortal.changes - start + 1):
        world = World(tmp_path / str(number), monkeypatch)
        office(world.cloud)
        before = users_own(world)
        world.mortal.kill_at(number, after=after)
        with pytest.raises(Killed):
            world.up(spec)
        world.mortal.revive()
        if number % 2:
            world.up(spec)
            assert len([one for one in world.store.ports if one.use.deletable]) == 3, f"killed at change {number}"
            assert not world.up(spec).changed
        assert not world.down().left
        assert users_own(world) == before, f"killed at change {number}"
        assert not [one for one in world.store.ports if one.use.deletable], f"killed at change {number}"


def test_without_load_balancers_a_plan_says_what_becomes_of_services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch, capabilities=frozenset(Capability) - {Capability.LOAD_BALANCERS})
    corp(world.cloud)
    assert any(
        "stay pending, and nodes cannot announce their addresses, as ports may not send" in note
        for note in world.preview(PROVIDER).notes
    )
    world.store.networks.put(replace(next(one for one in world.store.networks if one.name == "corp"), foreign=False))
    assert any("stay pending, unless nodes announce addresses" in note for note in world.preview(PROVIDER).notes)


def test_a_network_whose_ports_may_not_send_from_other_addresses_gets_vxlan_and_the_plan_says_why(world: World) -> None:
    corp(world.cloud)
    why = "cloud moyai does not let ports send from other addresses than their own"
    assert world.preview(PROVIDER).notes[0] == f"spec.network.mode: auto is vxlan here: {why}: pods' packets are encapsulated"
    with pytest.raises(MoyaiError, match=f"spec.network.mode: 'host-gw', should be 'vxlan': {why}"):
        world.preview(PROVIDER.replace("mode: auto", "mode: host-gw"))


def test_announced_addresses_are_those_that_the_subnet_gives_to_nobody(world: World) -> None:
    office(world.cloud)
    announcing = OWN.replace("spec: {", "spec: {services: {announce: {ranges: [RANGE]}}, ")
    with pytest.raises(MoyaiError, match=r"announce.ranges: '172.20.5.128/29', should be outside of the addresses that the"):
        world.preview(announcing.replace("RANGE", "172.20.5.128/29"))
    with pytest.raises(MoyaiError, match=r"announce.ranges: '10.244.3.0/24', should be apart from podCIDR 10.244.0.0/16"):
        world.preview(announcing.replace("RANGE", "10.244.3.0/24"))
    world.up(announcing.replace("RANGE", "172.20.5.240/29"))
    assert "172.20.5.240/29" in {one.address for port in world.store.ports for one in port.send_from}


def test_a_cluster_without_a_record_is_removed_from_a_router_of_the_users_too(world: World) -> None:
    office(world.cloud)
    before = users_own(world)
    uid = world.up(OWN.replace("host-gw", "routes")).uid
    record = Record.open(world.paths, "quickstart")
    assert record is not None
    record.remove()
    assert not world.down(name="", uid=uid).left
    assert users_own(world) == before


def test_routes_of_another_cluster_to_the_same_addresses_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = World(tmp_path / "a", monkeypatch)
    first.up("")
    routes = next(iter(first.store.routers)).routes
    second = World(tmp_path / "b", monkeypatch)
    second.cloud, second.store, second.mortal = first.cloud, first.store, first.mortal
    second.up("metadata: {name: other}")
    assert not second.down("other").left
    assert next(iter(first.store.routers)).routes == routes
