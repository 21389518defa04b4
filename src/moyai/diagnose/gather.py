"""Reads from a cluster what ``diagnose.pods`` needs to say why a pod does not run.

Always holds: it only reads; what is asked for by name and is not there is a fact, not an error; only a pod that does not exist,
or an API that does not answer, is one. The lists are read side by side, each once.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from moyai.cloud.capabilities import Cloud
from moyai.core.errors import MoyaiError, NotFound, UsageError
from moyai.diagnose.placement import CandidateNode, Disk
from moyai.diagnose.pod_facts import ClaimFacts, CloudDisk, Explanation, Facts, MissingNode, PoolFacts
from moyai.diagnose.pods import explain
from moyai.kube.objects import (
    Claim,
    CsiNode,
    ObjectEvent,
    PersistentVolume,
    StorageClass,
    VolumeAttachment,
    parse_attachment,
    parse_claim,
    parse_csi_node,
    parse_event,
    parse_node,
    parse_pod,
    parse_storage_class,
    parse_volume,
)
from moyai.kube.objects.event import by_object, in_order
from moyai.kube.objects.scheduling import Capacity, PodRequirements, parse_allocatable, parse_requests, parse_requirements
from moyai.kube.quick import KubeApi
from moyai.kube.resources import (
    CLAIMS,
    CSI_NODES,
    EVENTS,
    NODES,
    PODS,
    STORAGE_CLASSES,
    VOLUME_ATTACHMENTS,
    VOLUMES,
    Json,
)
from moyai.lifecycle.clusters import require_api
from moyai.lifecycle.record import Record
from moyai.plan.nodes import node_name
from moyai.spec.model import ClusterSpec

T = TypeVar("T")


def read(record: Record, pod: str, *, namespace: str, cloud: Callable[[], Cloud]) -> Explanation:
    """``cloud``: connects; only called where an answer needs the cloud. UsageError for a pod that is not there."""
    api = require_api(record)
    cluster, places = record.cluster, record.allocations
    workers = [node_name(cluster.name, pool.name, ordinal=n) for pool in cluster.spec.node_pools for n in range(pool.replicas)]
    wanted = {name: places[name].zone if name in places else "" for name in workers}
    return explain(gather(api, pod, spec=cluster.spec, namespace=namespace, cloud=cloud, wanted=wanted))


def gather(
    api: KubeApi,
    name: str,
    *,
    spec: ClusterSpec,
    namespace: str,
    cloud: Callable[[], Cloud],
    wanted: Mapping[str, str] | None = None,
) -> Facts:
    """The facts of pod ``name``. UsageError where there is none. ``wanted``: the workers that the spec has → their zones."""
    try:
        body = api.get(PODS, name, namespace=namespace)
    except NotFound:
        raise UsageError(f"there is no pod {name} in namespace {namespace}", hint=_others(api, name)) from None
    pod = parse_pod(body)
    found = _fetch(api, body, namespace=namespace)
    disks = tuple(found.disks())
    volumes = {disk.volume for disk in disks}
    zoned = not pod.node and any(disk.zones for disk in disks)
    return Facts(
        pod=replace(pod, phase=pod.phase or "Pending"),
        # where a pod would fit matters only until it has a node, and quantities cost an import
        requirements=PodRequirements() if pod.node else parse_requirements(body),
        claims=tuple(found.claim_facts()),
        disks=disks,
        nodes=tuple(found.node_facts()),
        attachments=tuple(one for one in found.attachments if one.volume in volumes),
        pools=_pools(spec, (lambda: cloud().machines.zones()) if zoned else list),
        missing=tuple(_missing(wanted or {}, found.nodes)),
        cloud_disks=_cloud_disks(found, pod.node, cloud=cloud),
        classes=tuple(sorted(found.classes)),
        default_class=next((one.name for one in found.classes.values() if one.default), ""),
        events=found.events,
    )


@dataclass(frozen=True)
class _ApiFacts:
    """What the API has.

    ``pods``: all pods where the pod has no node yet, else None: what is free is then not looked at. ``claims``: the pod's, by
    name, None for one that is not there. ``volumes``: of these claims, by name. ``claim_events``: by the claim's UID.
    """

    nodes: list[Json]
    pods: list[Json] | None
    csi_nodes: tuple[CsiNode, ...]
    attachments: tuple[VolumeAttachment, ...]
    classes: Mapping[str, StorageClass]
    claims: Mapping[str, Claim | None]
    volumes: Mapping[str, PersistentVolume]
    events: tuple[ObjectEvent, ...]
    claim_events: Mapping[str, tuple[ObjectEvent, ...]]

    def unattached(self, node: str) -> Mapping[str, str]:
        """Volume → its id in the cloud, of those that Kubernetes has not attached to the node."""
        there = {one.volume for one in self.attachments if one.node == node and one.attached}
        return {name: one.handle for name, one in self.volumes.items() if one.handle and name not in there}

    def claim_facts(self) -> Iterable[ClaimFacts]:
        for name, claim in self.claims.items():
            if claim is None:
                yield ClaimFacts(name, found=False)
                continue
            yield ClaimFacts(
                name=name,
                phase=claim.phase,
                volume=claim.volume,
                class_name=claim.class_name,
                storage=self.classes.get(claim.class_name),
                exclusive=claim.exclusive,
                events=self.claim_events.get(claim.uid, ()),
            )

    def disks(self) -> Iterable[Disk]:
        for claim in self.claims.values():
            volume = self.volumes.get(claim.volume) if claim else None
            if claim and volume:
                at = frozenset(one.node for one in self.attachments if one.volume == volume.name)
                yield Disk(claim.name, volume.name, volume.driver, volume.terms, at)

    def node_facts(self) -> Iterable[CandidateNode]:
        limits = {one.name: one.limits for one in self.csi_nodes}
        attached: dict[str, Counter[str]] = defaultdict(Counter)
        for one in self.attachments:
            attached[one.node][one.attacher] += 1
        used = self._used()
        for body in self.nodes:
            node = parse_node(body)
            room, asked = Capacity() if self.pods is None else parse_allocatable(body), used[node.name]
            yield CandidateNode(
                name=node.name,
                labels=node.labels,
                taints=node.taints,
                ready=bool(node.ready),
                cordoned=node.cordoned,
                cpu=room.cpu - sum(one.cpu for one in asked),
                memory=room.memory - sum(one.memory for one in asked),
                pods=room.pods - len(asked),
                limits=limits.get(node.name, {}),
                attached=dict(attached[node.name]),
            )

    def _used(self) -> Mapping[str, list[Capacity]]:
        """Node → what each of its pods takes."""
        used: dict[str, list[Capacity]] = defaultdict(list)
        for body in self.pods or ():
            pod = parse_pod(body)
            if not pod.finished:
                used[pod.node].append(parse_requests(body))
        return used


def _fetch(api: KubeApi, body: Json, *, namespace: str) -> _ApiFacts:
    pod = parse_pod(body)
    lists = {
        "nodes": partial(api.list, NODES),
        "classes": partial(api.list, STORAGE_CLASSES),
        "attachments": partial(api.list, VOLUME_ATTACHMENTS),
        "csi nodes": partial(api.list, CSI_NODES),
        "events": partial(api.list, EVENTS, namespace=namespace, fields=f"involvedObject.uid={pod.uid}"),
        "claim events": partial(api.list, EVENTS, namespace=namespace, fields="involvedObject.kind=PersistentVolumeClaim"),
    }
    if not pod.node:
        lists["pods"] = partial(api.list, PODS)
    with ThreadPoolExecutor(len(lists), thread_name_prefix="explain") as pool:
        tasks = {key: pool.submit(call) for key, call in lists.items()}
        claims = {name: _maybe(partial(api.get, CLAIMS, name, namespace=namespace), parse_claim) for name in pod.claims}
        names = {claim.volume for claim in claims.values() if claim and claim.volume}
        volumes = {name: _maybe(partial(api.get, VOLUMES, name), parse_volume) for name in sorted(names)}
        found = {key: task.result() for key, task in tasks.items()}
    return _ApiFacts(
        nodes=found["nodes"],
        pods=found.get("pods"),
        csi_nodes=tuple(map(parse_csi_node, found["csi nodes"])),
        attachments=tuple(map(parse_attachment, found["attachments"])),
        classes={one.name: one for one in map(parse_storage_class, found["classes"])},
        claims=claims,
        volumes={name: volume for name, volume in volumes.items() if volume},
        events=in_order(map(parse_event, found["events"])),
        claim_events=by_object(found["claim events"]),
    )


def _maybe(get: Callable[[], Json], parse: Callable[[Json], T]) -> T | None:
    try:
        return parse(get())
    except NotFound:
        return None


def _missing(wanted: Mapping[str, str], nodes: Iterable[Json]) -> Iterable[MissingNode]:
    there = {parse_node(one).name for one in nodes}
    return (MissingNode(name, zone) for name, zone in wanted.items() if name not in there)


def _cloud_disks(found: _ApiFacts, node: str, *, cloud: Callable[[], Cloud]) -> Mapping[str, CloudDisk]:
    """What the cloud says of the disks that do not come to the node; nothing where it does not answer."""
    if not node:
        return {}
    awaited = found.unattached(node)
    try:
        return {name: _cloud_disk(cloud(), handle) for name, handle in awaited.items()}
    except MoyaiError:
        return {}  # the side-cars' own words are all that is known then


def _cloud_disk(cloud: Cloud, handle: str) -> CloudDisk:
    try:
        volume = cloud.disks.volume(handle)
    except NotFound:
        return CloudDisk(handle, found=False)
    machines = tuple(_machine_name(cloud, one) for one in volume.attached_server_ids)
    return CloudDisk(handle, status=volume.status, broken=volume.state.broken, machines=machines)


def _machine_name(cloud: Cloud, server_id: str) -> str:
    """The id where the machine is gone, or somebody else's."""
    try:
        return cloud.machines.server(server_id).name or server_id
    except NotFound:
        return server_id


def _others(api: KubeApi, name: str) -> str:
    """Where a pod of this name, or one that begins like it, is."""
    same = [pod.key for pod in map(parse_pod, api.list(PODS)) if pod.name.startswith(name)]
    return f"there is {', '.join(same[:3])}" if same else "`moyai kubectl get pods -A` lists all"


def _pools(spec: ClusterSpec, zones: Callable[[], list[str]]) -> tuple[PoolFacts, ...]:
    offered: list[str] = []
    if any(not pool.zones for pool in spec.node_pools):
        try:
            offered = zones()
        except MoyaiError:
            offered = []  # the advice is then less exact
    return tuple(PoolFacts(pool.name, pool.replicas, tuple(pool.zones or offered)) for pool in spec.node_pools)
