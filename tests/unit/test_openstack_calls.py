"""What the adapter sends and how it reads the answers, with recorded ones: tags, bulk rules, routes, pages of ids, parsing."""

from __future__ import annotations

import base64
import gzip
import random
import string
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from moyai.cloud.model import (
    Activity,
    Address,
    Evidence,
    Port,
    Power,
    Quota,
    Route,
    SecurityGroupRule,
    SourceAddress,
)
from moyai.cloud.openstack import parse
from moyai.cloud.openstack.neutron.firewall import rule_key
from moyai.cloud.openstack.nova import encode_user_data
from moyai.core.errors import Retriable, Terminal, UsageError
from moyai.core.keys import Kind
from tests.unit.openstack_server import Answer, OpenStackServer, openstack_server

NET = "/network/v2.0"
TAG = "moyai.cluster=0123456789"


@pytest.fixture
def played() -> Generator[OpenStackServer]:
    with openstack_server() as server:
        yield server


# tags


def test_an_object_is_tagged_right_after_it_is_made(played: OpenStackServer) -> None:
    played.on("POST", f"{NET}/networks", Answer(201, {"network": {"id": "n1", "name": "a-net", "tags": []}}))
    played.on("PUT", f"{NET}/networks/n1/tags", {"tags": [TAG]})
    made = played.cloud().networks.create_network(name="a-net", tags=[TAG])
    assert made.tags == (TAG,)
    assert played.made("PUT", f"{NET}/networks/n1/tags")[0].json == {"tags": [TAG]}


PORT: dict[str, Any] = {
    "id": "p1",
    "name": "a-worker-1",
    "network_id": "n1",
    "status": "DOWN",
    "mac_address": "fa:16:3e:00:00:01",
    "fixed_ips": [{"subnet_id": "s1", "ip_address": "10.0.0.5"}],
    "allowed_address_pairs": [
        {"ip_address": "10.244.1.0/24", "mac_address": "fa:16:3e:00:00:01"},
        {"ip_address": "10.0.0.9", "mac_address": "fa:16:3e:00:00:99"},
    ],
    "security_groups": ["g2", "g1"],
    "device_id": "",
    "device_owner": "",
    "tags": [],
}


def test_a_port_is_made_with_its_tags_where_the_cloud_can(played: OpenStackServer) -> None:
    played.has("tag-ports-during-bulk-creation")
    played.on("POST", f"{NET}/ports", Answer(201, {"port": {**PORT, "tags": [TAG]}}))
    made = played.cloud().networks.create_port(
        name="a-worker-1",
        network_id="n1",
        subnet_id="s1",
        fixed_ip="10.0.0.5",
        send_from=[SourceAddress("10.244.1.0/24")],
        tags=[TAG],
    )
    assert made.tags == (TAG,)
    sent = played.made("POST", f"{NET}/ports")[0].json["port"]
    assert sent["tags"] == [TAG]
    assert sent["fixed_ips"] == [{"subnet_id": "s1", "ip_address": "10.0.0.5"}]
    assert sent["allowed_address_pairs"] == [{"ip_address": "10.244.1.0/24"}]


@pytest.mark.parametrize("aliases", [(), ("tag-creation",)])
def test_tags_are_added_to_those_that_are_there(played: OpenStackServer, aliases: tuple[str, ...]) -> None:
    played.has(*aliases)
    one, many = f"{NET}/security-groups/g1/tags/moyai.cluster%3D0123456789", f"{NET}/security-groups/g1/tags"
    played.on("PUT", one, Answer(201))
    played.on("POST", many, Answer(201, {"tags": [TAG]}))
    played.cloud().tags.add_tags(Kind.SECURITY_GROUP, "g1", tags=[TAG])
    assert len(played.made("PUT", one)) == (0 if aliases else 1)
    assert len(played.made("POST", many)) == (1 if aliases else 0)


# security group rules


def rule_json(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "id": f"r{number}",
        "security_group_id": "g1",
        "direction": "ingress",
        "ethertype": "IPv4",
        "protocol": "tcp",
        "port_range_min": number,
        "port_range_max": number,
        "remote_ip_prefix": None,
        "remote_group_id": None,
        "description": "",
        **changes,
    }


def allow(number: int) -> SecurityGroupRule:
    return SecurityGroupRule("g1", protocol="tcp", port_min=number, port_max=number)


RULES = f"{NET}/security-group-rules"


