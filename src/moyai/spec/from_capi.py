"""A spec from the objects of Cluster API's provider for OpenStack, v1beta1 and v1alpha7, and what of them has no counterpart.

Pure. Always holds: each field of the objects is in the spec, or is what moyai does by itself (``_MEANINGLESS``), or is named
among ``left``. A field of another type than the API's is refused in one line.
Source: the API references of Cluster API and of the provider.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from moyai.core.errors import UsageError
from moyai.spec.tree import short

_GROUPS = ("cluster.x-k8s.io", "infrastructure.cluster.x-k8s.io", "controlplane.cluster.x-k8s.io", "bootstrap.cluster.x-k8s.io")
#: What moyai does by itself, or what only Cluster API's own machinery reads.
_MEANINGLESS = frozenset(
    {
        "Cluster.spec.controlPlaneRef",
        "Cluster.spec.infrastructureRef",
        "Cluster.spec.clusterNetwork.serviceDomain",
        "OpenStackCluster.spec.managedSecurityGroups",
        "OpenStackCluster.spec.identityRef.name",
        "OpenStackCluster.spec.identityRef.kind",
        "KubeadmControlPlane.spec.machineTemplate.infrastructureRef",
        "KubeadmControlPlane.spec.kubeadmConfigSpec",
        "MachineDeployment.spec.clusterName",
        "MachineDeployment.spec.selector",
        "MachineDeployment.spec.template.metadata",
        "MachineDeployment.spec.template.spec.clusterName",
        "MachineDeployment.spec.template.spec.bootstrap",
        "MachineDeployment.spec.template.spec.infrastructureRef",
        "OpenStackMachineTemplate.spec.template.spec.cloudName",
        "OpenStackMachineTemplate.spec.template.spec.identityRef",
        "OpenStackMachineTemplate.spec.template.spec.sshKeyName",
    }
)


@dataclass(frozen=True)
class Converted:
    """``spec``: the document of a spec's file. ``left``: each field without a counterpart, in one line."""

    spec: dict[str, Any]
    left: tuple[str, ...]


