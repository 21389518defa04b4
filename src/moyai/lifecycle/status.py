"""How a cluster is: its machines as the cloud lists them, its nodes, add-ons and load balancers as Kubernetes does.

Always holds: the cloud and every kind of object in Kubernetes are read side by side, none waits for another's answer; what
cannot be asked is reported as unknown, never guessed; everything that is printed is in ``ClusterStatus`` as typed data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from moyai.cloud.capabilities import Cloud
from moyai.cloud.credentials import Credential
from moyai.cloud.model import Power, Server
from moyai.core.clock import Clock, SystemClock
from moyai.core.errors import MoyaiError, NotFound
from moyai.core.ids import MACHINE_KEY, POOL_KEY, REMOVAL_KEY, RESTORED, cluster_tag
from moyai.core.keys import Kind
from moyai.kube.objects import Node, Service, parse_daemon_set, parse_deployment, parse_node
from moyai.kube.objects.meta import part, text
from moyai.kube.quick import KubeApi
from moyai.kube.resources import CONFIG_MAPS, DAEMON_SETS, DEPLOYMENTS, KUBE_SYSTEM, NODES
from moyai.lifecycle import certificates
from moyai.lifecycle.backup.schedule import BackupStatus, backup_status
from moyai.lifecycle.certificates import CertificateStatus
from moyai.lifecycle.clusters import open_api
from moyai.lifecycle.etcd_care import EtcdStatus, all_notes, all_problems, read_etcd
from moyai.lifecycle.plane_status import PlaneStatus, balancer_problems, plane_problems, read_planes
from moyai.lifecycle.record import Record
from moyai.lifecycle.rotation_state import RotationStatus, rotation_status
from moyai.lifecycle.services import balanced
from moyai.lifecycle.upgrade_state import UpgradeStatus, upgrade_status
from moyai.plan.cluster.control_planes import majority
from moyai.plan.keys import is_unique_name
from moyai.plan.machines_beside import wanted_machines
from moyai.plan.nodes import CONTROL_PLANE_POOL, pool_of_node
from moyai.plan.route_budget import route_budget
from moyai.plan.rules import API_PORT
from moyai.spec.model import Cluster

_TIMEOUT = 5.0
#: In the cloud servers and credentials; in Kubernetes nodes, Deployments, DaemonSets, Services and whether it was restored; the
#: API's certificate.
_READS = 8


@dataclass(frozen=True)
class NodeStatus:
    """``machine``: the server's status in the cloud's own word, ``gone``, or ``?`` where the cloud does not answer. ``node``:
    Ready, NotReady, absent or unknown. ``running``: whether the machine runs, None where the cloud does not answer."""

    name: str
    role: str
    pool: str
    zone: str
    address: str
    machine: str
    node: str
    version: str = ""
    fault: str = ""
    running: bool | None = None


@dataclass(frozen=True)
class MachineStatus:
    """A machine beside the cluster. ``machine`` and ``running``: as of a node's."""

    name: str
    role: str
    addresses: tuple[str, ...]
    machine: str
    running: bool | None = None


@dataclass(frozen=True)
class AddonStatus:
    """A Deployment or DaemonSet of kube-system: how many of its pods are ready, and how many should be."""

    name: str
    ready: int
    wanted: int

    @property
    def count(self) -> str:
        return f"{self.ready}/{self.wanted}"


@dataclass(frozen=True)
class BalancedService:
    """A Service of type LoadBalancer. ``service``: namespace/name. ``address``: empty until it has one. ``ports``: of TCP."""

    service: str
    address: str
    ports: tuple[int, ...]


@dataclass(frozen=True)
class CredentialStatus:
    """What a part inside the cluster logs in to the cloud with. ``limited``: it may make the calls of its part alone.
    ``expires``: ISO 8601, empty for one that never ends. ``owner``: the user with whom it ends."""

    name: str
    limited: bool
    expires: str
    owner: str = ""

    @classmethod
    def of(cls, one: Credential) -> CredentialStatus:
        return cls(one.name, one.limited, one.expires.isoformat() if one.expires else "", one.owner)