def test_rules_are_added_in_one_call(played: OpenStackServer) -> None:
    played.on("POST", RULES, Answer(201, {"security_group_rules": [rule_json(1), rule_json(2)]}))
    made = played.cloud().firewall.create_security_group_rules([allow(1), allow(2), allow(1)])
    assert [rule.id for rule in made] == ["r1", "r2"]
    assert len(played.made("POST", RULES)[0].json["security_group_rules"]) == 2


def test_rules_that_are_there_are_left_out_of_the_second_try(played: OpenStackServer) -> None:
    refused = {"NeutronError": {"type": "SecurityGroupRuleExists", "message": "Security group rule already exists."}}
    played.on("POST", RULES, Answer(409, refused), Answer(201, {"security_group_rules": [rule_json(2)]}))
    played.on("GET", RULES, {"security_group_rules": [rule_json(1), rule_json(7)]})
    made = played.cloud().firewall.create_security_group_rules([allow(1), allow(2)])
    assert sorted(rule.id for rule in made) == ["r1", "r2"]
    assert [rule["port_range_min"] for rule in played.made("POST", RULES)[1].json["security_group_rules"]] == [2]


def test_no_rules_is_no_call(played: OpenStackServer) -> None:
    assert played.cloud().firewall.create_security_group_rules([]) == []
    assert played.requests == []


def test_everybody_is_the_same_as_no_remote() -> None:
    everybody = SecurityGroupRule("g1", remote_cidr="0.0.0.0/0", description="a")
    assert rule_key(everybody) == rule_key(SecurityGroupRule("g1"))
    assert rule_key(SecurityGroupRule("g1", remote_cidr="10.0.0.0/8")) != rule_key(everybody)


# routers


def router_json(*routes: Route, revision: int = 5) -> dict[str, Any]:
    rows = [{"destination": route.destination, "nexthop": route.nexthop} for route in routes]
    return {"router": {"id": "r", "name": "a", "routes": rows, "revision_number": revision, "tags": []}}


A, B = Route("10.244.0.0/24", "10.0.0.5"), Route("10.244.1.0/24", "10.0.0.6")
ROUTER = f"{NET}/routers/r"


def test_routes_are_added_and_removed_in_one_atomic_call(played: OpenStackServer) -> None:
    played.has("extraroute-atomic")
    played.on("PUT", f"{ROUTER}/add_extraroutes", router_json(A, B))
    played.on("PUT", f"{ROUTER}/remove_extraroutes", router_json(A))
    network = played.cloud()
    assert network.pod_routing.add_routes("r", [B]).routes == (A, B)
    assert network.pod_routing.remove_routes("r", [B]).routes == (A,)
    rows = [{"destination": "10.244.1.0/24", "nexthop": "10.0.0.6"}]
    assert played.made("PUT", f"{ROUTER}/add_extraroutes")[0].json == {"router": {"routes": rows}}


def test_without_atomic_routes_the_revision_guards_a_foreign_change(played: OpenStackServer) -> None:
    foreign = Route("192.168.0.0/24", "10.0.0.200")
    stale = {
        "NeutronError": {"type": "RevisionNumberConstraintFailed", "message": "Constrained to 5, but current revision is 6"}
    }
    played.on("GET", ROUTER, router_json(revision=5), router_json(foreign, revision=6))
    played.on("PUT", ROUTER, Answer(412, stale), router_json(A, foreign, revision=7))
    assert foreign in played.cloud().pod_routing.add_routes("r", [A]).routes
    first, second = played.made("PUT", ROUTER)
    assert first.headers["If-Match"] == "revision_number=5"
    assert second.headers["If-Match"] == "revision_number=6"
    assert len(second.json["router"]["routes"]) == 2


def test_removing_routes_that_are_not_there_changes_nothing(played: OpenStackServer) -> None:
    played.on("GET", ROUTER, router_json(A))
    assert played.cloud().pod_routing.remove_routes("r", [B]).routes == (A,)
    assert played.made("PUT", ROUTER) == []


def test_too_many_routes_are_terminal(played: OpenStackServer) -> None:
    played.has("extraroute-atomic")
    body = {"NeutronError": {"type": "RoutesExhausted", "message": "The number of routes exceeds the maximum 30."}}
    played.on("PUT", f"{ROUTER}/add_extraroutes", Answer(400, body))
    with pytest.raises(Terminal, match="exceeds the maximum 30"):
        played.cloud().pod_routing.add_routes("r", [A])


