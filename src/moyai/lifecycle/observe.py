"""Reads from cloud and Kubernetes what planners look at. The cloud is read side by side in two rounds, since some lists need
the network's id."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from moyai.agent import manifests as agent
from moyai.cloud.capabilities import Capability, Cloud
from moyai.cloud.credentials import OwnLogin
from moyai.cloud.kind import VolumeNames
from moyai.cloud.load_balancers import BalancerState, LoadBalancer
from moyai.cloud.model import Flavor, Image, Network, Port, Quota, Server, Subnet
from moyai.cloud.service_balancers import HasServiceBalancers
from moyai.core.errors import MoyaiError, NotFound, PermissionRefused
from moyai.core.ids import MACHINE_KEY, POOL_KEY, REMOVAL_KEY, ROLE_KEY, Role, cluster_tag
from moyai.kube.objects import Node, object_key, parse_daemon_set, parse_deployment, parse_node, parse_volume
from moyai.kube.objects.node import EXCLUDE_LABEL
from moyai.kube.quick import KubeApi
from moyai.kube.resources import DAEMON_SETS, DEPLOYMENTS, KUBE_SYSTEM, NODES, VOLUMES
from moyai.lifecycle.drain import is_stopped
from moyai.lifecycle.host_address import towards
from moyai.lifecycle.machine_notes import MachineNotes
from moyai.lifecycle.services import balanced
from moyai.lifecycle.storage_class import reclaim_policy
from moyai.lifecycle.tokens import token_ids
from moyai.lifecycle.version_objects import kubeadm_version
from moyai.plan import keys
from moyai.plan.existing import GROUPS
from moyai.plan.given_network import is_named
from moyai.plan.nodes import CONTROL_PLANE_POOL, cluster_of_node, pool_of_node
from moyai.plan.observed import AccountFacts, KubeFacts, KubeNode, KubeUse, Observed, owner, owns, server_owner
from moyai.spec.existing_network import NONE_EXISTING, ExistingNetwork

WORKERS = 8


@dataclass(frozen=True)
class Answers:
    """What somebody has asked the cloud already, so that ``take`` does not ask it again; None: not asked, or not answered."""

    networks: tuple[Network, ...] | None = None
    subnets: tuple[Subnet, ...] | None = None
    flavors: tuple[Flavor, ...] | None = None
    zones: tuple[str, ...] | None = None
    images: tuple[Image, ...] | None = None
    quotas: tuple[Quota, ...] | None = None
    login: OwnLogin | None = None
    balancer_providers: tuple[str, ...] | None = None
    sources_allowed: bool | None = None
    permitted: frozenset[Capability] | None = None


def take(
    cloud: Cloud,
    *,
    name: str,
    uid: str,
    plan_for: str = "up",
    ask_providers: bool = False,
    ask_login: bool = False,
    ask_rights: bool = False,
    existing: ExistingNetwork = NONE_EXISTING,
    ask_balancer: bool = False,
    ask_types: bool = False,
    answers: Answers = Answers(),
    notes: MachineNotes | None = None,
) -> Observed:
    """The cloud as it is, for cluster ``name`` with this UID. ``plan_for`` ``down``: no flavors, images and quotas.

    ``ask_providers``: whether it matters which load balancer providers the cloud has. ``ask_login``: whether it matters what
    the user's own login can do. ``ask_rights``: whether it matters if the user may make routers, floating IPs and ports that
    send from other addresses. ``existing``: networks of the user's that are to be used.
    ``ask_balancer``: whether a load balancer of the cloud is to stand before the API. ``ask_types``: whether it matters which
    volume types there are. ``answers``: what is not asked again. ``notes``: of the cluster's machines, for a cloud that keeps
    no metadata.
    """
    known = {name: answer for name, answer in vars(answers).items() if answer is not None}
    tag = cluster_tag(uid)
    up, machines = plan_for == "up", cloud.machines
    everywhere: dict[str, Callable[[], Any]] = {
        "networks": cloud.networks.networks,
        "groups": cloud.firewall.security_groups,
        "tagged_ports": lambda: cloud.networks.ports(tag=tag),
        "servers": lambda: machines.servers(tag=tag),
        "keypairs": machines.keypairs,
    }
    if up:
        everywhere |= {
            "flavors": machines.flavors,
            "zones": machines.zones,
            "images": cloud.images.images,
            "account": lambda: _account(cloud),
        }
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="snapshot") as pool:
        asked = _ask(pool, everywhere, known=known)
        # meanwhile: not every cloud says without a call which capabilities it has
        offered = cloud.capabilities()
        asks = up and ask_rights and answers.permitted is None
        rights = _ask(pool, _rights(cloud, offered, existing=existing) if asks else {}, known=())
        if up and ask_balancer and Capability.LOAD_BALANCERS in offered:
            asked |= _ask(pool, {"api_balancer": lambda: api_balancer(cloud, name, uid=uid)}, known=known)
        keeps = Capability.METADATA in offered
        asked |= _ask(
            pool,
            {
                **_of_capabilities(cloud, offered, name=name, tag=tag),
                **(
                    _of_up(cloud, offered, ask_providers=ask_providers, ask_login=ask_login, ask_types=ask_types)
                    if up
                    else _of_down(cloud, offered, uid=uid)
                ),
            },
            known=known,
        )
        got = {**known, **{name: future.result() for name, future in asked.items()}}
        own_name = keys.object_name(name, keys.NETWORK)
        ids = [
            n.id
            for n in got["networks"]
            if tag in n.tags or (n.name == own_name and owner(n) is None) or is_named(existing.network, n)
        ]
        if not up:
            # without a record, the ports alone lead to a network of the user's
            outside = {n.id for n in got["networks"] if n.external}
            ids = list(dict.fromkeys([*ids, *(p.network_id for p in got["tagged_ports"] if p.network_id not in outside)]))
        if up and ask_rights and "sources_allowed" not in got:
            given = next((n.id for n in got["networks"] if is_named(existing.network, n)), "")
            got["sources_allowed"] = cloud.networks.sources_allowed(given)
        offered -= {Capability(name) for name, may in rights.items() if not may.result()}
        offered &= answers.permitted or offered
        group_names = {keys.object_name(name, keys.security_group(role)) for role in GROUPS}
        groups = [g.id for g in got["groups"] if tag in g.tags or (g.name in group_names and owner(g) is None)]
        routers = [r.id for r in got.get("routers", ()) if tag in r.tags or is_named(existing.router, r)]
        external = [n.id for n in got["networks"] if n.external] if up else []
        # a router of the user's may have any subnet
        every = [pool.submit(cloud.networks.subnets)] if up and existing.router else []
        of_networks = () if answers.subnets is not None else (*ids, *external)
        listed_subnets = [*every, *(pool.submit(cloud.networks.subnets, network_id=identity) for identity in of_networks)]
        listed_ports = [pool.submit(cloud.networks.ports, network_id=identity) for identity in ids]
        if routers:
            listed_ports.append(pool.submit(cloud.networks.ports, device_ids=routers))
        rules = pool.submit(cloud.firewall.security_group_rules, groups) if groups else None
        ports: dict[str, Port] = {port.id: port for port in got["tagged_ports"]}
        ports |= {port.id: port for listed in listed_ports for port in listed.result()}
        subnets = {subnet.id: subnet for subnet in answers.subnets or ()}
        subnets |= {subnet.id: subnet for listed in listed_subnets for subnet in listed.result()}
    servers = tuple(got["servers"] if keeps else told_servers(got["servers"], cluster=name, notes=notes))
    return Observed(
        flavors=tuple(got.get("flavors", ())),
        zones=tuple(sorted(got.get("zones", ()))),
        images=tuple(got.get("images", ())),
        networks=tuple(got["networks"]),
        subnets=tuple(subnets.values()),
        routers=tuple(got.get("routers", ())),
        ports=tuple(ports.values()),
        groups=tuple(got["groups"]),
        rules=tuple(rules.result() if rules else ()),
        floating_ips=tuple(got.get("floating_ips", ())),
        servers=tuple(one for one in servers if MACHINE_KEY not in one.metadata),
        machines=tuple(one for one in servers if MACHINE_KEY in one.metadata),
        volumes=tuple(got.get("volumes", ())),
        snapshots=tuple(got.get("snapshots", ())),
        load_balancers=tuple(got.get("load_balancers", ())),
        entrance=got.get("entrance"),
        api_balancer=got.get("api_balancer"),
        served=got.get("served", frozenset()),
        keypairs=tuple(got["keypairs"]),
        volume_types=tuple(got.get("volume_types", ())),
        spread_groups=tuple(got.get("spread_groups", ())),
        credentials={one.name: one.id for one in got.get("credentials", ())},
        credential_ends={one.name: one.expires for one in got.get("credentials", ()) if one.expires},
        quotas=tuple(got.get("quotas", ())),
        balancer_providers=tuple(got.get("balancer_providers", ())),
        host_addresses=_host_addresses(subnets.values(), external),
        capabilities=offered,
        account=got.get("account", AccountFacts()),
        login=got.get("login", OwnLogin()),
        sources_allowed=got.get("sources_allowed", True),
        sources_of_port=cloud.kind.sources_of_port,
        needs_tags=cloud.kind.needs_tags,
        starts_by_script=cloud.kind.starts_by_script,
    )


def told_servers(servers: Iterable[Server], *, cluster: str, notes: MachineNotes | None) -> Iterator[Server]:
    """Servers of a cloud that keeps no metadata, with what the notes know, and else with what their names say."""
    for one in servers:
        pool = pool_of_node(one.name, cluster)
        known = notes.metadata(one.name) if notes else {}
        if pool and not known:
            known = {POOL_KEY: pool, ROLE_KEY: "control-plane" if pool == CONTROL_PLANE_POOL else "worker"}
        yield replace(one, metadata={**known, **one.metadata})


def _of_capabilities(cloud: Cloud, offered: Collection[Capability], *, name: str, tag: str) -> dict[str, Callable[[], Any]]:
    """Lists of objects that only some clouds have."""
    calls: dict[str, Callable[[], Any]] = {}
    if Capability.ROUTERS in offered:
        calls["routers"] = cloud.routers.routers
    if Capability.SPREAD in offered:
        calls["spread_groups"] = cloud.machines.spread_groups
    if Capability.FLOATING_IPS in offered:
        calls["floating_ips"] = cloud.addresses.floating_ips
    if Capability.ENTRANCES in offered:
        calls["entrance"] = lambda: cloud.entrances.entrance(name=keys.object_name(name, keys.ENTRANCE), tags=[tag])
    if Capability.CREDENTIALS in offered:
        calls["credentials"] = lambda: cloud.credentials.credentials(name_prefix=f"{name}-")
    return calls


def permitted(cloud: Cloud) -> frozenset[Capability]:
    """The capabilities that the cloud has and that this user may use."""
    offered = cloud.capabilities()
    return offered - {Capability(name) for name, may in _rights(cloud, offered, existing=NONE_EXISTING).items() if not may()}


def _rights(cloud: Cloud, offered: Collection[Capability], *, existing: ExistingNetwork) -> dict[str, Callable[[], bool]]:
    """Of capabilities that the cloud has and that objects of the user's do not stand for: whether this user may use them."""
    calls: dict[str, Callable[[], bool]] = {}
    if Capability.ROUTERS in offered and not (existing.network or existing.router):
        calls[Capability.ROUTERS] = cloud.routers.permitted
    if Capability.FLOATING_IPS in offered:
        calls[Capability.FLOATING_IPS] = cloud.addresses.permitted
    return calls


