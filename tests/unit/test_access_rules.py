"""An application credential may make the calls of its use, and no others: each call of the list has rules, each rule is used.

The calls are played over a loopback server, once for each way in which a cloud may answer; a rule matches as the services' own
middleware matches.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest

from moyai.cloud.credentials import CALLS, Credential, Use
from moyai.cloud.load_balancers import (
    BalancingAlgorithm,
    CheckType,
    Listener,
    LoadBalancer,
    Member,
    Monitor,
    Pool,
    TrafficProtocol,
)
from moyai.cloud.model import Route, SecurityGroupRule
from moyai.cloud.openstack import OpenStackCloud
from moyai.cloud.openstack.access_rules import (
    CALLED,
    IN_THE_CALLERS_NAME,
    WITHOUT_ATOMIC_ROUTES,
    Rule,
    RuleFacts,
    rules_of,
    split,
)
from moyai.core.errors import MoyaiError, Terminal, Unreachable
from moyai.core.keys import Kind
from tests.unit.openstack_server import Answer, OpenStackServer, openstack_server

pytestmark = pytest.mark.exhaustive

PATH = "/v3/users/u1/application_credentials"
RULE = SecurityGroupRule("g", protocol="tcp", port_min=1, port_max=2)
BALANCER = LoadBalancer("b")
POOL = Pool("p", TrafficProtocol.TCP, BalancingAlgorithm.ROUND_ROBIN)
BASES = {"/compute/v2.1": "compute", "/network/v2.0": "network", "/volume/v3": "block-storage", "/lb/v2": "load-balancer"}


@pytest.fixture
def played() -> Generator[OpenStackServer]:
    with openstack_server() as server:
        yield server


def plays(cloud: OpenStackCloud) -> Mapping[str, Callable[[], object]]:
    """Every call of the lists, so that it sends all that it can send."""
    machines, networks, disks, balancers = cloud.machines, cloud.networks, cloud.disks, cloud.load_balancers
    return {
        "machines.servers": machines.servers,
        "machines.server": lambda: machines.server("s"),
        "machines.stop_server": lambda: machines.stop_server("s"),
        "machines.zones": machines.zones,
        "machines.attach_volume": lambda: machines.attach_volume("s", "v"),
        "machines.detach_volume": lambda: machines.detach_volume("s", "v"),
        "networks.networks": lambda: networks.networks(external=True),
        "networks.subnets": networks.subnets,
        "networks.ports": lambda: networks.ports(device_ids=["s"]),
        "networks.update_port": lambda: networks.update_port("p", send_from=[]),
        "networks.create_port": lambda: networks.create_port(name="n", network_id="n", subnet_id="s", tags=["t"]),
        "routers.router": lambda: cloud.routers.router("r"),
        "pod_routing.add_routes": lambda: cloud.pod_routing.add_routes("r", [Route("10.0.0.0/24", "10.1.0.1")]),
        "pod_routing.remove_routes": lambda: cloud.pod_routing.remove_routes("r", [Route("10.2.0.0/24", "10.1.0.2")]),
        "firewall.security_group_rules": lambda: cloud.firewall.security_group_rules(["g"]),
        "firewall.create_security_group_rules": lambda: cloud.firewall.create_security_group_rules([RULE]),
        "firewall.delete_security_group_rule": lambda: cloud.firewall.delete_security_group_rule("x"),
        "addresses.floating_ips": cloud.addresses.floating_ips,
        "addresses.create_floating_ip": lambda: cloud.addresses.create_floating_ip(network_id="n", tags=["t"]),
        "addresses.associate_floating_ip": lambda: cloud.addresses.associate_floating_ip("f", "p"),
        "addresses.describe_floating_ip": lambda: cloud.addresses.describe_floating_ip("f", "d"),
        "addresses.delete_floating_ip": lambda: cloud.addresses.delete_floating_ip("f"),
        "tags.add_tags": lambda: cloud.tags.add_tags(Kind.FLOATING_IP, "f", tags=["moyai.keep=true"]),
        "load_balancers.load_balancers": balancers.load_balancers,
        "load_balancers.head": lambda: balancers.head("b"),
        "load_balancers.get": lambda: balancers.get("b"),
        "load_balancers.create": lambda: balancers.create(BALANCER),
        "load_balancers.update": lambda: balancers.update("b", tags=[]),
        "load_balancers.delete": lambda: balancers.delete("b"),
        "load_balancers.failover": lambda: balancers.failover("b"),
        "load_balancers.create_listener": lambda: balancers.create_listener("b", Listener("l", TrafficProtocol.TCP, 1)),
        "load_balancers.update_listener": lambda: balancers.update_listener("l", {}),
        "load_balancers.delete_listener": lambda: balancers.delete_listener("l"),
        "load_balancers.create_pool": lambda: balancers.create_pool(POOL, listener_id="l"),
        "load_balancers.update_pool": lambda: balancers.update_pool("p", {}),
        "load_balancers.delete_pool": lambda: balancers.delete_pool("p"),
        "load_balancers.set_members": lambda: balancers.set_members("p", [Member("10.0.0.1", 1)]),
        "load_balancers.create_monitor": lambda: balancers.create_monitor("p", Monitor(CheckType.TCP, 1, 1, 1)),
        "load_balancers.update_monitor": lambda: balancers.update_monitor("m", {}),
        "load_balancers.delete_monitor": lambda: balancers.delete_monitor("m"),
        "disks.volumes": disks.volumes,
        "disks.volume": lambda: disks.volume("v"),
        "disks.create_volume": lambda: disks.create_volume(name="v", size_gb=1, metadata={}),
        "disks.extend_volume": lambda: disks.extend_volume("v", 2),
        "disks.change_volume_type": lambda: disks.change_volume_type("v", "t"),
        "disks.delete_volume": lambda: disks.delete_volume("v"),
        "disks.forget_attachment": lambda: disks.forget_attachment("a"),
        "disks.snapshots": disks.snapshots,
        "disks.snapshot": lambda: disks.snapshot("s"),
        "disks.create_snapshot": lambda: disks.create_snapshot(name="s", volume_id="v", metadata={}),
        "disks.delete_snapshot": lambda: disks.delete_snapshot("s"),
        "disks.types": disks.types,
        "disks.zones": disks.zones,
        "disks.faults": lambda: disks.faults("v"),
        "disks.quotas": disks.quotas,
    }


def answers(played: OpenStackServer, *extensions: str) -> None:
    """The answers that calls need so that they send their next request."""
    played.has(*extensions)
    router = {"router": {"id": "r", "routes": [{"destination": "10.2.0.0/24", "nexthop": "10.1.0.2"}], "revision_number": 1}}
    played.on("GET", "/network/v2.0/routers/r", router)
    played.on("POST", "/network/v2.0/floatingips", {"floatingip": {"id": "f"}})
    played.on("GET", "/lb/v2/lbaas/loadbalancers/b", {"loadbalancer": {"id": "b"}})
    played.on("GET", "/lb/v2/lbaas/pools", {"pools": [{"id": "p", "healthmonitor_id": "m"}]})
    played.on("GET", "/lb/v2/lbaas/pools/p/members", {"members": []})
    # Nova refuses to stop what is stopped, and is asked how the server is
    played.on("POST", "/compute/v2.1/servers/s/action", Answer(409, {"conflictingRequest": {"message": "it is stopped"}}))
    # a rule that is there already: the existing ones are read
    played.on("POST", "/network/v2.0/security-group-rules", Answer(409, {"NeutronError": {"message": "it exists"}}))


def sent(played: OpenStackServer, use: Use, *extensions: str) -> set[tuple[str, str, str]]:
    """Service, method and path below its base of all that the calls of a use send."""
    answers(played, *extensions)
    cloud = played.cloud()
    calls = plays(cloud)
    for name in sorted(CALLS[use]):
        before = len(played.requests)
        # the answers are as small as can be; what was asked is what counts
        with suppress(MoyaiError, KeyError, TypeError):
            calls[name]()
        assert len(played.requests) > before, name
    found: set[tuple[str, str, str]] = set()
    for request in played.requests:
        for base, service in BASES.items():
            if request.path.startswith(base):
                found.add((service, request.method, request.path.removeprefix(base)))
    return found


def matches(path: str, rule: str) -> bool:
    return re.fullmatch(re.escape(rule).replace(r"\*", "[^/]+"), path) is not None


def lines(use: Use, *, atomic: bool) -> set[tuple[str, str, str]]:
    tables = [CALLED[use], *([] if atomic or use is Use.VOLUMES else [WITHOUT_ATOMIC_ROUTES])]
    return {(service, method, path) for table in tables for service, rows in table.items() for method, path in split(rows)}


@pytest.mark.parametrize("use", list(Use))
def test_all_that_a_call_sends_has_a_rule_and_each_rule_is_used(use: Use) -> None:
    everything: set[tuple[str, str, str]] = set()
    for extensions in ((), ("extraroute-atomic", "tag-creation")):
        with openstack_server() as played:
            requests = sent(played, use, *extensions)
        rules = lines(use, atomic=bool(extensions))
        unruled = {one for one in requests if not any(one[:2] == rule[:2] and matches(one[2], rule[2]) for rule in rules)}
        assert not unruled
        everything |= requests
    unused = {
        rule
        for rule in lines(use, atomic=False)
        if not any(one[:2] == rule[:2] and matches(one[2], rule[2]) for one in everything)
    }
    assert not unused


def test_the_lists_and_the_plays_are_the_same() -> None:
    with openstack_server() as played:
        assert set(plays(played.cloud())) == CALLS[Use.CONTROLLERS] | CALLS[Use.VOLUMES]


@pytest.mark.parametrize("use", list(Use))
def test_nobody_may_delete_machines_or_networks_or_touch_accounts(use: Use) -> None:
    tables = (CALLED[use], IN_THE_CALLERS_NAME[use], WITHOUT_ATOMIC_ROUTES)
    rules = {(service, rule) for table in tables for service, rows in table.items() for rule in split(rows)}
    assert not {service for service, _ in rules} & {"identity", "image", "placement"}
    assert ("compute", ("DELETE", "/servers/*")) not in rules
    assert not {path for service, (method, path) in rules if service == "network" and method == "DELETE"} - {
        "/security-group-rules/*",
        "/floatingips/*",
    }
    assert not [path for _, (_, path) in rules if "**" in path], "which would match any number of parts"


def rules(base: str, offered: Collection[str] = ("block-storage", "compute", "network")) -> list[Rule]:
    def types(service: str) -> list[str]:
        return ["block-storage", "volumev3"] if service == "block-storage" else [service]

    def path(service: str) -> str:
        return base if service == "block-storage" else "/v2.0"

    return rules_of(Use.VOLUMES, RuleFacts(offered, atomic_routes=True, base=path, types=types))


def test_rules_name_each_type_and_each_path_that_a_service_may_see() -> None:
    found = {(rule.service, rule.path) for rule in rules("/volume/v3/p1") if rule.method == "POST" and "snap" in rule.path}
    assert found == {
        ("block-storage", "/volume/v3/p1/snapshots"),
        ("block-storage", "/v3/p1/snapshots"),
        ("volumev3", "/volume/v3/p1/snapshots"),
        ("volumev3", "/v3/p1/snapshots"),
    }
    assert {rule.path for rule in rules("/v3") if rule.method == "POST" and "snap" in rule.path} == {"/v3/snapshots"}
    assert not [rule for rule in rules("/v3", offered=["compute"]) if rule.service != "compute"]
    # Keystone's database takes 128
    assert max(len(rule.path) for rule in rules("/block-storage/v3/" + "0" * 32)) <= 128
    assert len(set(rules("/v3"))) == len(rules("/v3"))


# ---- how a credential is made


def made(*, limited: bool = True) -> Answer:
    body: dict[str, Any] = {"id": "i", "secret": "s", "name": "a-ccm"}
    if limited:
        body["access_rules"] = [{"service": "compute", "method": "GET", "path": "/x"}]
    return Answer(201, {"application_credential": body})


def ready(played: OpenStackServer) -> None:
    answers(played, "extraroute-atomic")
    for path in (
        "/compute/v2.1/servers/detail",
        "/network/v2.0/ports",
        "/lb/v2/lbaas/loadbalancers",
        "/volume/v3/volumes/detail",
    ):
        played.on("GET", path, {})


def test_a_credential_has_the_roles_and_the_rules_of_its_use(played: OpenStackServer) -> None:
    ready(played)
    played.on("POST", PATH, made())
    issued = played.cloud().credentials.create_credential(name="a-ccm", use=Use.CONTROLLERS, description="d")
    assert (issued.id, issued.secret, issued.notes) == ("i", "s", ())
    sent = played.made("POST", PATH)[0].json["application_credential"]
    assert sent["roles"] == [{"name": "member"}, {"name": "load-balancer_member"}]
    assert sent["unrestricted"] is False
    assert {"service": "compute", "method": "POST", "path": "/v2.1/servers/*/action"} in sent["access_rules"]
    assert {one["service"] for one in sent["access_rules"]} == {"compute", "network", "load-balancer"}
    # it was tried at each of its services
    for path in ("/compute/v2.1/servers/detail", "/network/v2.0/ports", "/lb/v2/lbaas/loadbalancers"):
        assert played.made("GET", path)


def test_a_keystone_without_access_rules_is_a_note(played: OpenStackServer) -> None:
    ready(played)
    played.on("POST", PATH, made(limited=False))
    issued = played.cloud().credentials.create_credential(name="a-ccm", use=Use.VOLUMES, description="d")
    assert issued.notes == (
        "application credential a-ccm may call all that its roles allow: "
        "this cloud's Keystone knows no access rules (OpenStack Train has them)",
    )


def test_services_that_cannot_check_rules_get_a_credential_without_and_a_note(played: OpenStackServer) -> None:
    ready(played)
    played.on("GET", "/network/v2.0/ports", Answer(401, {"error": {"message": "The request you have made requires auth"}}))
    played.on("POST", PATH, made(), made(limited=False))
    played.on("DELETE", f"{PATH}/i", Answer(204))
    issued = played.cloud().credentials.create_credential(name="a-ccm", use=Use.CONTROLLERS, description="d")
    assert issued.notes == (
        "application credential a-ccm may call all that its roles allow: no access rules are checked by network "
        "(the cloud's operator sets service_type in section [keystone_authtoken] of the service)",
    )
    assert len(played.made("DELETE", f"{PATH}/i")) == 1
    assert "access_rules" not in played.made("POST", PATH)[1].json["application_credential"]


def test_missing_roles_are_a_note_that_names_the_roles_taken_instead(played: OpenStackServer) -> None:
    ready(played)
    played.roles = ("admin", "member")
    played.on("POST", PATH, made())
    cloud = played.cloud()
    issued = cloud.credentials.create_credential(name="a-ccm", use=Use.CONTROLLERS, description="d")
    assert issued.notes == (
        "application credential a-ccm has all your roles (admin, member): you have no role load-balancer_member",
    )
    # the other use lacks nothing, and takes no more than it needs
    assert cloud.credentials.create_credential(name="a-csi", use=Use.VOLUMES, description="d").notes == ()
    assert [one.json["application_credential"]["roles"] for one in played.made("POST", PATH)] == [
        [{"name": "admin"}, {"name": "member"}],
        [{"name": "member"}],
    ]


def test_a_refusal_is_no_reason_for_a_credential_that_may_do_more(played: OpenStackServer) -> None:
    ready(played)
    played.on("POST", PATH, Answer(403, {"error": {"message": "You are not authorized"}}))
    with pytest.raises(Terminal, match="not authorized"):
        played.cloud().credentials.create_credential(name="a-ccm", use=Use.VOLUMES, description="d")
    assert len(played.made("POST", PATH)) == 1


@pytest.mark.parametrize(("status", "message"), [(409, "Duplicate entry"), (500, "An unexpected error prevented the server")])
def test_two_credentials_that_bring_the_same_rule_at_the_same_time(played: OpenStackServer, status: int, message: str) -> None:
    ready(played)
    played.on("POST", PATH, Answer(status, {"error": {"message": message}}), made())
    assert played.cloud().credentials.create_credential(name="a-ccm", use=Use.VOLUMES, description="d").notes == ()


def test_a_credential_whose_answer_was_lost_is_not_asked_for_again(played: OpenStackServer) -> None:
    ready(played)
    played.on("POST", PATH, Answer(drop=True), made())
    with pytest.raises(Unreachable):
        played.cloud().credentials.create_credential(name="a-ccm", use=Use.VOLUMES, description="d")
    assert len(played.made("POST", PATH)) == 1


def test_credentials_are_listed_with_their_end(played: OpenStackServer) -> None:
    rows = [
        {"id": "i", "name": "a-ccm", "expires_at": "2027-03-01T10:00:00.000000", "access_rules": [{"id": "r"}]},
        {"id": "j", "name": "a-csi", "expires_at": None},
        {"id": "k", "name": "b"},
    ]
    played.on("GET", PATH, {"application_credentials": rows, "links": {}})
    assert played.cloud().credentials.credentials(name_prefix="a-") == [
        Credential("i", "a-ccm", limited=True, expires=datetime(2027, 3, 1, 10, tzinfo=UTC)),
        Credential("j", "a-csi"),
    ]