def test_an_interface_that_is_there_is_no_error_and_a_real_refusal_is(played: OpenStackServer) -> None:
    body = {"NeutronError": {"type": "BadRequest", "message": "Bad router request: Router already has a port on subnet s1."}}
    played.on("PUT", f"{ROUTER}/add_router_interface", Answer(400, body))
    played.on("GET", f"{NET}/ports", {"ports": [PORT]}, {"ports": []})
    network = played.cloud()
    network.routers.add_router_interface("r", "s1")
    assert played.made("GET", f"{NET}/ports")[0].query == {"device_id": ["r"], "fixed_ips": ["subnet_id=s1"]}
    with pytest.raises(Terminal):
        network.routers.add_router_interface("r", "s1")


# ports, floating IPs, quotas


def test_ports_of_many_servers_are_asked_for_in_few_calls(played: OpenStackServer) -> None:
    played.on("GET", f"{NET}/ports", {"ports": [PORT]})
    network = played.cloud()
    assert network.networks.ports(device_ids=[]) == []
    network.networks.ports(device_ids=[f"00000000-0000-0000-0000-{number:012}" for number in range(150)])
    asked = played.made("GET", f"{NET}/ports")
    assert [len(one.query["device_id"]) for one in asked] == [100, 50]


def test_a_port_reads_as_it_was_asked_for() -> None:
    assert parse.port(PORT) == Port(
        id="p1",
        name="a-worker-1",
        network_id="n1",
        status="DOWN",
        fixed_ips=("10.0.0.5",),
        subnet_ids=("s1",),
        mac="fa:16:3e:00:00:01",
        send_from=(SourceAddress("10.0.0.9", "fa:16:3e:00:00:99"), SourceAddress("10.244.1.0/24")),
        security_group_ids=("g1", "g2"),
    )


def test_a_floating_ip_is_let_go_by_a_null(played: OpenStackServer) -> None:
    row = {"id": "f", "floating_ip_address": "203.0.113.9", "status": "DOWN", "port_id": None, "fixed_ip_address": None}
    played.on("PUT", f"{NET}/floatingips/f", {"floatingip": row})
    assert played.cloud().addresses.associate_floating_ip("f", None).port_id == ""
    assert played.made("PUT", f"{NET}/floatingips/f")[0].json == {"floatingip": {"port_id": None}}


def test_quotas_come_with_their_use_where_the_cloud_tells(played: OpenStackServer) -> None:
    played.has("quota_details")
    details = {"quota": {"port": {"limit": 500, "used": 7, "reserved": 1}, "router": {"limit": -1, "used": 0, "reserved": 0}}}
    played.on("GET", f"{NET}/quotas/p1/details", details)
    played.on("GET", "/compute/v2.1/limits", {"limits": {"absolute": {"maxTotalCores": 20, "totalCoresUsed": 3}}})
    assert played.cloud().quotas.quotas() == [
        Quota("cores", 20, 3, Kind.CPU),
        Quota("port", 500, 8, Kind.PORT),
        Quota("router", -1, 0, Kind.ROUTER),
    ]


def test_compute_and_volume_quotas_are_read_from_the_limits() -> None:
    absolute = {"maxTotalCores": 20, "totalCoresUsed": 3, "maxTotalKeypairs": 100, "maxPersonality": 5}
    assert parse.compute_quotas({"limits": {"rate": [], "absolute": absolute}}) == [
        Quota("cores", 20, 3, Kind.CPU),
        Quota("key_pairs", 100, 0, Kind.KEY_PAIR),
    ]
    volumes = {"maxTotalVolumes": 10, "totalVolumesUsed": 2, "maxTotalVolumeGigabytes": 1000, "totalGigabytesUsed": 8}
    assert parse.volume_quotas({"limits": {"absolute": volumes}}) == [
        Quota("volumes", 10, 2, Kind.VOLUME),
        Quota("gigabytes", 1000, 8),
    ]


# servers

SERVER: dict[str, Any] = {
    "id": "i1",
    "name": "a-worker-1",
    "status": "ERROR",
    "OS-EXT-AZ:availability_zone": "az1",
    "OS-EXT-STS:vm_state": "error",
    "OS-EXT-STS:power_state": 4,
    "OS-EXT-STS:task_state": None,
    "hostId": "abc",
    "flavor": {"original_name": "m1.small", "vcpus": 1, "ram": 2048},
    "addresses": {
        "a-net": [
            {"addr": "10.0.0.5", "OS-EXT-IPS:type": "fixed", "OS-EXT-IPS-MAC:mac_addr": "fa:16:3e:00:00:01", "version": 4},
            {"addr": "203.0.113.9", "OS-EXT-IPS:type": "floating", "OS-EXT-IPS-MAC:mac_addr": "fa:16:3e:00:00:01"},
        ]
    },
    "metadata": {"moyai.role": "worker"},
    "tags": [TAG],
    "os-extended-volumes:volumes_attached": [{"id": "v1", "delete_on_termination": False}],
    "fault": {"code": 500, "message": "No valid host was found."},
}