def _of_up(
    cloud: Cloud, offered: Collection[Capability], *, ask_providers: bool, ask_login: bool, ask_types: bool
) -> dict[str, Callable[[], Any]]:
    calls: dict[str, Callable[[], Any]] = {}
    if Capability.QUOTAS in offered:
        calls["quotas"] = cloud.quotas.quotas
    if ask_login and Capability.CREDENTIALS in offered:
        calls["login"] = cloud.credentials.own_login
    if ask_types and Capability.DISKS in offered:
        calls["volume_types"] = lambda: [one.name for one in cloud.disks.types()]
    if ask_providers and Capability.LOAD_BALANCERS in offered:
        calls["balancer_providers"] = lambda: _providers(cloud)
    return calls


def _of_down(cloud: Cloud, offered: Collection[Capability], *, uid: str) -> dict[str, Callable[[], Any]]:
    """A cloud without load balancers or volumes has none of the cluster's."""
    calls: dict[str, Callable[[], Any]] = {}
    if Capability.LOAD_BALANCERS in offered:
        calls["load_balancers"] = cloud.load_balancers.load_balancers
    if Capability.DISKS in offered:
        calls |= {"volumes": cloud.disks.volumes, "snapshots": cloud.disks.snapshots}
    if isinstance(cloud, HasServiceBalancers):
        balancers = cloud.service_balancers
        calls["served"] = lambda: balancers.cluster_balancers(uid)
    return calls