@dataclass(frozen=True)
class ClusterStatus:
    """``api``: ready or why not. ``control_planes``: of a cluster whose API has a virtual address. ``etcd``: its members that
    answer. ``upgrade``: one that is not finalized. ``rotation``: one of certificates or keys that is under way. ``backup``:
    scheduled ones, and rehearsals of their restore. ``problems``: empty when all is well. ``notes``: what is no problem yet."""

    name: str
    uid: str
    cloud: str
    kubernetes: str
    api: str
    api_url: str
    nodes: tuple[NodeStatus, ...] = ()
    machines: tuple[MachineStatus, ...] = ()
    addons: tuple[AddonStatus, ...] = ()
    services: tuple[BalancedService, ...] = ()
    certificates: tuple[CertificateStatus, ...] = ()
    credentials: tuple[CredentialStatus, ...] = ()
    control_planes: tuple[PlaneStatus, ...] = ()
    etcd: tuple[EtcdStatus, ...] = ()
    upgrade: UpgradeStatus | None = None
    rotation: RotationStatus | None = None
    backup: BackupStatus | None = None
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def data(self) -> dict[str, Any]:
        """For ``--output json``. ``addons`` keeps its form of [name, "ready/wanted"]; ``addon_pods`` has the numbers."""
        data = asdict(self)
        return data | {"addons": [(addon.name, addon.count) for addon in self.addons], "addon_pods": data["addons"]}


@dataclass(frozen=True)
class _KubeView:
    """What Kubernetes says. ``nodes``: by name. ``restored``: when the backup was made that the cluster was restored from, as
    long as nobody has looked at what the backup did not know."""

    nodes: Mapping[str, Node]
    addons: tuple[AddonStatus, ...]
    services: tuple[Service, ...]
    restored: str = ""


def read(record: Record, cloud: Cloud, *, clock: Clock | None = None) -> ClusterStatus:
    """The state of a recorded cluster. Raises only for a record that cannot be read."""
    cluster, now, api = record.cluster, (clock or SystemClock()).now(), open_api(record)
    with ThreadPoolExecutor(_READS, thread_name_prefix="status") as pool:
        listed = pool.submit(_servers, cloud, record.uid)
        issued = pool.submit(_credentials, cloud, record)
        certified = pool.submit(certificates.known, record.folder, api, timeout=_TIMEOUT)
        answer, kube, api_problem = _kube(api, pool)
        servers, cloud_problem = listed.result()
        known, (credentials, foreign) = certified.result(), issued.result()
    beside = None if servers is None else {one.name: one for one in servers if MACHINE_KEY in one.metadata}
    servers = servers and [one for one in servers if MACHINE_KEY not in one.metadata]
    nodes, machines = tuple(_nodes(record, servers, kube=kube)), tuple(_machines(cluster, beside))
    ready = [node.name for node in nodes if node.node == "Ready"]
    names = [node.name for node in nodes if node.role == "control-plane"]
    planes = read_planes(api if kube else None, names, ready=ready, way=cluster.spec.control_plane.way)
    addons = kube.addons if kube else ()
    backed = backup_status(record, now=now)
    etcds = read_etcd(api, [name for name in names if name in ready]) if api and kube else ()
    ending = [
        *(certificate.problem(now, control_planes=names) for certificate in known),
        *(certificates.credential_problem(one.name, one.expires, now=now) for one in credentials),
    ]
    return ClusterStatus(
        name=record.name,
        uid=record.uid,
        cloud=cluster.spec.cloud,
        kubernetes=cluster.spec.kubernetes_version,
        api=answer,
        api_url=f"https://{record.api_address}:{API_PORT}" if record.api_address else "",
        nodes=nodes,
        machines=machines,
        addons=addons,
        services=tuple(BalancedService(one.key, one.address, one.tcp_ports) for one in kube.services) if kube else (),
        certificates=tuple(certificate.status(now) for certificate in known),
        credentials=tuple(map(CredentialStatus.of, credentials)),
        control_planes=planes,
        etcd=etcds,
        upgrade=upgrade_status(record, servers or ()) if servers is not None else None,
        rotation=rotation_status(record, now=now),
        backup=backed,
        problems=tuple(
            filter(
                None,
                (
                    cloud_problem,
                    api_problem,
                    *_problems(nodes, addons),
                    *(f"machine {one.name} is {one.machine}" for one in machines if one.running is False),
                    *plane_problems(planes, ready=ready),
                    *balancer_problems(cloud, record, ready=ready),
                    *all_problems(etcds),
                    *_left(record, kube),
                    *(_lost(nodes) if record.ready and kube is None else ()),
                    *ending,
                    *foreign,
                    *(backed.problems if backed else ()),
                ),
            )
        ),
        # routes that others have put into the router count in a plan, and in `moyai net status`
        notes=(
            *route_budget(cluster.spec, nodes=len(nodes), foreign_routes=0).warnings(),
            *(_restored(record, kube.restored) if kube else ()),
            *all_notes(etcds),
        ),
    )