def test_a_server_is_read_whole(played: OpenStackServer) -> None:
    played.on("GET", "/compute/v2.1/servers/detail", {"servers": [SERVER]})
    (server,) = played.cloud().machines.servers(tag=TAG)
    assert played.made("GET", "/compute/v2.1/servers/detail")[0].query == {"tags": [TAG]}
    assert server.addresses == (
        Address("10.0.0.5", "fixed", "a-net", "fa:16:3e:00:00:01"),
        Address("203.0.113.9", "floating", "a-net", "fa:16:3e:00:00:01"),
    )
    assert (server.zone, server.flavor_name, server.host, server.tags) == ("az1", "m1.small", "abc", (TAG,))
    assert server.fault == "No valid host was found."
    assert server.volume_ids == ("v1",)
    assert server.power is Power.FAILED
    assert not server.delete_failed
    assert server.evidence == Evidence(Activity.OFF, "that its server is ERROR, error, power shutdown")


def test_a_server_is_made_with_tags_user_data_and_its_ports(played: OpenStackServer) -> None:
    played.on("POST", "/compute/v2.1/servers", Answer(202, {"server": {"id": "i1", "links": []}}))
    made = played.cloud().machines.create_server(
        name="a-worker-1",
        image_id="img",
        flavor_id="1",
        port_ids=["p1"],
        user_data="#cloud-config\n",
        zone="az1",
        metadata={"moyai.role": "worker"},
        tags=[TAG],
    )
    assert (made.id, made.power) == ("i1", Power.STARTING)
    sent = played.made("POST", "/compute/v2.1/servers")[0].json
    assert base64.b64decode(sent["server"]["user_data"]) == b"#cloud-config\n"
    assert sent["server"]["networks"] == [{"port": "p1"}]
    assert sent["server"]["tags"] == [TAG]
    assert sent["server"]["availability_zone"] == "az1"


def test_long_user_data_is_compressed_and_what_cannot_fit_is_refused() -> None:
    long = "#cloud-config\n" + "x" * 100_000
    assert gzip.decompress(base64.b64decode(encode_user_data("n", long))).decode() == long
    noise = "".join(random.Random(1).choices(string.printable, k=200_000))
    with pytest.raises(UsageError, match="user data of n is too long"):
        encode_user_data("n", noise)


# images, volumes, identity


def test_an_image_is_streamed_and_a_failed_upload_leaves_none(played: OpenStackServer, tmp_path: Path) -> None:
    file = tmp_path / "image.tar"
    file.write_bytes(b"0123456789" * 300_000)
    played.on("POST", "/image/v2/images", Answer(201, {"id": "m", "name": "n", "status": "queued"}))
    played.on("PUT", "/image/v2/images/m/file", Answer(204), Answer(500))
    played.on("GET", "/image/v2/images/m", {"id": "m", "name": "n", "status": "active", "os_hash_value": "h"})
    played.on("DELETE", "/image/v2/images/m", Answer(204))
    images = played.cloud().images
    made = images.upload(name="n", file=file, distribution="debian", properties={"moyai_format": "rootfs-tar"})
    assert (made.status, made.checksum) == ("ACTIVE", "h")
    assert played.made("PUT", "/image/v2/images/m/file")[0].body == file.read_bytes()
    assert played.made("POST", "/image/v2/images")[0].json["moyai_format"] == "rootfs-tar"
    assert played.made("POST", "/image/v2/images")[0].json["os_distro"] == "debian"
    with pytest.raises(Retriable):
        images.upload(name="n", file=file, distribution="debian", properties={})
    assert len(played.made("DELETE", "/image/v2/images/m")) == 1


def test_an_image_that_somebody_else_deletes_at_the_same_time_is_deleted(played: OpenStackServer) -> None:
    path = "/image/v2/images/m"
    played.on("DELETE", path, Answer(400))
    played.on("GET", path, Answer(404), {"id": "m", "name": "n", "status": "active"})
    played.cloud().images.delete_image("m")
    with pytest.raises(Terminal):
        played.cloud().images.delete_image("m")


def test_providers_are_names(played: OpenStackServer) -> None:
    found = [{"name": "amphora", "description": "The Octavia Amphora driver."}, {"name": "ovn", "description": ""}]
    played.on("GET", "/lb/v2/lbaas/providers", {"providers": found})
    assert played.cloud().load_balancers.providers() == ["amphora", "ovn"]
