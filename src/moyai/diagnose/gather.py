"""Reads from a cluster what ``plan.explain`` needs to say why a pod does not run.

Always holds: it only reads; what is asked for by name and is not there is a fact, not an error; only a pod that does not exist,
or an API that does not answer, is one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import cast
from urllib.parse import quote

from moyai.core.errors import MoyaiError, NotFound, Terminal, UsageError
from moyai.diagnose.placement import Disk, NodeFacts, Requirement, Terms, Toleration, Wish, quantity
from moyai.diagnose.pod_facts import (
    AttachmentFacts,
    ClaimFacts,
    ClassFacts,
    ContainerFacts,
    EventFacts,
    Explanation,
    Facts,
    PodFacts,
    PoolFacts,
)
from moyai.diagnose.pods import explain
from moyai.kube.objects import Taint
from moyai.kube.quick import ATTACHMENTS, Json, KubeApi, condition
from moyai.lifecycle.clusters import open_api
from moyai.lifecycle.record import Record
from moyai.spec.load import validate
from moyai.spec.model import ClusterSpec

_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
_SHARED_MODES = frozenset({"ReadWriteMany", "ReadOnlyMany"})


def read(record: Record, pod: str, *, namespace: str, zones: Callable[[], list[str]]) -> Explanation:
    """``zones``: asks the cloud for its zones; only called where an answer needs it. UsageError for a pod that is not there."""
    api = open_api(record)
    if api is None:
        raise Terminal(f"cluster {record.name} was never finished", hint="`moyai up` goes on building it")
    return explain(gather(api, validate(record.spec, source="record").spec, pod, namespace=namespace, zones=zones))


def gather(api: KubeApi, spec: ClusterSpec, name: str, *, namespace: str, zones: Callable[[], list[str]]) -> Facts:
    space = f"/api/v1/namespaces/{quote(namespace, safe='')}"
    try:
        pod = api.get(f"{space}/pods/{quote(name, safe='')}")
    except NotFound:
        raise UsageError(f"there is no pod {name} in namespace {namespace}", hint=_others(api, name)) from None
    lists = {
        "nodes": "/api/v1/nodes",
        "classes": "/apis/storage.k8s.io/v1/storageclasses",
        "attachments": ATTACHMENTS,
        "csinodes": "/apis/storage.k8s.io/v1/csinodes",
        "events": f"{space}/events?fieldSelector=involvedObject.uid%3D{pod['metadata']['uid']}",
        "claim events": f"{space}/events?fieldSelector=involvedObject.kind%3DPersistentVolumeClaim",
    }
    placed = bool(pod["spec"].get("nodeName"))
    if not placed:
        lists["pods"] = "/api/v1/pods"
    with ThreadPoolExecutor(len(lists), thread_name_prefix="explain") as pool:
        tasks = {key: pool.submit(api.items, path) for key, path in lists.items()}
        claims = [(claim, _maybe(api, f"{space}/persistentvolumeclaims/{claim}")) for claim in _claim_names(pod)]
        found = {key: task.result() for key, task in tasks.items()}
    volumes = {
        volume: body
        for _, claim in claims
        if claim and (volume := _text(claim["spec"], "volumeName")) and (body := _maybe(api, _volume(volume)))
    }
    disks = tuple(_disk(claim, volumes, found["attachments"]) for _, claim in claims if claim and _bound(claim, volumes))
    storage = {item["metadata"]["name"]: item for item in found["classes"]}
    defaults = [key for key, item in storage.items() if _map(item, "metadata", "annotations").get(_DEFAULT_CLASS) == "true"]
    return Facts(
        pod=_pod(pod),
        wish=_wish(pod),
        claims=tuple(_claim(claim, body, storage, found["claim events"]) for claim, body in claims),
        disks=disks,
        nodes=tuple(_nodes(found, found.get("pods", []))),
        attachments=tuple(_attachments(found["attachments"], {disk.volume for disk in disks})),
        pools=_pools(spec, zones if not placed and any(disk.zones for disk in disks) else list),
        classes=tuple(sorted(storage)),
        default_class=defaults[0] if defaults else "",
        events=_events(found["events"]),
    )


def _others(api: KubeApi, name: str) -> str:
    """Where a pod of this name, or one that begins like it, is."""
    same = [
        f"{item['metadata']['namespace']}/{item['metadata']['name']}"
        for item in api.items("/api/v1/pods")
        if str(item["metadata"]["name"]).startswith(name)
    ]
    return f"there is {', '.join(same[:3])}" if same else "`moyai kubectl get pods -A` lists all"


def _maybe(api: KubeApi, path: str) -> Json | None:
    try:
        return api.get(path)
    except NotFound:
        return None


def _volume(name: str) -> str:
    return f"/api/v1/persistentvolumes/{quote(name, safe='')}"


# ---- the pod


def _claim_names(pod: Json) -> list[str]:
    names: list[str] = []
    for volume in _rows(pod["spec"], "volumes"):
        if "persistentVolumeClaim" in volume:
            names.append(str(volume["persistentVolumeClaim"]["claimName"]))
        elif "ephemeral" in volume:
            names.append(f"{pod['metadata']['name']}-{volume['name']}")
    return names


def _pod(pod: Json) -> PodFacts:
    meta, spec, status = (_part(pod, key) for key in ("metadata", "spec", "status"))
    held = [one for one in _rows(status, "conditions") if one["type"] == "PodScheduled" and one["status"] != "True"]
    images = {_text(one, "name"): _text(one, "image") for one in [*_rows(spec, "initContainers"), *_rows(spec, "containers")]}
    states = [*_rows(status, "initContainerStatuses"), *_rows(status, "containerStatuses")]
    return PodFacts(
        namespace=_text(meta, "namespace"),
        name=_text(meta, "name"),
        phase=_text(status, "phase") or "Pending",
        node=_text(spec, "nodeName"),
        reason=_text(status, "reason"),
        message=_text(status, "message"),
        ready=condition(pod, "Ready"),
        leaving="deletionTimestamp" in meta,
        gates=tuple(_text(one, "name") for one in _rows(spec, "schedulingGates")),
        scheduler=_text(held[0], "message") if held else "",
        containers=tuple(_container(one, images.get(_text(one, "name"), "")) for one in states),
    )


def _container(state: Json, image: str) -> ContainerFacts:
    waiting = _part(state, "state", "waiting")
    ended = _part(state, "state", "terminated") or _part(state, "lastState", "terminated")
    reason = _text(ended, "reason")
    if reason == "Error":
        reason = f"exit code {_text(ended, 'exitCode')}"
    return ContainerFacts(
        name=_text(state, "name"),
        image=image,
        waiting=_text(waiting, "reason"),
        ended=reason,
        message=_text(waiting, "message") or _text(ended, "message"),
        ready=bool(state.get("ready")),
        restarts=int(state.get("restartCount") or 0),
    )


def _wish(pod: Json) -> Wish:
    spec = _part(pod, "spec")
    cpu, memory = _requests(spec)
    required = _part(spec, "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution")
    return Wish(
        cpu=cpu,
        memory=memory,
        selector=_map(spec, "nodeSelector"),
        terms=_terms(required),
        tolerations=tuple(
            Toleration(_text(one, "key"), _text(one, "operator") or "Equal", _text(one, "value"), _text(one, "effect"))
            for one in _rows(spec, "tolerations")
        ),
    )


def _requests(spec: Json) -> tuple[float, float]:
    """(cores, bytes): the containers together, or the largest init container."""
    starters = _rows(spec, "initContainers")
    sidecars = [one for one in starters if one.get("restartPolicy") == "Always"]

    def total(what: str) -> float:
        def asked(container: Json) -> float:
            return quantity(_part(container, "resources", "requests").get(what, 0))

        steady = sum(map(asked, [*_rows(spec, "containers"), *sidecars]))
        first = [asked(one) for one in starters if one not in sidecars]
        return max([steady, *first]) + quantity(_part(spec, "overhead").get(what, 0))

    return total("cpu"), total("memory")


def _terms(selector: Json) -> Terms:
    def lines(term: Json) -> Iterable[Json]:
        yield from _rows(term, "matchExpressions")
        # matchFields knows one field, the node's name, which every node also has as a label
        yield from ({**one, "key": "kubernetes.io/hostname"} for one in _rows(term, "matchFields"))

    return tuple(
        tuple(Requirement(_text(one, "key"), _text(one, "operator"), _words(one, "values")) for one in lines(term))
        for term in _rows(selector, "nodeSelectorTerms")
    )


# ---- claims and volumes


def _bound(claim: Json, volumes: dict[str, Json]) -> bool:
    return _text(claim["spec"], "volumeName") in volumes


def _claim(name: str, body: Json | None, storage: dict[str, Json], events: list[Json]) -> ClaimFacts:
    if body is None:
        return ClaimFacts(name, found=False)
    spec = _part(body, "spec")
    class_name = _text(spec, "storageClassName")
    kind = storage.get(class_name)
    waits = kind is not None and kind.get("volumeBindingMode") == "WaitForFirstConsumer"
    uid = _text(_part(body, "metadata"), "uid")
    return ClaimFacts(
        name=name,
        phase=_text(_part(body, "status"), "phase"),
        volume=_text(spec, "volumeName"),
        class_name=class_name,
        storage=ClassFacts(class_name, _text(kind, "provisioner"), waits) if kind else None,
        exclusive=not set(_words(spec, "accessModes")) & _SHARED_MODES,
        events=_events(one for one in events if _part(one, "involvedObject").get("uid") == uid),
    )


def _disk(claim: Json, volumes: dict[str, Json], attachments: list[Json]) -> Disk:
    name = _text(claim["spec"], "volumeName")
    spec = _part(volumes[name], "spec")
    at = frozenset(_text(one["spec"], "nodeName") for one in attachments if _attached_volume(one) == name)
    driver = _text(_part(spec, "csi"), "driver")
    return Disk(_text(claim["metadata"], "name"), name, driver, _terms(_part(spec, "nodeAffinity", "required")), at)


def _attached_volume(attachment: Json) -> str:
    return _text(_part(attachment, "spec", "source"), "persistentVolumeName")


def _attachments(items: Iterable[Json], volumes: set[str]) -> Iterable[AttachmentFacts]:
    for one in items:
        if (volume := _attached_volume(one)) in volumes:
            status = _part(one, "status")
            error = _part(status, "attachError") or _part(status, "detachError")
            yield AttachmentFacts(
                volume,
                _text(_part(one, "spec"), "nodeName"),
                bool(status.get("attached")),
                _text(error, "message"),
                "deletionTimestamp" in _part(one, "metadata"),
            )


# ---- nodes, pools, events


def _nodes(found: dict[str, list[Json]], pods: list[Json]) -> Iterable[NodeFacts]:
    used: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for pod in pods:
        if _part(pod, "status").get("phase") not in ("Succeeded", "Failed"):
            used[_text(_part(pod, "spec"), "nodeName")].append(_requests(_part(pod, "spec")))
    limits = {
        _text(item["metadata"], "name"): {
            _text(one, "name"): int(_part(one, "allocatable").get("count", -1)) for one in _rows(item["spec"], "drivers")
        }
        for item in found["csinodes"]
    }
    attached: dict[str, Counter[str]] = defaultdict(Counter)
    for one in found["attachments"]:
        attached[_text(one["spec"], "nodeName")][_text(one["spec"], "attacher")] += 1
    for item in found["nodes"]:
        name = _text(item["metadata"], "name")
        room, asked = _part(item, "status", "allocatable"), used[name]
        yield NodeFacts(
            name=name,
            labels=_map(item, "metadata", "labels"),
            taints=tuple(
                Taint(_text(one, "key"), _text(one, "effect"), _text(one, "value")) for one in _rows(item["spec"], "taints")
            ),
            ready=condition(item, "Ready"),
            cordoned=bool(item["spec"].get("unschedulable")),
            cpu=quantity(room.get("cpu", 0)) - sum(cpu for cpu, _ in asked),
            memory=quantity(room.get("memory", 0)) - sum(memory for _, memory in asked),
            pods=int(quantity(room.get("pods", 0))) - len(asked),
            limits=limits.get(name, {}),
            attached=dict(attached[name]),
        )


def _pools(spec: ClusterSpec, zones: Callable[[], list[str]]) -> tuple[PoolFacts, ...]:
    offered: list[str] = []
    if any(not pool.zones for pool in spec.node_pools):
        try:
            offered = zones()
        except MoyaiError:
            offered = []  # the advice is then less exact
    return tuple(PoolFacts(pool.name, pool.replicas, tuple(pool.zones or offered)) for pool in spec.node_pools)


def _events(items: Iterable[Json]) -> tuple[EventFacts, ...]:
    """In the order of their time."""

    def time(item: Json) -> str:
        series = _text(_part(item, "series"), "lastObservedTime")
        return (
            series or _text(item, "lastTimestamp") or _text(item, "eventTime") or _text(item["metadata"], "creationTimestamp")
        )

    return tuple(
        EventFacts(_text(one, "type"), _text(one, "reason"), _text(one, "message"), time(one))
        for one in sorted(items, key=time)
    )


# ---- reading


def _part(item: Json, *keys: str) -> Json:
    """The object at the end of this path, empty where there is none."""
    for key in keys:
        value = item.get(key)
        item = cast("Json", value) if isinstance(value, dict) else {}
    return item


def _rows(item: Json, key: str) -> list[Json]:
    value = item.get(key)
    return cast("list[Json]", value) if isinstance(value, list) else []


def _words(item: Json, key: str) -> tuple[str, ...]:
    value = item.get(key)
    return tuple(str(one) for one in cast("list[object]", value)) if isinstance(value, list) else ()


def _text(item: Json, key: str) -> str:
    value = item.get(key)
    return "" if value is None else str(value)


def _map(item: Json, *keys: str) -> dict[str, str]:
    return {key: str(value) for key, value in _part(item, *keys).items()}
