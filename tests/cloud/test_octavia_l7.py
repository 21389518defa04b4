"""L7 policies, additional VIPs and the provider's other names, asked for through the API of the local cloud."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from openstack import exceptions

from moyai.linux.process import run
from tests import sdk
from tests.cloud.lb_site import PORT, Site, curl, first_answer, name_of, site

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="looks into the cloud's namespaces"),
    *sdk.REMOVALS,
]


@pytest.fixture(scope="module")
def place(cloud_name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(cloud_name, tmp_path_factory.mktemp("lb")) as made:
        yield made


def answer(address: str, path: str = "/", *options: str) -> str:
    """Status and Location of what the host gets from there."""
    words = ["curl", "-s", "-m", "3", "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", *options]
    return run([*words, f"http://{address}{path}"], check=False).stdout.strip()


def rule(kind: str, value: str, *, compare: str = "EQUAL_TO", **fields: Any) -> dict[str, Any]:
    return {"type": kind, "compare_type": compare, "value": value, **fields}


def test_policies_made_with_the_load_balancer_and_one_by_one(place: Site) -> None:
    api = place.user.load_balancer
    first, second = place.members
    whole = place.tree(protocol="HTTP")
    whole["default_pool"]["members"] = [{"address": first, "protocol_port": PORT, "subnet_id": place.subnet.id}]
    other = {
        "name": "other",
        "protocol": "HTTP",
        "lb_algorithm": "ROUND_ROBIN",
        "members": [{"address": second, "protocol_port": PORT, "subnet_id": place.subnet.id}],
    }
    whole["l7policies"] = [
        {"action": "REDIRECT_TO_POOL", "redirect_pool": other, "rules": [rule("PATH", "/other", compare="STARTS_WITH")]},
        {"action": "REJECT", "rules": [rule("PATH", "/other/gone"), rule("HEADER", "it's-#-%[src]", key="X-A", invert=True)]},
    ]
    lb = place.wait(place.create(whole))
    address = place.floating(lb)
    first_answer(address)
    assert {name_of(curl(address)) for _ in range(3)} == {first}
    assert {name_of(run(["curl", "-s", "-m", "3", f"http://{address}/other/x"]).stdout) for _ in range(3)} == {second}
    assert answer(address, "/other/gone") == "403"
    assert answer(address, "/other/gone", "-H", "X-A: it's-#-%[src]") == "200"

    listener = api.get_load_balancer(lb.id).listeners[0]["id"]
    redirect = api.create_l7_policy(
        listener_id=listener, action="REDIRECT_TO_URL", redirect_url="http://elsewhere.example/%20?a=%5B'", position=1
    )
    place.wait(lb)
    assert answer(address, "/go") == "200"  # a policy without a rule applies to nothing
    made = api.create_l7_rule(redirect, **rule("PATH", "/go"))
    place.wait(lb)
    assert answer(address, "/go") == "302 http://elsewhere.example/%20?a=%5B'"
    changed = {"action": "REDIRECT_PREFIX", "redirect_prefix": "https://other.example", "redirect_http_code": 308}
    exceptions.raise_from_response(api.put(f"/lbaas/l7policies/{redirect.id}", json={"l7policy": changed}))
    place.wait(lb)
    assert answer(address, "/go?x") == "308 https://other.example/go?x"
    answered = api.put(f"/lbaas/l7policies/{redirect.id}/rules/{made.id}", json={"rule": rule("PATH", "/away")})
    exceptions.raise_from_response(answered)
    place.wait(lb)
    assert answer(address, "/go") == "200"
    assert answer(address, "/away") == "308 https://other.example/away"
    shown = api.get_l7_policy(redirect.id)
    assert (shown.provisioning_status, shown.operating_status) == ("ACTIVE", "ONLINE")
    api.delete_l7_rule(made, redirect)
    place.wait(lb)
    api.delete_l7_policy(redirect)
    place.wait(lb)
    assert answer(address, "/away") == "200"
    assert len(list(api.l7_policies(listener_id=listener))) == 2
    rejecting = next(one for one in api.l7_policies(listener_id=listener) if one.action == "REJECT")
    with pytest.raises(exceptions.HttpException, match="regular expression"):  # which Python knows and HAProxy does not
        api.create_l7_rule(rejecting, **rule("PATH", r"\u0041", compare="REGEX"))
    assert api.get_load_balancer(lb.id).provisioning_status == "ACTIVE"
    api.delete_listener(listener)
    place.wait(lb)
    assert list(api.l7_policies(listener_id=listener)) == []


def test_additional_vips_answer(place: Site) -> None:
    net, api = place.user.network, place.user.load_balancer
    four = net.create_subnet(name=place.name, network_id=place.network.id, ip_version=4, cidr="10.78.0.0/24")
    place.undo.callback(net.delete_subnet, four)
    six = net.create_subnet(name=place.name, network_id=place.network.id, ip_version=6, cidr="fd00:78::/64")
    place.undo.callback(net.delete_subnet, six)
    net.add_interface_to_router(place.router, subnet_id=four.id)
    place.undo.callback(net.remove_interface_from_router, place.router, subnet_id=four.id)
    vips = [{"subnet_id": four.id, "ip_address": "10.78.0.77"}, {"subnet_id": six.id}]
    lb = place.wait(place.create(place.tree(), additional_vips=vips))
    shown = {one["subnet_id"]: one["ip_address"] for one in api.get_load_balancer(lb.id).additional_vips}
    assert shown[four.id] == "10.78.0.77"
    port = net.get_port(lb.vip_port_id)
    assert {one["ip_address"] for one in port.fixed_ips} == {lb.vip_address, *shown.values()}
    # from the host by the router's gateway of each IPv4 subnet; beside them, in the IPv6 subnet itself
    for vip in (lb.vip_address, shown[four.id]):
        address = place.floating(lb, vip)
        assert first_answer(address) in place.members, vip
    member = next(iter(place.members.values()))
    inside = [*place.inside, "ip", "netns", "exec", member]
    run([*inside, "ip", "address", "add", "fd00:78::f00/64", "dev", "eth0", "nodad"])
    assert name_of(run([*inside, "curl", "-s", "-m", "3", f"http://[{shown[six.id]}]/"]).stdout) in place.members
    place.delete(lb.id)
    assert place.admin.network.find_port(lb.vip_port_id) is None


@pytest.mark.parametrize("provider", ["amphora", "octavia", "moyai"])
def test_each_name_of_the_provider_gives_a_load_balancer_that_keeps_the_name(place: Site, provider: str) -> None:
    assert provider in {one.name for one in place.user.load_balancer.providers()}
    lb = place.wait(place.create(place.tree(), provider=provider))
    assert lb.provider == provider
    assert first_answer(place.floating(lb)) in place.members
    place.delete(lb.id)


def test_flavors_for_amphorae_are_taken_and_others_refused(place: Site) -> None:
    api = place.admin.load_balancer
    profile = api.create_flavor_profile(
        name=place.name,
        provider_name="amphora",
        flavor_data='{"loadbalancer_topology": "ACTIVE_STANDBY", "compute_flavor": "1"}',
    )
    place.undo.callback(api.delete_flavor_profile, profile)
    flavor = api.create_flavor(name=place.name, flavor_profile_id=profile.id, is_enabled=True)
    place.undo.callback(api.delete_flavor, flavor)
    lb = place.wait(place.create(place.tree(), flavor_id=flavor.id))
    assert (lb.provider, lb.flavor_id) == ("amphora", flavor.id)
    place.delete(lb.id)
    with pytest.raises(exceptions.HttpException, match="sriov_vip"):
        api.create_flavor_profile(name="no", provider_name="amphora", flavor_data='{"sriov_vip": true}')
