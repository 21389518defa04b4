"""What the cloud calls the objects of a cluster, where these are not moyai's own names. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from moyai.cloud.kind import CloudKind
from moyai.plan import keys
from moyai.plan.nodes import PlannedNode


def names_in_cloud(kind: CloudKind, cluster: str, *, uid: str, nodes: Sequence[PlannedNode]) -> dict[str, str]:
    """moyai's name → the cloud's, of all that the cluster called ``cluster`` is made of. Raises UsageError for the first name
    that no object of this kind of cloud can have."""
    shared = (keys.NETWORK, keys.SUBNET, keys.ROUTER, *(keys.security_group(role) for role in ("control-plane", "worker")))
    names = [*(keys.object_name(cluster, key) for key in shared), *(node.name for node in nodes)]
    return {name: kind.cloud_name(uid, name) for name in names}


def name_notes(names: dict[str, str], nodes: Sequence[PlannedNode]) -> Iterator[str]:
    """A note for each node that the cloud calls by another name."""
    for node in nodes:
        if names[node.name] != node.name:
            yield f"node {node.name} is server {names[node.name]} in the cloud"
