"""What a cloud must offer to one of the strategies, and what a cluster does without where the cloud lacks it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from moyai.cloud.capabilities import Capability
from moyai.core.errors import Terminal, UsageError
from moyai.plan import keys
from moyai.plan.cluster.beside import check_beside_machines
from moyai.plan.cluster.credentials import logins_of
from moyai.plan.cluster.endpoint import check_endpoint
from moyai.plan.cluster.network import network_of
from moyai.plan.cluster.spread import check_spread
from moyai.plan.given_network import GivenNetwork, given_of
from moyai.plan.observed import Observed, Recorded, owner, server_owner
from moyai.plan.pod_network.choice import refuse_mode
from moyai.spec.model import Cluster

#: A cluster lives without these.
_OPTIONAL: Mapping[Capability, str] = {
    Capability.DISKS: "the CSI driver is left out, and claims of volumes stay pending",
    Capability.LOAD_BALANCERS: "Services of type LoadBalancer stay pending",
}
_ANNOUNCE = ", unless nodes announce addresses that you name in spec.services.announce.ranges"
_NO_ANNOUNCE = ", and nodes cannot announce their addresses, as ports may not send from other addresses than their own"


def check_capabilities(cluster: Cluster, observed: Observed) -> None:
    """Raises UsageError or Terminal for the first thing that no strategy can do with what the cloud offers."""
    cloud, offered = cluster.spec.cloud, observed.capabilities
    refuse_mode(cluster, observed)
    check_spread(cluster.spec, offered)
    network = network_of(cluster, offered)
    check_beside_machines(cluster, observed)
    check_endpoint(cluster, offered)
    _check_foreign(cluster, given_of(cluster.spec, observed))
    # where machines give themselves their addresses, they may take others of the network in turns
    plane = cluster.spec.control_plane
    if plane.balanced and Capability.LOAD_BALANCERS not in offered:
        raise UsageError(
            f"spec.controlPlane.endpoint: {plane.endpoint!r}, should be 'vrrp', or 'single' with one control plane: "
            f"cloud {cloud} has no {Capability.LOAD_BALANCERS}"
        )
    balanced = "'load-balancer', or " if Capability.LOAD_BALANCERS in offered else ""
    if plane.way == "vrrp" and not (observed.sources_allowed or network.public_cards):
        raise UsageError(
            f"spec.controlPlane.endpoint: {plane.endpoint!r}, should be {balanced}'single' with one control plane: "
            f"cloud {cloud} does not let ports send from other addresses than their own"
        )
    if (announced := cluster.spec.services.announce.ranges) and not observed.sources_allowed:
        raise UsageError(
            f"spec.services.announce.ranges: {', '.join(map(str, announced))}, should be left out: "
            f"cloud {cloud} does not let ports send from other addresses than their own"
        )
    if observed.needs_tags and Capability.TAGS not in offered:
        raise Terminal(
            f"cloud {cloud} has no {Capability.TAGS}: moyai could not distinguish the cluster's objects from those of others",
            hint=f"use a cloud with {Capability.TAGS}",
        )
    logins_of(cloud, offered, own=observed.login)
    if Capability.METADATA not in offered and not observed.starts_by_script:
        raise Terminal(
            f"cloud {cloud} has no {Capability.METADATA}: moyai hands control planes the key to their secrets in no other way",
            hint="use a cloud that shows a server the metadata that it was made with",
        )


def _check_foreign(cluster: Cluster, given: GivenNetwork) -> None:
    """Another project's network: a floating IP needs a port for the virtual address, which only the owner can choose."""
    plane, section = cluster.spec.control_plane, cluster.spec.network
    if given.network is not None and given.foreign and plane.virtual and not section.disable_external_network:
        raise UsageError(
            f"spec.controlPlane.endpoint: {plane.endpoint!r}, should be 'single' with one control plane: "
            f"network {given.network.name} is another project's, where the API's virtual address gets no port"
        )


def capability_notes(cluster: Cluster, observed: Observed) -> Iterator[str]:
    announces = bool(cluster.spec.services.announce.ranges)
    for capability, what in _OPTIONAL.items():
        if capability not in observed.capabilities:
            if capability is Capability.LOAD_BALANCERS and observed.account.serves:
                continue
            if capability is Capability.LOAD_BALANCERS and announces:
                what = "the nodes announce Services of type LoadBalancer"
            elif capability is Capability.LOAD_BALANCERS:
                what += _ANNOUNCE if observed.sources_allowed else _NO_ANNOUNCE
            yield f"cloud {cluster.spec.cloud} has no {capability}: {what}"


def refuse_taken_name(cluster: Cluster, observed: Observed, *, recorded: Recorded) -> None:
    """Raises Terminal when another cluster, or somebody else's network, has the name."""
    if recorded.intended or any(server_owner(server) == recorded.uid for server in observed.servers):
        return
    name, cloud = keys.object_name(cluster.name, keys.NETWORK), cluster.spec.cloud
    # a cluster on a network of its user's has none of its own, and groups all the same
    mine = keys.object_name(cluster.name, keys.security_group("control-plane"))
    for group in observed.groups:
        other = owner(group)
        if group.name == mine and other is not None and other != recorded.uid:
            raise Terminal(
                f"metadata.name: {cluster.name!r} is taken in cloud {cloud} by cluster {other}",
                hint=f"choose another name; `moyai down --cloud {cloud} --uid {other}` removes that one",
            )
    for network in observed.networks:
        if network.name == name:
            other = owner(network)
            if other == recorded.uid:
                continue  # of this cluster, whose record knows less: it is restored from a backup
            hint = (
                f"`moyai down --cloud {cloud} --uid {other}` removes that one"
                if other
                else f"network {network.id} has that name"
            )
            by = f"by cluster {other}" if other else "by a network that no cluster owns"
            raise Terminal(
                f"metadata.name: {cluster.name!r} is taken in cloud {cloud} {by}",
                hint=f"choose another name; {hint}",
            )