@dataclass(frozen=True)
class CertificateReport:
    """``problems``: what ends soon. ``rotation``: that is under way."""

    certificates: tuple[CertificateStatus, ...]
    rotation: RotationStatus | None
    problems: tuple[str, ...]


def read_certificates(record: Record, *, now: datetime) -> CertificateReport:
    """The certificates of a recorded cluster, without asking its cloud."""
    found = certificates.known(record.folder, open_api(record), timeout=5.0)
    planes = sorted(name for name in record.allocations if pool_of_node(name, record.name) == CONTROL_PLANE_POOL)
    problems = filter(None, (one.problem(now, control_planes=planes) for one in found))
    return CertificateReport(tuple(one.status(now) for one in found), rotation_status(record, now=now), tuple(problems))


def read_credentials(record: Record, cloud: Cloud, *, now: datetime) -> tuple[tuple[CredentialStatus, ...], tuple[str, ...]]:
    """(what the parts inside a cluster log in with, what is wrong with it)"""
    found, foreign = _credentials(cloud, record)
    ending = (certificates.credential_problem(one.name, one.expires, now=now) for one in found)
    return tuple(map(CredentialStatus.of, found)), (*filter(None, ending), *foreign)


def _problems(nodes: Iterable[NodeStatus], addons: Iterable[AddonStatus]) -> Iterable[str]:
    nodes = tuple(nodes)
    for node in nodes:
        if node.running is False:
            yield f"machine {node.name} is {node.machine}: {node.fault or 'no reason given'}"
    for node in nodes:
        if node.node not in ("Ready", "unknown"):
            yield f"node {node.name} is {node.node}"
    for addon in addons:
        if addon.ready != addon.wanted:
            yield f"add-on {addon.name} has {addon.count} pods ready"


def _left(record: Record, kube: _KubeView | None) -> Iterable[str]:
    """Nodes that are out of service since a removal that did not come to its end."""
    for name in sorted(record.allocations):
        node = kube.nodes.get(name) if kube else None
        if node is not None and REMOVAL_KEY in node.annotations:
            yield f"node {name} takes no pods: its removal was begun and did not end; `moyai up` ends it or takes it back"


def _lost(nodes: Iterable[NodeStatus]) -> Iterable[str]:
    """Where etcd can have no majority: what a person can do. Nothing of it is done by itself."""
    planes = [node for node in nodes if node.role == "control-plane" and node.running is not None]
    run = sum(node.running is True for node in planes)
    if planes and run < majority(len(planes)):
        yield (
            f"{run} of {len(planes)} control planes run, so etcd has no majority: start the machines again in the cloud; if "
            "they are lost for good, delete those that are left there, and `moyai restore FILE` makes the cluster again from a "
            "backup"
        )


def _restored(record: Record, made: str) -> Iterable[str]:
    if record.restores:
        yield "its restore from a backup did not end: `moyai restore FILE` goes on"
    elif made:
        yield (
            f"restored from a backup of {made}: what is in the cloud for Services that the backup does not know stays there "
            f"until ConfigMap {RESTORED} of kube-system is deleted"
        )


def _servers(cloud: Cloud, uid: str) -> tuple[list[Server] | None, str]:
    try:
        return cloud.machines.servers(tag=cluster_tag(uid)), ""
    except MoyaiError as error:
        return None, f"the cloud cannot be asked: {error}"


def _credentials(cloud: Cloud, record: Record) -> tuple[list[Credential], list[str]]:
    """(the cluster's own and those of the user that it logs in with, what is wrong with others). None where the cloud has none,
    or does not answer, which is reported for its servers."""
    given = {made.id for key, made in record.objects.items() if key.kind is Kind.SECRET and made.id}
    own = {made.id: made.name for key, made in record.objects.items() if key.kind is Kind.CREDENTIAL and made.id}
    try:
        listed = cloud.credentials.credentials(name_prefix="" if given else f"{record.name}-")
    except MoyaiError:
        return [], []
    used = [one for one in listed if one.id in given or is_unique_name(one.name, record.uid)]
    missing = sorted(own[one] for one in own.keys() - {one.id for one in listed})
    foreign = [
        f"credential {name} is not yours: another user has made it, and it ends with that user; or it is gone: "
        "`moyai credentials rotate` makes another one"
        for name in missing
    ]
    return sorted(used, key=lambda one: one.name), foreign


