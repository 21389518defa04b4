"""What a spec asks of a cloud by name, found in it: flavors, zones, image, external network, load balancer provider.

A name that the cloud has not is a UsageError that names what it does have: the spec is wrong, and nothing was changed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from moyai.cloud.model import Flavor, Image, Network
from moyai.core.errors import Terminal, UsageError
from moyai.core.ids import IMAGE_DIGEST, IMAGE_VERSION, Role, version_in_image
from moyai.core.kubernetes_version import DEFAULT_KUBERNETES_VERSION
from moyai.plan.machine_template import Versions
from moyai.plan.observed import Observed
from moyai.spec.model import Cluster, ClusterSpec

#: Megabytes below which a control plane (API server, etcd, controllers, kubelet) or a worker does not live.
LEAST_CONTROL_PLANE_MB = 1500
LEAST_WORKER_MB = 400


@dataclass(frozen=True)
class Choices:
    """``flavors``: by name, those that the spec uses. ``external_network`` and ``floating_network``: None where the machines'
    network needs none. ``worker_image``: where workers have another one. ``machine_images``: of machines beside
    the cluster, by their names in the spec."""

    flavors: Mapping[str, Flavor]
    image: Image
    external_network: Network | None = None
    floating_network: Network | None = None
    worker_image: Image | None = None
    machine_images: Mapping[str, Image] = field(default_factory=dict[str, Image])

    def image_of(self, role: Role) -> Image:
        return self.worker_image or self.image if role == "worker" else self.image


def choose(cluster: Cluster, observed: Observed, *, external: bool, versions: Versions | None = None) -> Choices:
    """Everything that the spec names, or a UsageError for the first thing that is not there.

    ``external``: whether the machines' network leads to an external network of the cloud. ``versions``: of Kubernetes, where
    they are not the spec's.
    """
    spec, versions = cluster.spec, versions or Versions.of(cluster.spec)
    flavors: dict[str, Flavor] = {}
    uses = [("spec.controlPlane", spec.control_plane.flavor, LEAST_CONTROL_PLANE_MB)]
    uses += [(f"spec.nodePools[{n}]", pool.flavor, LEAST_WORKER_MB) for n, pool in enumerate(spec.node_pools)]
    uses += [(f"spec.machines[{n}]", one.flavor, 0) for n, one in enumerate(spec.machines)]
    for where, name, least in uses:
        flavor = next((flavor for flavor in observed.flavors if name in (flavor.name, flavor.id)), None)
        if flavor is None:
            raise absent(
                f"{where}.flavor", name, what="flavor", offered=(flavor.name for flavor in observed.flavors), cloud=spec.cloud
            )
        if flavor.memory_mb < least:
            raise UsageError(f"{where}.flavor: {name!r} has {flavor.memory_mb} MB, should have at least {least} MB")
        flavors[name] = flavor
    zones = [("spec.controlPlane.zone", spec.control_plane.zone)] if spec.control_plane.zone else []
    zones += [(f"spec.controlPlane.zones[{n}]", zone) for n, zone in enumerate(spec.control_plane.zones)]
    for number, pool in enumerate(spec.node_pools):
        zones += [(f"spec.nodePools[{number}].zones[{n}]", zone) for n, zone in enumerate(pool.zones)]
    zones += [(f"spec.machines[{n}].zone", one.zone) for n, one in enumerate(spec.machines) if one.zone]
    for where, zone in zones:
        if zone not in observed.zones:
            raise absent(where, zone, what="zone", offered=observed.zones, cloud=spec.cloud)
    image = _image(spec, observed, version=versions.control_planes)
    other = None if versions.workers == versions.control_planes else _image(spec, observed, version=versions.workers)
    beside = {
        one.name: _named_image(spec, observed, name=one.image, where=f"spec.machines[{n}].image")
        if one.image
        else other or image
        for n, one in enumerate(spec.machines)
    }
    provider = spec.load_balancer.provider
    if provider and observed.balancer_providers and provider not in observed.balancer_providers:
        what = "load balancer provider"
        raise absent("spec.loadBalancer.provider", provider, what=what, offered=observed.balancer_providers, cloud=spec.cloud)
    _check_roots(spec, flavors, images=(image, other or image), types=observed.volume_types)
    if not external:
        return Choices(flavors=flavors, image=image, worker_image=other, machine_images=beside)
    network = _network(observed, "spec.network.externalNetwork", name=spec.network.external_network, cloud=spec.cloud)
    floating = spec.load_balancer.floating_network
    return Choices(
        flavors=flavors,
        image=image,
        worker_image=other,
        machine_images=beside,
        external_network=network,
        floating_network=_network(observed, "spec.loadBalancer.floatingNetwork", name=floating, cloud=spec.cloud)
        if floating
        else network,
    )


def asks_types(spec: ClusterSpec) -> bool:
    """Whether a root volume has a type, so that it matters which the cloud has."""
    return any(one.root_volume.type for one in (spec.control_plane, *spec.node_pools))


def _check_roots(
    spec: ClusterSpec, flavors: Mapping[str, Flavor], *, images: tuple[Image, Image], types: Collection[str]
) -> None:
    """UsageError for machines whose root would not hold their image. ``images``: of control planes, of workers."""
    uses = [("spec.controlPlane", spec.control_plane.flavor, spec.control_plane.root_volume, images[0])]
    uses += [(f"spec.nodePools[{n}]", one.flavor, one.root_volume, images[1]) for n, one in enumerate(spec.node_pools)]
    for where, name, root, image in uses:
        least, disk = image.min_disk_gib, flavors[name].disk_gb
        if root.size_gib:
            if image.properties.get("moyai_format") == "rootfs-tar":
                raise UsageError(f"{where}.rootVolume: should be left out: image {image.name} is an archive and not a disk")
            if root.size_gib < least:
                raise UsageError(
                    f"{where}.rootVolume.sizeGiB: {root.size_gib}, should be at least {least} for image {image.name}"
                )
            if root.type and types and root.type not in types:
                raise absent(f"{where}.rootVolume.type", root.type, what="volume type", offered=types, cloud=spec.cloud)
        elif disk is not None and disk < least:
            has = f"has a disk of {disk} GiB" if disk else "has no disk"
            raise UsageError(
                f"{where}.flavor: {name!r} {has}, image {image.name} needs {least} GiB",
                hint=f"another flavor, or {where}.rootVolume.sizeGiB",
            )


def _image(spec: ClusterSpec, observed: Observed, *, version: str) -> Image:
    where = "spec.image" if spec.image else "spec.kubernetesVersion"
    image = _named_image(spec, observed, name=spec.image_of(version), where=where)
    made_for = image.properties.get(IMAGE_VERSION)
    if made_for and made_for != version:
        raise UsageError(f"spec.kubernetesVersion: {version!r}, should be {made_for!r}, which image {image.name} holds")
    return image


def _named_image(spec: ClusterSpec, observed: Observed, *, name: str, where: str) -> Image:
    image = newest_image(observed.images, name)
    if image is None:
        hint = None if spec.image else _makes(where, spec=spec, version=version_in_image(name))
        offered = (image.name for image in observed.images)
        raise absent(where, name, what="image", offered=offered, cloud=spec.cloud, hint=hint)
    if not image.ready:
        raise Terminal(
            f"image {image.name} is {image.status.lower()} in cloud {spec.cloud}",
            hint="wait until the cloud has it ready, or upload it again",
        )
    return image


def newest_image(images: Iterable[Image], wanted: str) -> Image | None:
    """The image that a spec means by this name: an id, a name, or NAME@sha256:DIGEST for one content of that name. Of several
    of one name the newest that is ready: an upload puts a new one beside those that are in use."""
    plain, _, digest = wanted.partition("@sha256:")
    found = [
        image
        for image in images
        if wanted in (image.id, image.name)
        or (digest and plain == image.name and image.properties.get(IMAGE_DIGEST, "").startswith(digest))
    ]
    return max(found, key=lambda image: (image.id == wanted, image.ready, image.created), default=None)


def _makes(where: str, *, spec: ClusterSpec, version: str) -> str | None:
    """Which two commands make the image of a version."""
    if where != "spec.kubernetesVersion" or not version:
        return None
    of = "" if version == DEFAULT_KUBERNETES_VERSION else f" --kubernetes {version}"
    return f"`moyai image build{of}` and `moyai image upload --cloud {spec.cloud}{of}` make it"


def _network(observed: Observed, where: str, *, name: str, cloud: str) -> Network:
    external = sorted((network for network in observed.networks if network.external), key=lambda network: network.name)
    if name:
        found = next((network for network in external if name in (network.name, network.id)), None)
        if found is None:
            raise absent(where, name, what="external network", offered=(network.name for network in external), cloud=cloud)
        return found
    if len(external) == 1:
        return external[0]
    if not external:
        raise Terminal(
            f"cloud {cloud} has no external network", hint="without one neither API nor load balancers can be reached"
        )
    names = ", ".join(network.name for network in external)
    raise UsageError(f"{where}: left out, should be one of {names}: cloud {cloud} has several external networks")


def absent(where: str, name: str, *, what: str, offered: Iterable[str], cloud: str, hint: str | None = None) -> UsageError:
    """That the cloud has no object of this name, and what it has."""
    names = sorted(offered)
    shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    choice = f"should be one of {shown}" if names else "there is none at all"
    return UsageError(f"{where}: {name!r}, cloud {cloud} has no such {what}, {choice}", hint=hint)