class _CapiObject:
    """An object of Kubernetes that knows which of its fields were taken."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.kind, self._document, self.name = "object", document, ""
        self._taken: set[tuple[str, ...]] = set()
        self.kind = self.text("kind")
        self.name = self.text("metadata.name")

    def take(self, path: str) -> Any:
        """The scalar at a path; None where there is none, or a mapping. A number in the path counts in a list."""
        found = self._at(path)
        if isinstance(found, list):
            raise self._wrong(path, "a list", should="a single value")
        return found

    def text(self, path: str) -> str:
        """Likewise, empty where there is none."""
        found = self.take(path)
        return "" if found is None else str(found)

    def texts(self, path: str) -> list[str]:
        """The list of scalars at a path, empty where there is none."""
        found = self._at(path)
        if found is None:
            return []
        if not isinstance(found, list):
            raise self._wrong(path, repr(found), should="a list")
        items = cast("list[Any]", found)
        if any(isinstance(item, list | dict) for item in items):
            raise self._wrong(path, "a list of others", should="a list of single values")
        return [str(item) for item in items]

    def _at(self, path: str) -> Any:
        parts = tuple(path.split("."))
        found: Any = self._document
        for part in parts:
            if isinstance(found, list):
                items, number = cast("list[Any]", found), int(part) if part.isdigit() else -1
                found = items[number] if 0 <= number < len(items) else None
            else:
                found = cast("dict[Any, Any]", found).get(part) if isinstance(found, dict) else None
        if isinstance(found, dict):
            return None
        self._taken.add(parts)
        return found

    def _wrong(self, path: str, found: str, *, should: str) -> UsageError:
        return UsageError(f"{' '.join((self.kind, self.name)).strip()}: {path}: {short(found)}, should be {should}")

    def left(self) -> Iterator[str]:
        """The fields of ``spec`` that nobody took."""
        yield from self._left(self._document.get("spec"), ("spec",))

    def _left(self, value: Any, at: tuple[str, ...]) -> Iterator[str]:
        path = ".".join((self.kind, *at))
        if at in self._taken or path in _MEANINGLESS or value in (None, {}, []):
            return
        inside = list(_inside(value))
        for key, item in inside:
            yield from self._left(item, (*at, key))
        if not inside:
            yield f"{self.kind} {self.name}: {'.'.join(at)}"


def _inside(value: Any) -> Iterator[tuple[str, Any]]:
    """Of a mapping, or of a list that has mappings; nothing of what is taken as a whole."""
    if isinstance(value, dict):
        yield from ((str(key), item) for key, item in cast("dict[Any, Any]", value).items())
    elif isinstance(value, list) and any(isinstance(item, dict) for item in cast("list[Any]", value)):
        yield from ((str(number), item) for number, item in enumerate(cast("list[Any]", value)))


def from_capi(documents: Iterable[Any]) -> Converted:
    """The spec of the one Cluster among the documents. Raises UsageError where there is none, or several."""
    objects = [_CapiObject(one) for document in documents for one in _listed(document) if _belongs(one)]
    by_kind: dict[str, list[_CapiObject]] = {}
    for one in objects:
        by_kind.setdefault(one.kind, []).append(one)
    infrastructure = _only(by_kind.get("OpenStackCluster", ()), "OpenStackCluster")
    clusters = by_kind.get("Cluster", [])
    cluster = _only(clusters, "Cluster") if clusters else None
    templates = {one.name: one for one in by_kind.get("OpenStackMachineTemplate", ())}
    planes = by_kind.get("KubeadmControlPlane", [])
    plane = _only(planes, "KubeadmControlPlane") if planes else None
    versions: list[str] = []
    images: list[str] = []
    spec: dict[str, Any] = _cloud(infrastructure)
    spec["controlPlane"] = _control_plane(plane, infrastructure, templates=templates, versions=versions, images=images)
    deployments = by_kind.get("MachineDeployment", ())
    spec["nodePools"] = [_pool(one, templates, versions=versions, images=images) for one in deployments]
    network = {**_network(infrastructure), **(_ranges(cluster) if cluster else {})}
    if network:
        spec["network"] = network
    if found := [one.removeprefix("v") for one in dict.fromkeys(versions)]:
        spec["kubernetesVersion"] = found[0]
    if found := list(dict.fromkeys(images)):
        spec["image"] = found[0]
    left = [line for one in objects for line in one.left()]
    left += [f"a second version of Kubernetes: {one}" for one in list(dict.fromkeys(versions))[1:]]
    left += [f"a second image: {one}" for one in list(dict.fromkeys(images))[1:]]
    name = (cluster or infrastructure).name
    document = {"apiVersion": "moyai.dev/v1alpha1", "kind": "Cluster", "metadata": {"name": name}, "spec": spec}
    return Converted(document, tuple(left))


def _listed(document: Any) -> Iterator[Any]:
    """The items of a List, as kubectl prints several objects."""
    if isinstance(document, dict) and cast("dict[str, Any]", document).get("kind") == "List":
        items: Any = cast("dict[str, Any]", document).get("items") or ()
        if not isinstance(items, list | tuple):
            raise UsageError(f"List: items: {short(repr(items))}, should be a list")
        yield from cast("Sequence[Any]", items)
    else:
        yield document


def _belongs(document: Any) -> bool:
    if not isinstance(document, dict):
        return False
    found = cast("dict[str, Any]", document)
    return str(found.get("apiVersion", "")).partition("/")[0] in _GROUPS and "kind" in found


def _only(objects: Sequence[_CapiObject], kind: str) -> _CapiObject:
    if len(objects) != 1:
        names = f": {short(', '.join(one.name for one in objects), 200)}" if objects else ""
        raise UsageError(f"{len(objects)} objects of kind {kind}{names}, should be one")
    return objects[0]


def _cloud(infrastructure: _CapiObject) -> dict[str, Any]:
    cloud = infrastructure.text("spec.identityRef.cloudName") or infrastructure.text("spec.cloudName")
    spec: dict[str, Any] = {"cloud": cloud} if cloud else {}
    allowed = infrastructure.texts("spec.apiServerLoadBalancer.allowedCIDRs")
    if allowed:
        spec["access"] = {"apiCIDRs": allowed}
    return spec


def _network(infrastructure: _CapiObject) -> dict[str, Any]:
    cidr = infrastructure.take("spec.managedSubnets.0.cidr") or infrastructure.take("spec.nodeCidr")
    dns = infrastructure.texts("spec.managedSubnets.0.dnsNameservers") or infrastructure.texts("spec.dnsNameservers")
    external = (
        infrastructure.take("spec.externalNetwork.id")
        or infrastructure.take("spec.externalNetwork.filter.name")
        or infrastructure.take("spec.externalNetworkId")
    )
    existing = {
        "network": _one_of(infrastructure, "spec.network"),
        "subnet": _one_of(infrastructure, "spec.subnets.0") or _one_of(infrastructure, "spec.subnet"),
        "router": _one_of(infrastructure, "spec.router"),
    }
    found = {
        "nodeCIDR": cidr,
        "dns": dns,
        "externalNetwork": external,
        "disableExternalNetwork": infrastructure.take("spec.disableExternalNetwork"),
        "existing": {key: value for key, value in existing.items() if value},
    }
    if found["disableExternalNetwork"]:
        # without an external network there is no floating IP to be disabled
        infrastructure.take("spec.disableAPIServerFloatingIP")
    return {key: value for key, value in found.items() if value}


def _one_of(infrastructure: _CapiObject, path: str) -> Any:
    """The id of an object that exists, else its name."""
    by_id, by_filter = infrastructure.take(f"{path}.id"), infrastructure.take(f"{path}.filter.name")
    return by_id or by_filter or infrastructure.take(f"{path}.name")


def _ranges(cluster: _CapiObject) -> dict[str, Any]:
    pods = cluster.texts("spec.clusterNetwork.pods.cidrBlocks")
    services = cluster.texts("spec.clusterNetwork.services.cidrBlocks")
    found = {"podCIDR": next(iter(pods), None), "serviceCIDR": next(iter(services), None)}
    return {key: value for key, value in found.items() if value}


def _control_plane(
    plane: _CapiObject | None,
    infrastructure: _CapiObject,
    *,
    templates: Mapping[str, _CapiObject],
    versions: list[str],
    images: list[str],
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if plane is not None:
        found["replicas"] = plane.take("spec.replicas") or 1
        versions += [one for one in (plane.text("spec.version"),) if one]
        reference = plane.text("spec.machineTemplate.infrastructureRef.name")
        found |= _machine(templates.get(reference), images)
    if infrastructure.take("spec.apiServerLoadBalancer.enabled") is True:
        found["endpoint"] = "load-balancer"
    zones = infrastructure.texts("spec.controlPlaneAvailabilityZones")
    return {**found, **({"zones": zones} if zones else {})}


def _pool(
    deployment: _CapiObject, templates: Mapping[str, _CapiObject], *, versions: list[str], images: list[str]
) -> dict[str, Any]:
    versions += [one for one in (deployment.text("spec.template.spec.version"),) if one]
    replicas = deployment.take("spec.replicas")
    zone = deployment.take("spec.template.spec.failureDomain")
    reference = deployment.text("spec.template.spec.infrastructureRef.name")
    pool = {"name": deployment.name, "replicas": 1 if replicas is None else replicas}
    return {**pool, **_machine(templates.get(reference), images), **({"zones": [zone]} if zone else {})}


def _machine(template: _CapiObject | None, images: list[str]) -> dict[str, Any]:
    """Of a template, which several pools may share."""
    if template is None:
        return {}
    where = "spec.template.spec"
    flavor = template.take(f"{where}.flavor")
    # v1alpha7 has the image's name where v1beta1 has a mapping
    images += [one for part in (".filter.name", ".id", "") if (one := template.text(f"{where}.image{part}"))]
    return {"flavor": flavor} if flavor else {}
