"""What policies let a user make: asked for with requests that no Neutron can carry out."""

from __future__ import annotations

from collections.abc import Callable, Generator

import pytest

from moyai.cloud.capabilities import Cloud
from moyai.cloud.survey import Feature
from tests.unit.openstack_server import Answer, OpenStackServer, openstack_server

NET = "/network/v2.0"
#: What is asked for → the call, and the collection that it sends to.
QUESTIONS: dict[str, tuple[Callable[[Cloud], bool], str]] = {
    "routers": (lambda cloud: cloud.routers.permitted(), "routers"),
    "floating IPs": (lambda cloud: cloud.addresses.permitted(), "floatingips"),
    "sources": (lambda cloud: cloud.networks.sources_allowed("n1"), "ports"),
}
#: Neutron's answer → whether the user may.
ANSWERS = {
    (403, "PolicyNotAuthorized"): False,
    (404, "NetworkNotFound"): True,
    (400, "InvalidInput"): True,
    (409, "OverQuota"): True,
}


@pytest.fixture
def played() -> Generator[OpenStackServer]:
    with openstack_server() as server:
        server.has("allowed-address-pairs")
        yield server


@pytest.mark.parametrize("question", list(QUESTIONS))
@pytest.mark.parametrize(("status", "kind"), list(ANSWERS))
def test_a_refusal_by_policy_is_told_from_a_request_that_makes_no_sense(
    played: OpenStackServer, question: str, status: int, kind: str
) -> None:
    ask, collection = QUESTIONS[question]
    body = {"NeutronError": {"type": kind, "message": "no", "detail": ""}}
    played.on("POST", f"{NET}/{collection}", Answer(status, body))
    assert ask(played.cloud()) is ANSWERS[status, kind]


def test_a_port_is_asked_for_on_a_subnet_that_does_not_exist(played: OpenStackServer) -> None:
    played.on("POST", f"{NET}/ports", Answer(404, {"NeutronError": {"type": "SubnetNotFound", "message": "no", "detail": ""}}))
    assert played.cloud().networks.sources_allowed("n1")
    sent = played.made("POST", f"{NET}/ports")[0].json["port"]
    assert sent["network_id"] == "n1"
    assert sent["allowed_address_pairs"] == [{"ip_address": "192.0.2.1"}]
    assert len(sent["fixed_ips"][0]["subnet_id"]) == 36


def test_for_a_network_of_the_users_own_that_is_yet_to_be_made_only_the_addresses_are_asked_about(
    played: OpenStackServer,
) -> None:
    """Each rule about a port's fields looks up the network's owner: an earlier one would end the request."""
    played.on("POST", f"{NET}/ports", Answer(404, {"NeutronError": {"type": "NetworkNotFound", "message": "no"}}))
    assert played.cloud().networks.sources_allowed()
    sent = played.made("POST", f"{NET}/ports")[0].json["port"]
    assert set(sent) == {"name", "network_id", "allowed_address_pairs"}


def test_an_extension_that_a_policy_keeps_from_the_user_is_no_feature(played: OpenStackServer) -> None:
    played.on("POST", f"{NET}/ports", Answer(403, {"NeutronError": {"type": "PolicyNotAuthorized", "message": "no"}}))
    assert Feature.SOURCE_ADDRESSES not in played.cloud().survey.features()


def test_networks_of_other_projects_are_known_as_such(played: OpenStackServer) -> None:
    cloud = played.cloud()
    own = cloud.account.project_id()
    rows = [{"id": "a", "name": "mine", "project_id": own}, {"id": "b", "name": "theirs", "project_id": "other"}]
    played.on("GET", f"{NET}/networks", {"networks": rows})
    assert {one.name: one.foreign for one in cloud.networks.networks()} == {"mine": False, "theirs": True}


def test_a_subnet_says_what_it_gives_away_and_whether_by_dhcp(played: OpenStackServer) -> None:
    row = {
        "id": "s",
        "name": "floor",
        "network_id": "n",
        "cidr": "10.1.0.0/24",
        "gateway_ip": "10.1.0.1",
        "enable_dhcp": False,
        "allocation_pools": [{"start": "10.1.0.50", "end": "10.1.0.60"}],
    }
    played.on("GET", f"{NET}/subnets", {"subnets": [row]})
    (found,) = played.cloud().networks.subnets()
    assert (found.pools, found.dhcp) == ((("10.1.0.50", "10.1.0.60"),), False)
