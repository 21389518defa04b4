"""Reads from the cloud what the planner looks at: side by side, two rounds, since some lists need the network's id."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from moyai.cloud.capabilities import Cloud
from moyai.cloud.model import Port
from moyai.core.errors import MoyaiError, NotFound
from moyai.core.ids import CLUSTER_TAG, cluster_tag
from moyai.plan import steps as s
from moyai.plan.cluster import object_name
from moyai.plan.observed import Observed, owner

WORKERS = 8


def take(
    cloud: Cloud,
    *,
    name: str,
    uid: str,
    plan_for: str = "up",
    kube_nodes: frozenset[str] | None = None,
) -> Observed:
    """The cloud as it is, for cluster ``name`` with this UID. ``plan_for`` ``down``: no flavors, images and quotas."""
    tag = cluster_tag(uid)
    network, compute = cloud.network, cloud.compute
    first: dict[str, Callable[[], Any]] = {
        "networks": network.networks,
        "routers": network.routers,
        "groups": network.security_groups,
        "floating_ips": network.floating_ips,
        "tagged_ports": lambda: network.ports(tag=tag),
        "servers": lambda: compute.servers(tag=tag),
        "keypairs": compute.keypairs,
        "credentials": lambda: cloud.identity.application_credentials(name_prefix=f"{name}-"),
    }
    if plan_for == "up":
        first |= {
            "flavors": compute.flavors,
            "zones": compute.zones,
            "images": cloud.images.images,
            "compute_quotas": compute.quotas,
            "network_quotas": network.quotas,
        }
    else:
        first |= {
            "load_balancers": lambda: _without(cloud.load_balancers.load_balancers),
            "volumes": lambda: _without(cloud.volumes.volumes),
            "snapshots": lambda: _without(cloud.volumes.snapshots),
        }
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="snapshot") as pool:
        got = _all(pool, first)
        own_name = object_name(name, s.NETWORK)
        ids = [n.id for n in got["networks"] if tag in n.tags or (n.name == own_name and owner(n) is None)]
        group_names = {object_name(name, s.group_key("control-plane")), object_name(name, s.group_key("worker"))}
        groups = [g.id for g in got["groups"] if tag in g.tags or (g.name in group_names and owner(g) is None)]
        routers = [r.id for r in got["routers"] if tag in r.tags]
        second: dict[str, Callable[[], Any]] = {}
        for identity in ids:
            second[f"subnets {identity}"] = lambda i=identity: network.subnets(network_id=i)
            second[f"ports {identity}"] = lambda i=identity: network.ports(network_id=i)
        if groups:
            second["rules"] = lambda: network.security_group_rules(groups)
        if routers:
            second["ports of routers"] = lambda: network.ports(device_ids=routers)
        more = _all(pool, second)
    ports: dict[str, Port] = {port.id: port for port in got["tagged_ports"]}
    for key, found in more.items():
        if key.startswith("ports "):
            ports |= {port.id: port for port in found}
    subnets = {subnet.id: subnet for key, found in more.items() if key.startswith("subnets ") for subnet in found}
    return Observed(
        flavors=tuple(got.get("flavors", ())),
        zones=tuple(sorted(got.get("zones", ()))),
        images=tuple(got.get("images", ())),
        networks=tuple(got["networks"]),
        subnets=tuple(subnets.values()),
        routers=tuple(got["routers"]),
        ports=tuple(ports.values()),
        groups=tuple(got["groups"]),
        rules=tuple(more.get("rules", ())),
        floating_ips=tuple(got["floating_ips"]),
        servers=tuple(got["servers"]),
        volumes=tuple(got.get("volumes", ())),
        snapshots=tuple(got.get("snapshots", ())),
        load_balancers=tuple(got.get("load_balancers", ())),
        keypairs=tuple(got["keypairs"]),
        credentials=got["credentials"],
        quotas=(*got.get("compute_quotas", ()), *got.get("network_quotas", ())),
        kube_nodes=kube_nodes,
    )


def find_clusters(cloud: Cloud) -> dict[str, str]:
    """UID → name of every cluster that the cloud holds parts of, whether this machine has its record or not."""
    found: dict[str, str] = {}
    for network in cloud.network.networks():
        uid = owner(network)
        if uid:
            found[uid] = network.name.removesuffix(f"-{s.NETWORK}")
    for router in cloud.network.routers():
        uid = owner(router)
        if uid:
            found.setdefault(uid, router.name.removesuffix(f"-{s.ROUTER}"))
    for server in cloud.compute.servers():
        uid = server.metadata.get(CLUSTER_TAG)
        if uid:
            found.setdefault(uid, server.name.rpartition("-")[0].removesuffix("-control-plane"))
    return found


def _all(pool: ThreadPoolExecutor, calls: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    futures = {name: pool.submit(call) for name, call in calls.items()}
    return {name: future.result() for name, future in futures.items()}


def _without(call: Callable[[], list[Any]]) -> list[Any]:
    """Not every cloud has load balancers or volumes; one without has none of ours."""
    try:
        return call()
    except NotFound:
        return []
    except MoyaiError as error:
        if "catalog" in str(error) or "no service" in str(error).lower():
            return []
        raise
