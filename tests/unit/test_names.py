"""Names and tags in the cloud: each function that takes one apart is the inverse of the function that makes it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from moyai.cloud.capabilities import Cloud
from moyai.core.ids import POOL_KEY, ClusterIdentity, cluster_tag, tag_owner
from moyai.kube.objects import parse_service
from moyai.lifecycle import observe
from moyai.plan import keys
from moyai.plan.load_balancer.names import (
    load_balancer_name,
    names_service,
    names_service_of,
    service_address_description,
    service_of_address,
)
from moyai.plan.node_ports import rule_description, service_of_rule
from moyai.plan.nodes import cluster_of_node, node_name, pool_of_node
from tests.unit.ccm_world import service_object
from tests.unit.lifecycle_world import World

#: Words of names and separators stand in clusters' names as well.
CLUSTERS = ("demo", "a-network", "demo-control-plane", "demo-workers-0", "x-router-x")
POOLS = ("control-plane", "workers", "a-0", "control-plane-x")


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_the_cluster_is_read_from_the_name_of_its_object(cluster: str) -> None:
    for key in (keys.NETWORK, keys.SUBNET, keys.ROUTER, keys.security_group("worker")):
        assert keys.cluster_of(keys.object_name(cluster, key), key) == cluster
    assert keys.cluster_of("renamed", keys.NETWORK) is None
    assert keys.cluster_of("demo-network-old", keys.NETWORK) is None
    assert keys.cluster_of("-network", keys.NETWORK) is None


@pytest.mark.parametrize("cluster", CLUSTERS)
@pytest.mark.parametrize("pool", POOLS)
def test_cluster_and_pool_are_read_from_the_name_of_a_node(cluster: str, pool: str) -> None:
    name = node_name(cluster, pool, ordinal=12)
    assert cluster_of_node(name, pool) == cluster
    assert pool_of_node(name, cluster) == pool
    for other in (f"{cluster}-{pool}", f"{cluster}-{pool}-x", "vm-1", "vm"):
        assert cluster_of_node(other, "none") is None
        assert pool_of_node(other, "none") is None


def test_the_machine_is_read_from_the_description_of_its_address() -> None:
    for machine in ("demo-bastion", "demo-machine-x"):
        assert keys.machine_of_address(keys.machine_address_description("abc", machine), "abc") == machine
    assert keys.machine_of_address(keys.api_address_description("abc"), "abc") is None
    assert keys.machine_of_address(keys.machine_address_description("abc", "demo-bastion"), "other") is None


def test_a_unique_name_is_known_by_its_uid() -> None:
    for name in (keys.unique_name("demo", "abc"), keys.unique_name("demo", "abc", what="volumes")):
        assert keys.is_unique_name(name, "abc")
        assert not keys.is_unique_name(name, "bc")


def test_the_owner_is_read_from_the_clusters_tag_alone() -> None:
    assert tag_owner(cluster_tag("abc")) == "abc"
    assert [tag_owner(tag) for tag in ("moyai.keep=true", "moyai.cluster", "moyai.cluster=", "x=moyai.cluster")] == [None] * 4


def test_the_service_is_read_from_what_its_floating_ip_and_rules_say() -> None:
    cluster, other = ClusterIdentity("demo", "abc"), ClusterIdentity("demo", "abd")
    assert service_of_address(cluster, service_address_description(cluster, "shop/of cluster demo")) == "shop/of cluster demo"
    assert service_of_rule(cluster, rule_description(cluster, "shop/web")) == "shop/web"
    assert service_of_address(cluster, service_address_description(other, "shop/web")) is None
    assert service_of_address(cluster, keys.api_address_description("abc")) is None
    assert service_of_rule(cluster, rule_description(other, "shop/web")) is None


def test_a_services_name_is_known_for_one_and_for_which_cluster() -> None:
    name = load_balancer_name(ClusterIdentity("demo", "abc"), parse_service(service_object()))
    assert names_service(name)
    assert names_service_of("demo", name)
    assert not names_service_of("dem", name)
    assert not names_service("demo-lb")


def names_found(cloud: Cloud) -> dict[str, str]:
    return {uid: one.name for uid, one in observe.find_clusters(cloud).items()}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_a_cluster_without_a_record_is_found_by_any_of_its_parts(world: World) -> None:
    uid = world.up().uid
    store = world.cloud.store
    assert names_found(world.cloud) == {uid: "quickstart"}
    # somebody has renamed the network: the router says the cluster's name
    for network in [one for one in store.networks if uid in str(one.tags)]:
        store.networks.put(replace(network, name="mine"))
    assert names_found(world.cloud) == {uid: "quickstart"}
    for router in list(store.routers):
        store.routers.drop(router.id)
    for network in [one for one in store.networks if uid in str(one.tags)]:
        store.networks.drop(network.id)
    for server in [one for one in store.servers if one.metadata[POOL_KEY] == "control-plane"]:
        store.servers.drop(server.id)
    # workers alone
    assert names_found(world.cloud) == {uid: "quickstart"}


def test_a_cluster_whose_parts_were_all_renamed_is_found_under_such_a_name(world: World) -> None:
    uid = world.up().uid
    store = world.cloud.store
    for network in [one for one in store.networks if uid in str(one.tags)]:
        store.networks.put(replace(network, name="mine"))
    for router in list(store.routers):
        store.routers.put(replace(router, name="mine"))
    for server in list(store.servers):
        store.servers.put(replace(server, name="mine"))
    assert names_found(world.cloud) == {uid: "mine"}
