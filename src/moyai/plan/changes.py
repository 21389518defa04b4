"""What of a spec may change while its cluster exists.

Addresses, names and versions are built into certificates, routes and nodes; changing them means building the cluster anew,
and a spec that tries is refused before anything is touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from moyai.core.errors import UsageError

#: Paths below ``spec`` that stay as they were, each with what a user can do instead.
_FIXED = (
    "cloud",
    "image",
    "kubernetesVersion",
    "controlPlane.flavor",
    "controlPlane.zone",
    "network.nodeCIDR",
    "network.podCIDR",
    "network.nodePodPrefix",
    "network.serviceCIDR",
    "network.mode",
    "network.externalNetwork",
    "network.dns",
    "loadBalancer.provider",
    "loadBalancer.floatingNetwork",
    "loadBalancer.createMonitor",
    "volumes.fencing",
)


def refuse_changes(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Raises UsageError when ``new`` (as ``spec.load.dump`` gives it) changes what must stay as in ``old``."""
    for path in _FIXED:
        before, after = _at(old, path), _at(new, path)
        # None: the cluster was made before there was such a field
        if before is not None and before != after:
            raise UsageError(
                f"spec.{path}: {after!r}, should stay {before!r} while the cluster exists",
                hint="`moyai down` and `moyai up` build it anew",
            )


def _at(document: dict[str, Any], path: str) -> Any:
    value: Any = document["spec"]
    for part in path.split("."):
        value = cast("dict[str, Any]", value).get(part)
    return value


def changed_nodes(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    """Names of pools whose labels or taints differ: their nodes that are there keep what they registered with."""
    before = {pool["name"]: pool for pool in old["spec"]["nodePools"]}
    for pool in new["spec"]["nodePools"]:
        earlier = before.get(pool["name"])
        if earlier and any(earlier[field] != pool[field] for field in ("labels", "taints")):
            yield pool["name"]
