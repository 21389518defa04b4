"""What an OpenStack offers, by its catalog and by Neutron's extensions, and what a plan says of a cloud that offers less."""

from __future__ import annotations

from collections.abc import Collection, Generator
from pathlib import Path
from typing import Any

import pytest

from moyai.cloud.capabilities import ALTERNATIVES, Capability, CapabilityAbsent
from moyai.core.errors import MoyaiError, Terminal, UsageError
from moyai.core.paths import Paths
from moyai.lifecycle.up import preview
from moyai.plan.graph import Plan
from moyai.spec.load import parse
from tests.unit.openstack_server import NETWORK_EXTENSIONS, OpenStackServer, openstack_server

NET = "/network/v2.0"
TAG = "moyai.cluster=0123456789"
#: Extension → the capabilities that stand on it.
STANDS_ON: dict[str, set[Capability]] = {
    "router": {Capability.ROUTERS, Capability.FLOATING_IPS},
    "extraroute": {Capability.POD_ROUTING},
    "standard-attr-tag": {Capability.TAGS},
    "quotas": {Capability.QUOTAS},
}
NEUTRON = set[Capability]().union(*STANDS_ON.values())


@pytest.fixture
def played() -> Generator[OpenStackServer]:
    with openstack_server() as server:
        yield server


@pytest.mark.parametrize("extension", list(STANDS_ON))
def test_a_capability_whose_extension_neutron_lacks_is_absent(played: OpenStackServer, extension: str) -> None:
    played.has(without={extension})
    assert frozenset(Capability) - ALTERNATIVES - played.cloud().capabilities() == STANDS_ON[extension]


def test_without_neutron_its_capabilities_are_absent_and_nothing_is_asked(played: OpenStackServer) -> None:
    played.without = frozenset({"network"})
    assert frozenset(Capability) - ALTERNATIVES - played.cloud().capabilities() == NEUTRON
    assert not [one for one in played.requests if one.path.startswith(NET)]


def test_extensions_are_asked_for_once(played: OpenStackServer) -> None:
    played.on("GET", f"{NET}/routers", {"routers": []})
    played.on("GET", f"{NET}/floatingips", {"floatingips": []})
    cloud = played.cloud()
    for _ in range(2):
        assert cloud.capabilities() == frozenset(Capability) - ALTERNATIVES
        cloud.routers.routers(tag=TAG)
        cloud.addresses.floating_ips()
    assert len(played.made("GET", NETWORK_EXTENSIONS)) == 1


def test_where_nothing_can_be_tagged_nothing_is_made_with_tags_or_listed_by_them(played: OpenStackServer) -> None:
    played.has(without={"standard-attr-tag"})
    networks = played.cloud().networks
    assert networks.networks(tag=TAG) == networks.ports(tag=TAG) == []
    with pytest.raises(CapabilityAbsent, match="has no tags"):
        networks.create_network(name="n", tags=[TAG])
    assert {one.path for one in played.requests if one.path.startswith(NET)} == {NETWORK_EXTENSIONS}


# what a plan says


def furnished(played: OpenStackServer, *extensions: str, without: Collection[str] = ()) -> None:
    """The answers of a cloud in which a cluster can be built, but for its extensions."""
    played.has("allowed-address-pairs", *extensions, without=without)
    version = parse("").spec.kubernetes_version
    image = {"id": "i", "name": f"moyai-node-{version}", "status": "active", "moyai_kubernetes_version": version}
    flavors = [
        {"id": name, "name": f"m1.{name}", "vcpus": 2, "ram": 4096, "disk": 20, "OS-FLV-DISABLED:disabled": False}
        for name in ("small", "medium")
    ]
    external: dict[str, Any] = {"id": "x", "name": "public", "router:external": True, "tags": []}
    answers: dict[str, dict[str, Any]] = {
        f"{NET}/networks": {"networks": [external]},
        f"{NET}/subnets": {"subnets": []},
        f"{NET}/security-groups": {"security_groups": []},
        f"{NET}/ports": {"ports": []},
        f"{NET}/routers": {"routers": []},
        f"{NET}/floatingips": {"floatingips": []},
        f"{NET}/quotas/p1": {"quota": {}},
        "/compute/v2.1/servers/detail": {"servers": []},
        "/compute/v2.1/os-server-groups": {"server_groups": []},
        "/compute/v2.1/os-keypairs": {"keypairs": []},
        "/compute/v2.1/flavors/detail": {"flavors": flavors},
        "/compute/v2.1/os-availability-zone": {
            "availabilityZoneInfo": [{"zoneName": "nova", "zoneState": {"available": True}}]
        },
        "/compute/v2.1/limits": {"limits": {"absolute": {}}},
        "/image/v2/images": {"images": [image]},
        "/v3/users/u1/application_credentials": {"application_credentials": []},
    }
    for path, answer in answers.items():
        played.on("GET", path, answer)


def planned(played: OpenStackServer, folder: Path, *, mode: str = "routes") -> Plan:
    cluster = parse(f"spec: {{cloud: far, network: {{mode: {mode}}}}}")
    return preview(cluster, played.cloud(), paths=Paths(folder / "cache", folder / "state"))


ABSENT = {
    "extraroute": (
        UsageError,
        "spec.network.mode: 'routes', should be 'host-gw': cloud far has no pod routes in the router",
    ),
    "router": (
        Terminal,
        "cloud far has no routers: moyai connects machines by no other network than one behind a router: "
        "name a network of yours in spec.network.existing, or use a cloud with routers",
    ),
    "standard-attr-tag": (
        Terminal,
        "cloud far has no tags: moyai could not distinguish the cluster's objects from those of others: use a cloud with tags",
    ),
}


@pytest.mark.parametrize("extension", list(ABSENT))
def test_a_plan_names_what_neutron_lacks_before_anything_is_made(
    played: OpenStackServer, tmp_path: Path, extension: str
) -> None:
    furnished(played, without={extension} | ({"extraroute"} if extension == "router" else set()))
    kind, message = ABSENT[extension]
    mode = "host-gw" if extension == "router" else "routes"
    with pytest.raises(MoyaiError) as caught:
        planned(played, tmp_path, mode=mode)
    assert (type(caught.value), str(caught.value)) == (kind, message)
    changes = {
        one.path.rpartition("/")[2] for one in played.requests if one.method != "GET" and not one.path.startswith("/v3/")
    }
    # what the user may make is asked for by requests that nobody can carry out
    assert changes <= {"routers", "floatingips", "ports"}
    assert not [one for one in played.requests if one.method == "POST" and "tags" in str(one.json)]


def test_a_cluster_does_without_quotas_and_pod_routes(played: OpenStackServer, tmp_path: Path) -> None:
    furnished(played, without={"quotas", "extraroute"})
    plan = planned(played, tmp_path, mode="auto")
    assert plan.steps
    assert plan.notes[0].startswith("spec.network.mode: auto is host-gw here")
    assert not [one for one in played.requests if "quotas" in one.path]