def _kube(api: KubeApi | None, pool: ThreadPoolExecutor) -> tuple[str, _KubeView | None, str]:
    if api is None:
        return "not there yet", None, "the cluster was never finished: `moyai up` goes on"
    listed_nodes = pool.submit(api.list, NODES, timeout=_TIMEOUT)
    listed_deployments = pool.submit(api.list, DEPLOYMENTS, namespace=KUBE_SYSTEM, timeout=_TIMEOUT)
    listed_daemon_sets = pool.submit(api.list, DAEMON_SETS, namespace=KUBE_SYSTEM, timeout=_TIMEOUT)
    listed_services = pool.submit(balanced, api, timeout=_TIMEOUT)
    restored = pool.submit(_made, api)
    try:
        nodes = map(parse_node, listed_nodes.result())
        deployments = map(parse_deployment, listed_deployments.result())
        daemon_sets = map(parse_daemon_set, listed_daemon_sets.result())
        services, made = listed_services.result(), restored.result()
    except MoyaiError as error:
        return "no answer", None, str(error)
    addons = sorted((AddonStatus(one.name, one.ready, one.wanted) for one in (*deployments, *daemon_sets)), key=_by_name)
    return "ready", _KubeView({node.name: node for node in nodes}, tuple(addons), tuple(services), made), ""


def _made(api: KubeApi) -> str:
    try:
        return text(part(api.get(CONFIG_MAPS, RESTORED, namespace=KUBE_SYSTEM, timeout=_TIMEOUT), "data"), "made")
    except NotFound:
        return ""


def _by_name(addon: AddonStatus) -> str:
    return addon.name


def _nodes(record: Record, servers: list[Server] | None, *, kube: _KubeView | None) -> Iterable[NodeStatus]:
    """The control plane first; a node is whatever the record, the cloud or both know."""
    machines = {server.name: server for server in servers or []}
    allocations = record.allocations
    pools = {name: _pool(record, name, machine=machines.get(name)) for name in {*allocations, *machines}}
    for name in sorted(pools, key=lambda name: (pools[name] != CONTROL_PLANE_POOL, len(name), name)):
        machine, allocation = machines.get(name), allocations.get(name)
        node = kube.nodes.get(name) if kube else None
        missing = "?" if servers is None else "gone"
        pool = pools[name]
        yield NodeStatus(
            name=name,
            role="control-plane" if pool == CONTROL_PLANE_POOL else "worker",
            pool=pool,
            zone=machine.zone if machine else allocation.zone if allocation else "",
            address=_address(machine) if machine else "",
            machine=machine.status if machine else missing,
            node=_state(node) if kube else "unknown",
            version=node.kubelet if node else "",
            fault=machine.fault if machine else "",
            running=None if servers is None else machine is not None and machine.power is Power.RUNNING,
        )


def _machines(cluster: Cluster, found: Mapping[str, Server] | None) -> Iterable[MachineStatus]:
    """Those that the spec has, or the cloud alone. ``found``: None where the cloud does not answer."""
    wanted = {one.name: one for one in wanted_machines(cluster)}
    for name in sorted({*wanted, *(found or dict[str, Server]())}):
        server = found.get(name) if found is not None else None
        entry = wanted[name].entry if name in wanted else None
        fixed = (one.address for one in server.addresses if one.kind == "fixed") if server else ()
        yield MachineStatus(
            name=name,
            role=entry.role if entry else "",
            addresses=tuple(str(place.address) for place in entry.networks) if entry else tuple(fixed),
            machine="?" if found is None else server.status if server else "gone",
            running=None if found is None else server is not None and server.power is Power.RUNNING,
        )


def _pool(record: Record, name: str, *, machine: Server | None) -> str:
    """As the machine says, or by the node's name where there is none; empty where neither says it."""
    return (machine.metadata.get(POOL_KEY) if machine else "") or pool_of_node(name, record.name) or ""


def _address(machine: Server) -> str:
    return next((address.address for address in machine.addresses if address.kind == "fixed"), "")


def _state(node: Node | None) -> str:
    return "absent" if node is None else "Ready" if node.ready else "NotReady"
