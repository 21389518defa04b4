"""The objects of an add-on in a cluster that runs: applied, and removed.

Always holds: both may be done again at any time. What is applied is in the words of the machine that first applied it, and by
the same manager, so that a field that is left out goes.
"""

from __future__ import annotations

from collections.abc import Mapping

from moyai.core.yamlread import read
from moyai.kube.quick import KubeApi
from moyai.kube.resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    CONFIG_MAPS,
    DAEMON_SETS,
    DEFINITIONS,
    DEPLOYMENTS,
    NAMESPACES,
    ROLE_BINDINGS,
    ROLES,
    SECRETS,
    SERVICE_ACCOUNTS,
    Json,
    Resource,
)

#: The same word is in bootstrap/data/bootstrap-control-plane.
MANAGER = "moyai"
_RESOURCES: Mapping[str, Resource] = {
    "Namespace": NAMESPACES,
    "ServiceAccount": SERVICE_ACCOUNTS,
    "ClusterRole": CLUSTER_ROLES,
    "ClusterRoleBinding": CLUSTER_ROLE_BINDINGS,
    "Role": ROLES,
    "RoleBinding": ROLE_BINDINGS,
    "ConfigMap": CONFIG_MAPS,
    "DaemonSet": DAEMON_SETS,
    "Deployment": DEPLOYMENTS,
    "Secret": SECRETS,
    "CustomResourceDefinition": DEFINITIONS,
}
#: What users' objects are in.
_STAYS = frozenset({"CustomResourceDefinition", "Namespace"})


def apply(api: KubeApi, manifests: str) -> None:
    """``manifests``: one YAML stream, in the order in which the objects are applied."""
    for one in _objects(manifests):
        api.apply(_RESOURCES[one["kind"]], one, manager=MANAGER)


def remove(api: KubeApi, manifests: str) -> None:
    """Delete the objects, the last first: pods go before the rights with which they work. Definitions of kinds and
    namespaces stay: with them the objects of users would go."""
    for one in reversed([one for one in _objects(manifests) if one["kind"] not in _STAYS]):
        meta = one["metadata"]
        api.delete(_RESOURCES[one["kind"]], meta["name"], namespace=meta.get("namespace"))


def _objects(manifests: str) -> list[Json]:
    return [one for one in read(manifests) if one]