def _providers(cloud: Cloud) -> list[str]:
    try:
        return cloud.load_balancers.providers()
    except (PermissionRefused, NotFound):
        # not every account may ask, and an old cloud does not list them
        return []


def _host_addresses(subnets: Iterable[Subnet], networks: Collection[str]) -> dict[str, str]:
    """Network → this host's own address on the way there, of those networks whose addresses the cloud shows."""
    gateways = {one.network_id: one.gateway for one in subnets if one.network_id in networks and one.gateway}
    found = {network: towards(gateway) for network, gateway in gateways.items()}
    return {network: address for network, address in found.items() if address}


@dataclass(frozen=True)
class FoundCluster:
    """A cluster as the cloud shows it: whoever is logged in sees it, with its record or without."""

    name: str
    servers: tuple[Server, ...]


def find_clusters(cloud: Cloud) -> dict[str, FoundCluster]:
    """UID → every cluster that the cloud holds parts of, whether this machine has its record or not."""
    with ThreadPoolExecutor(3, thread_name_prefix="clusters") as pool:
        networks = pool.submit(cloud.networks.networks)
        routers = pool.submit(cloud.routers.routers) if Capability.ROUTERS in cloud.capabilities() else None
        servers = pool.submit(cloud.machines.servers)
        parts = [
            *((owner(one), keys.cluster_of(one.name, keys.NETWORK), one.name) for one in networks.result()),
            *((owner(one), keys.cluster_of(one.name, keys.ROUTER), one.name) for one in (routers.result() if routers else ())),
            *(
                (server_owner(one), cluster_of_node(one.name, one.metadata.get(POOL_KEY, "")), one.name)
                for one in servers.result()
            ),
        ]
    named: dict[str, str] = {}
    for uid, cluster, _ in parts:
        if uid and cluster:
            named.setdefault(uid, cluster)
    for uid, _, name in parts:
        # all that is left of the cluster has been renamed: it is found under that name
        if uid:
            named.setdefault(uid, name)
    machines: defaultdict[str | None, list[Server]] = defaultdict(list)
    for server in (one for one in servers.result() if MACHINE_KEY not in one.metadata):
        machines[server_owner(server)].append(server)
    return {uid: FoundCluster(name, tuple(machines[uid])) for uid, name in named.items()}


