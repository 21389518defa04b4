"""What a changed spec means for a cluster that exists: refused, taken by replaced machines, or taken at once.

Every field of a spec has one of three classes. ``fixed``: built into certificates, routes and nodes; changing it means building
the cluster again, and a spec that tries is refused before anything is touched. ``rolling``: a machine has it from its start, so
machines that were made with something else are replaced, some at a time. ``live``: this run brings the cluster to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from moyai.core.errors import UsageError
from moyai.core.kubernetes_version import version_numbers
from moyai.spec.beside import NODES
from moyai.spec.control_plane import was_virtual, way_before

ChangeClass = Literal["fixed", "rolling", "live"]

_RANGES = "addresses of nodes, pods and Services are made from it"
_MACHINE = "it is what the machine was made with, and the machine holds the cluster's state"
_CONTROLLERS = "the cloud controller manager was deployed with it"
_MACHINES = "machines are made or removed"
_API_SERVER = "the API server was started with it"
_KUBELET = "a kubelet is configured when its machine is made"
_ROOT = "a machine keeps its root disk"
_GROUP = "it counts for the next machines that are made"
#: Fields below ``spec`` that stay as they were, each with the reason.
_FIXED: Mapping[str, str] = {
    "cloud": "the cluster's objects are in that cloud",
    "kubernetesVersion": "`moyai upgrade` changes it",
    "controlPlane.zone": _MACHINE,
    "controlPlane.apiServerFixedIP": "the API's address is in certificates and in every node's configuration",
    "controlPlane.endpoint": "the API's address is in certificates and in every node's configuration",
    "network.disableExternalNetwork": "the API's address and those of Services follow from it",
    "network.existing": "the machines are there",
    "network.nodeCIDR": _RANGES,
    "network.podCIDR": _RANGES,
    "network.nodePodPrefix": _RANGES,
    "network.serviceCIDR": _RANGES,
    "network.mode": "every node's pod network is made for it",
    "network.vxlan": "every node's pod network is made for it",
    "network.externalNetwork": "the router and the API's address are on it",
    "network.dns": "the machines' subnet hands it out",
    "loadBalancer.provider": _CONTROLLERS,
    "loadBalancer.floatingNetwork": _CONTROLLERS,
    "loadBalancer.createMonitor": _CONTROLLERS,
    "services.announce": "the machines' ports and the controllers were made with it",
    "volumes.fencing": _CONTROLLERS,
    "security.anonymousAuth": _API_SERVER,
    "security.auditLog": _API_SERVER,
    "security.encryptionAtRest": "the API server was started with it, and has stored Secrets",
    "security.podSecurity": _API_SERVER,
}
#: Path of a change → what makes it all the same.
_HINTS: Mapping[str, str] = {"spec.network.mode": "`moyai net migrate --to MODE` changes it"}
#: Fields that a machine has from its start to its end.
_ROLLING: Mapping[str, str] = {
    "image": "machines are made from it",
    "controlPlane.flavor": "a machine keeps its flavor",
    "controlPlane.zones": "a machine keeps its zone",
    "controlPlane.rootVolume": _ROOT,
    "security.seccompDefault": _KUBELET,
    "security.podPidsLimit": _KUBELET,
    "security.protectKernelDefaults": _KUBELET,
    "security.evictionHard": _KUBELET,
    "security.imageGCHighThresholdPercent": _KUBELET,
}
#: Those of them that a control plane without a virtual address cannot change, since no other machine can take its place.
_OF_PLANES: Mapping[str, str] = {"controlPlane.flavor": _MACHINE, "controlPlane.rootVolume": _MACHINE}
#: Fields of a node pool that a machine has from its start to its end.
_ROLLING_IN_POOL: Mapping[str, str] = {
    "flavor": "a machine keeps its flavor",
    "zones": "a machine keeps its zone",
    "labels": "a node registers with them",
    "taints": "a node registers with them",
    "rootVolume": _ROOT,
}
#: Of these fields, those whose value the cloud shows of each machine.
_SHOWN, _SHOWN_IN_POOL = {"controlPlane.flavor", "controlPlane.zones"}, {"flavor", "zones"}
#: Fields of a node pool that say how machines are replaced.
_LIVE_IN_POOL: Mapping[str, str] = {
    "rollingUpdate": "it counts for the next machines that are replaced",
    "drain": "it counts for the next nodes that leave",
    "antiAffinity": _GROUP,
}
_LIVE: Mapping[str, str] = {
    "controlPlane.replicas": _MACHINES,
    "controlPlane.antiAffinity": _GROUP,
    "access.apiCIDRs": "rules of the firewall follow",
    "access.sshCIDRs": "rules of the firewall follow",
    "network.bgp": "the agents speak to other routers",
    "network.policy": "an agent on each node follows",
    "network.maxRoutes": "it is compared with the number of nodes",
    "volumes.reclaimPolicy": "the default StorageClass follows",
    **dict.fromkeys(("backup.every", "backup.keep", "backup.to", "backup.recipients"), "it counts for the next backup"),
    "machines": "machines beside the cluster are made, made again or removed",
}
#: A network is made and removed while the cluster exists, and stays as it is in between.
_NETWORK_LIVE = "networks beside the cluster's own are made or removed"
_NETWORK_FIXED = "machines have addresses of it"
_POOLS_NETWORK = "its machines have addresses of it"
#: A machine of before there was a choice has its root on the flavor's disk.
NO_ROOT_VOLUME: Mapping[str, Any] = {"sizeGiB": 0, "type": ""}
#: Fields that a cluster of before has as they are by default, though its record has no such field.
_ALWAYS: Mapping[str, Any] = {
    "backup.to": "",
    "services.announce": {"ranges": [], "loadBalancerClass": ""},
    "network.bgp": {"asn": 64522, "routers": [], "meshUpTo": 10, "reflectorLabel": "moyai.dev/route-reflector"},
    "machines": [],
    "network.disableExternalNetwork": False,
    "network.existing": {"network": "", "subnet": "", "router": ""},
    "controlPlane.rootVolume": NO_ROOT_VOLUME,
    "controlPlane.antiAffinity": "auto",
}


@dataclass(frozen=True)
class Change:
    """One field whose value differs. ``path`` begins with ``spec``; ``reason`` says why the class is what it is.

    ``pool``: the node pool that has the field, empty for none. ``shown``: whether the cloud shows the value of each machine.
    """

    path: str
    before: Any
    after: Any
    kind: ChangeClass
    reason: str
    pool: str = ""
    shown: bool = False

    @property
    def text(self) -> str:
        return f"{self.path}: {_short(self.before)} → {_short(self.after)} ({self.kind}: {self.reason})"


def classify(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[Change, ...]:
    """The differences between two specs, as ``spec.load.dump`` gives them."""
    return tuple(_changes(old["spec"], new["spec"]))


def refuse_fixed(changes: tuple[Change, ...]) -> None:
    """Raises UsageError for the first change that cannot be made while the cluster exists."""
    for change in changes:
        if change.kind == "fixed":
            raise UsageError(
                f"{change.path}: {change.after!r}, should stay {change.before!r} while the cluster exists ({change.reason})",
                hint=_HINTS.get(change.path, "`moyai down` and `moyai up` build it again"),
            )


def refuse_version(asked: str, known: Sequence[str], *, back: bool) -> None:
    """Raises UsageError for a spec that names a version of Kubernetes which the cluster does not have: `up` changes none, in
    either direction. ``known``: those that its machines have. ``back``: whether an upgrade from it can be taken back."""
    if asked in known:
        return
    later = version_numbers(asked) > version_numbers(known[-1])
    then = f"`moyai upgrade --to {asked}` brings the cluster to it" if later else "an older version is not for this cluster"
    raise UsageError(
        f"spec.kubernetesVersion: {asked!r}, should be {' or '.join(map(repr, known))}, which the cluster has, or be left out",
        hint="`moyai upgrade --rollback` takes the upgrade back" if back else then,
    )


def unclassified(spec: Mapping[str, Any]) -> set[str]:
    """Fields of a dumped spec that have no class: a new field must get one."""
    paths: set[str] = set()
    for name, value in spec.items():
        inner = cast("dict[str, Any]", value) if isinstance(value, dict) else None
        paths |= {name} if inner is None else {f"{name}.{field}" for field in inner}
    pool = {f"nodePools.{field}" for field in spec["nodePools"][0]} - {
        "nodePools.name",
        "nodePools.replicas",
        "nodePools.network",
    }
    known = {"nodePools", "networks", *_FIXED, *_ROLLING, *_LIVE}
    return (paths - known) | (pool - {f"nodePools.{field}" for field in (*_ROLLING_IN_POOL, *_LIVE_IN_POOL)})


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    classes: tuple[tuple[ChangeClass, Mapping[str, str]], ...] = (("fixed", _FIXED), ("rolling", _ROLLING), ("live", _LIVE))
    for kind, fields in classes:
        for path, reason in fields.items():
            before, after = _at(old, path), _at(new, path)
            before = _ALWAYS.get(path) if before is None else before
            # None: the cluster was made before there was such a field
            same = path == "controlPlane.endpoint" and way_before(old["controlPlane"]) == way_before(new["controlPlane"])
            if before is not None and before != after and not same:
                if path in _OF_PLANES and not was_virtual(old["controlPlane"]):
                    yield Change(f"spec.{path}", before, after, "fixed", _OF_PLANES[path])
                else:
                    yield Change(f"spec.{path}", before, after, kind, reason, shown=path in _SHOWN)
    yield from _networks(old.get("networks") or [], new["networks"])
    before_pools = {pool["name"]: pool for pool in old["nodePools"]}
    after_pools = {pool["name"]: pool for pool in new["nodePools"]}
    for name in dict.fromkeys((*before_pools, *after_pools)):
        where = f"spec.nodePools[{name}]"
        earlier, later = before_pools.get(name), after_pools.get(name)
        if earlier is None or later is None:
            before = earlier["replicas"] if earlier else 0
            after = later["replicas"] if later else 0
            yield Change(f"{where}.replicas", before, after, "live", _MACHINES)
            continue
        if earlier["replicas"] != later["replicas"]:
            yield Change(f"{where}.replicas", earlier["replicas"], later["replicas"], "live", _MACHINES)
        if (before := earlier.get("network", NODES)) != later["network"]:
            yield Change(f"{where}.network", before, later["network"], "fixed", _POOLS_NETWORK)
        for path, reason in _ROLLING_IN_POOL.items():
            # a pool of before there was a choice has its machines on the flavor's disk
            if (before := earlier.get(path, NO_ROOT_VOLUME)) != later[path]:
                shown = path in _SHOWN_IN_POOL
                yield Change(f"{where}.{path}", before, later[path], "rolling", reason, pool=name, shown=shown)
        for path, reason in _LIVE_IN_POOL.items():
            # a pool of before there was a choice has the default
            if path in earlier and earlier[path] != later[path]:
                yield Change(f"{where}.{path}", earlier[path], later[path], "live", reason)


def _networks(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> Iterator[Change]:
    before, after = {one["name"]: one for one in old}, {one["name"]: one for one in new}
    for name in before.keys() & after.keys():
        for field in ("cidr", "gateway"):
            if before[name][field] != after[name][field]:
                where = f"spec.networks[{name}].{field}"
                yield Change(where, before[name][field], after[name][field], "fixed", _NETWORK_FIXED)
    if before.keys() != after.keys():
        yield Change("spec.networks", list(before), list(after), "live", _NETWORK_LIVE)


def _at(spec: Mapping[str, Any], path: str) -> Any:
    value: Any = spec
    for part in path.split("."):
        if value is None:
            return None
        value = cast("dict[str, Any]", value).get(part)
    return value


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "…"
