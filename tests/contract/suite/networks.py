"""Networks, subnets, routers, ports and routes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from moyai.cloud.model import Route, SourceAddress
from moyai.core.errors import Conflict, NotFound, Terminal
from moyai.core.ids import cluster_tag, new_uid
from tests.contract.site import Site
from tests.contract.suite.absences import NOBODY


class Networks:
    def test_all_carry_their_tag_and_are_found_by_it(self, site: Site) -> None:
        cloud = site.cloud
        assert [network.id for network in cloud.networks.networks(tag=site.tag)] == [site.network.id]
        assert [subnet.id for subnet in cloud.networks.subnets(tag=site.tag)] == [site.subnet.id]
        assert [router.id for router in cloud.routers.routers(tag=site.tag)] == [site.router.id]
        assert [group.id for group in cloud.firewall.security_groups(tag=site.tag)] == [site.group.id]
        assert cloud.networks.networks(tag=cluster_tag(new_uid())) == []

    def test_all_show_their_tags_and_the_names_that_were_asked_for(self, site: Site) -> None:
        cloud, uid = site.cloud, site.uid
        shown = {
            (one.name, one.tags)
            for one in (
                *cloud.networks.networks(tag=site.tag),
                *cloud.networks.subnets(tag=site.tag),
                *cloud.routers.routers(tag=site.tag),
                *cloud.firewall.security_groups(tag=site.tag),
            )
        }
        asked = (site.network, site.subnet, site.router, site.group)
        assert shown == {(one.name, (site.tag,)) for one in asked}
        assert all(one.name.startswith(uid) for one in asked)
        assert site.router.external_network_id in {one.id for one in site.cloud.networks.networks(external=True)}
        assert site.subnet.gateway == "10.77.0.1"

    def test_ports_have_what_was_asked_and_are_found_by_device(self, site: Site) -> None:
        cloud = site.cloud
        port = site.port("a", "10.77.0.10")
        try:
            assert port.tags == (site.tag,)
            assert port.fixed_ips == ("10.77.0.10",)
            assert cloud.networks.sources_allowed()
            changed = cloud.networks.update_port(port.id, send_from=[SourceAddress("10.244.3.0/24")])
            assert changed.send_from == (SourceAddress("10.244.3.0/24"),)
            assert cloud.networks.update_port(port.id, send_from=[]).send_from == ()
            assert [one.id for one in cloud.networks.ports(ids=[port.id, NOBODY])] == [port.id]
            assert cloud.networks.ports(ids=[]) == []
            mine = cloud.networks.ports(device_ids=[site.router.id])
            assert site.subnet.id in {subnet for one in mine for subnet in one.subnet_ids}
            with pytest.raises(Conflict):
                site.port("b", "10.77.0.10")
        finally:
            cloud.networks.delete_port(port.id)
        cloud.networks.delete_port(port.id)

    def test_whether_a_user_may_make_something_is_said_without_making_it(self, site: Site) -> None:
        cloud = site.cloud
        before = (len(cloud.routers.routers()), len(cloud.addresses.floating_ips()))
        assert cloud.routers.permitted()
        assert cloud.addresses.permitted()
        assert cloud.networks.sources_allowed(site.network.id)
        assert (len(cloud.routers.routers()), len(cloud.addresses.floating_ips())) == before
        assert not [one for one in cloud.networks.ports(network_id=site.network.id) if "asks" in one.name]

    def test_a_network_and_a_subnet_say_whose_they_are_and_what_they_give_away(self, site: Site) -> None:
        networks = site.cloud.networks
        (own,) = networks.networks(tag=site.tag)
        assert not own.foreign
        (subnet,) = networks.subnets(tag=site.tag)
        assert subnet.dhcp
        assert subnet.pools

    def test_a_network_is_built_and_taken_apart_piece_by_piece(self, site: Site) -> None:
        networks, routers = site.cloud.networks, site.cloud.routers
        network = networks.create_network(name=f"{site.uid}-pieces", tags=[site.tag])
        subnet = networks.create_subnet(name="pieces", network_id=network.id, cidr="10.79.0.0/24", tags=[site.tag])
        router = routers.create_router(name=f"{site.uid}-pieces", tags=[site.tag])
        port = networks.create_port(name="pieces", network_id=network.id, subnet_id=subnet.id, tags=[site.tag])
        try:
            assert [one.id for one in networks.subnets(network_id=network.id)] == [subnet.id]
            assert router.external_network_id == ""
            external = site.router.external_network_id
            assert routers.set_router_gateway(router.id, external).external_network_id == external
            routers.add_router_interface(router.id, subnet.id)
            assert router.id in {one.device_id for one in networks.ports(network_id=network.id)}
            with pytest.raises(Conflict):
                networks.delete_subnet(subnet.id)
        finally:
            routers.remove_router_interface(router.id, subnet.id)
            routers.remove_router_interface(router.id, subnet.id)
            routers.delete_router(router.id)
            networks.delete_port(port.id)
            networks.delete_subnet(subnet.id)
            networks.delete_subnet(subnet.id)
            networks.delete_network(network.id)
            networks.delete_network(network.id)
        assert [one.id for one in networks.networks(tag=site.tag)] == [site.network.id]

    def test_routes_are_added_by_many_at_once_and_none_is_lost(self, site: Site) -> None:
        cloud = site.cloud
        routes = [Route(f"10.244.{number}.0/24", f"10.77.0.{20 + number}") for number in range(12)]
        with ThreadPoolExecutor(6) as pool:
            added = [pool.submit(cloud.pod_routing.add_routes, site.router.id, [route]) for route in routes]
        assert all(one.result() for one in added)
        assert set(cloud.routers.router(site.router.id).routes) == set(routes)
        assert set(cloud.pod_routing.add_routes(site.router.id, routes[:2]).routes) == set(routes)
        cloud.pod_routing.remove_routes(site.router.id, routes[1:])
        assert cloud.pod_routing.remove_routes(site.router.id, routes).routes == ()

    def test_a_router_in_use_is_a_conflict_and_its_interface_comes_once(self, site: Site) -> None:
        cloud = site.cloud
        cloud.routers.add_router_interface(site.router.id, site.subnet.id)
        with pytest.raises(Conflict) as caught:
            cloud.routers.delete_router(site.router.id)
        assert caught.value.request_id
        with pytest.raises(NotFound):
            cloud.routers.add_router_interface(site.router.id, "00000000-0000-0000-0000-000000000000")

    def test_too_many_source_addresses_are_refused_in_the_clouds_words(self, site: Site) -> None:
        port = site.port("pairs")
        try:
            with pytest.raises(Terminal, match="allowed address pair"):
                site.cloud.networks.update_port(port.id, send_from=[SourceAddress(f"10.1.{n}.0/24") for n in range(40)])
        finally:
            site.cloud.networks.delete_port(port.id)

    def test_quotas_in_use_follow_what_is_made(self, site: Site) -> None:
        def used() -> int:
            return next(quota.used for quota in site.cloud.quotas.quotas() if quota.name == "port")

        before = used()
        port = site.port("counted")
        assert used() == before + 1
        site.cloud.networks.delete_port(port.id)