def _ask(pool: ThreadPoolExecutor, calls: Mapping[str, Callable[[], Any]], *, known: Collection[str]) -> dict[str, Future[Any]]:
    return {name: pool.submit(call) for name, call in calls.items() if name not in known}


def kube_facts(api: KubeApi | None, names: VolumeNames, *, ask_version: bool = False) -> KubeFacts | None:
    """What the cluster's API says; None where there is none, or none that answers. ``names``: of the cloud's CSI driver.
    ``ask_version``: whether it matters what kubeadm's configuration says."""
    if api is None:
        return None
    with ThreadPoolExecutor(5, thread_name_prefix="kube") as pool:
        listed_nodes = pool.submit(api.list, NODES, timeout=3)
        listed_deployments = pool.submit(api.list, DEPLOYMENTS, namespace=KUBE_SYSTEM, timeout=3)
        listed_daemon_sets = pool.submit(api.list, DAEMON_SETS, namespace=KUBE_SYSTEM, timeout=3)
        read_policy = pool.submit(reclaim_policy, api, names)
        listed_tokens = pool.submit(token_ids, api, timeout=3)
        read_version = pool.submit(kubeadm_version, api) if ask_version else None
        try:
            nodes = map(parse_node, listed_nodes.result())
            deployments = [parse_deployment(one) for one in listed_deployments.result()]
            found = listed_daemon_sets.result()
            daemon_sets = [parse_daemon_set(one) for one in found]
            policy = read_policy.result()
            tokens = listed_tokens.result()
            version = read_version.result() if read_version else ""
        except MoyaiError:
            return None
    workloads = (*deployments, *daemon_sets)
    proxy = next((one for one in daemon_sets if one.name == "kube-proxy"), None)
    return KubeFacts(
        nodes=tuple(map(_kube_node, nodes)),
        running=frozenset(one.name for one in workloads if one.done),
        reclaim_policy=policy,
        tokens=tokens,
        workloads=frozenset(one.name for one in workloads),
        copies={one.name: one.wanted for one in deployments},
        elected=frozenset(one.name for one in deployments if one.elected),
        proxy_image=proxy.image if proxy else "",
        proxy_held=proxy is not None and proxy.held,
        kubeadm=version,
        policies=any(agent.runs(one, "policy") for one in found if object_key(one) == f"{agent.NAMESPACE}/{agent.NAME}"),
    )


def kube_use(api: KubeApi | None, names: VolumeNames) -> KubeUse | None:
    """What must end in order inside a cluster that goes; None where there is no API, or none that answers."""
    try:
        if api is None or not api.ready(timeout=2):
            return None
        with ThreadPoolExecutor(3, thread_name_prefix="kube") as pool:
            listed_services = pool.submit(balanced, api, timeout=3)
            listed_nodes, listed_volumes = (pool.submit(api.list, kind) for kind in (NODES, VOLUMES))
            services = listed_services.result()
            nodes = [node for node in map(parse_node, listed_nodes.result()) if not node.cordoned]
            volumes = [one for one in map(parse_volume, listed_volumes.result()) if one.claim and one.driver == names.driver]
    except MoyaiError:
        return None
    return KubeUse(tuple(services), tuple(node.name for node in nodes), volumes=tuple(volumes))


def _kube_node(node: Node) -> KubeNode:
    role: Role = "control-plane" if node.control_plane else "worker"
    version = node.kubelet.removeprefix("v")
    return KubeNode(
        node.name,
        ready=bool(node.ready),
        known=not node.uninitialized,
        version=version,
        role=role,
        ready_since=node.ready_since,
        cordoned=node.cordoned,
        removing=REMOVAL_KEY in node.annotations,
        excluded=EXCLUDE_LABEL in node.labels,
        stopped=is_stopped(node),
    )


def api_balancer(cloud: Cloud, name: str, *, uid: str) -> LoadBalancer | None:
    """The load balancer before the API of cluster ``name``, with all its parts; None where there is none."""
    for one in cloud.load_balancers.load_balancers(name=keys.object_name(name, keys.API_BALANCER)):
        if owns(uid, one) and one.state is not BalancerState.DELETED:
            with suppress(NotFound):
                return cloud.load_balancers.get(one.id)
    return None


def _account(cloud: Cloud) -> AccountFacts:
    account, serves = cloud.account, isinstance(cloud, HasServiceBalancers)
    return AccountFacts(account.region(), account.login_url() or "", account.image_mirror() or "", account.reach(), serves)
