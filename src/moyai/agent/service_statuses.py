"""MetalLB's ServiceL2Status and ServiceBGPStatus objects: which node announces a Service, for users and for their tools.

Always holds: of ServiceL2Status a Service has one, by its owner; of ServiceBGPStatus it has one for each node that announces
it. A node deletes only those that name it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from moyai.core.errors import Conflict, NotFound
from moyai.kube.objects import NamespacedName, Node
from moyai.kube.objects.meta import part, text, text_map
from moyai.kube.resources import SERVICE_BGP_STATUSES, SERVICE_L2_STATUSES, Json, Resource
from moyai.kube.watching import Kube
from moyai.plan.announce.metallb_words import NAMESPACE, bgp_status_name, status_name

_NODE, _SERVICE, _OF = "metallb.io/node", "metallb.io/service-name", "metallb.io/service-namespace"


@dataclass(frozen=True)
class StatusKind:
    """``name``: of the object of a Service and a node. ``told``: out of the words about a Service, what of
    the status is this kind's own."""

    kind: str
    resource: Resource
    name: Callable[[NamespacedName, str], str]
    told: Callable[[tuple[str, ...]], Json]


def _l2_name(service: NamespacedName, _node: str) -> str:
    return status_name(str(service))


def _bgp_name(service: NamespacedName, node: str) -> str:
    return bgp_status_name(str(service), node)


#: The words are names of interfaces.
L2 = StatusKind(
    "ServiceL2Status", SERVICE_L2_STATUSES, _l2_name, lambda words: {"interfaces": [{"name": one} for one in words]}
)
#: The words are names of routers.
BGP = StatusKind("ServiceBGPStatus", SERVICE_BGP_STATUSES, _bgp_name, lambda words: {"peers": list(words)})


class ServiceStatuses:
    """``node``: this machine's. ``owner``: the Node whose end is the end of the objects; None: they outlive each node."""

    def __init__(
        self, kube: Kube, node: str, *, kind: StatusKind = L2, owner: Callable[[], Node | None] = lambda: None
    ) -> None:
        self._kube = kube
        self._node = node
        self._kind = kind
        self._owner = owner
        self._published: dict[NamespacedName, tuple[str, ...]] | None = None

    async def sync(self, wanted: Mapping[NamespacedName, tuple[str, ...]]) -> None:
        """``wanted``: Service → words of the kind, of what this node announces. Raises MoyaiError."""
        if self._published is None:
            self._published = await self._earlier()
        for service in [one for one in self._published if one not in wanted]:
            await self._withdraw(service)
            del self._published[service]
        for service, words in wanted.items():
            if self._published.get(service) != words:
                await self._publish(service, words)
                self._published[service] = words

    async def _earlier(self) -> dict[NamespacedName, tuple[str, ...]]:
        """What an earlier process of this node left."""
        # those of all nodes are as many as nodes times Services
        found, _ = await self._kube.list(self._kind.resource, namespace=NAMESPACE, labels=f"{_NODE}={self._node}")
        labels = (text_map(one, "metadata", "labels") for one in found)
        return {NamespacedName(one.get(_OF, ""), one.get(_SERVICE, "")): () for one in labels if one.get(_NODE) == self._node}

    async def _publish(self, service: NamespacedName, words: tuple[str, ...]) -> None:
        name = self._kind.name(service, self._node)
        labels = {_NODE: self._node, _SERVICE: service.name, _OF: service.namespace}
        meta: Json = {"name": name, "namespace": NAMESPACE, "labels": labels}
        if (owner := self._owner()) is not None:
            meta["ownerReferences"] = [{"apiVersion": "v1", "kind": "Node", "name": owner.name, "uid": owner.uid}]
        body: Json = {"apiVersion": "metallb.io/v1beta1", "kind": self._kind.kind, "metadata": meta, "spec": {}}
        try:
            await self._kube.create(self._kind.resource, body, namespace=NAMESPACE)
        except Conflict:
            await self._kube.patch(self._kind.resource, name, body={"metadata": {"labels": labels}}, namespace=NAMESPACE)
        status: Json = {
            "node": self._node,
            "serviceName": service.name,
            "serviceNamespace": service.namespace,
            **self._kind.told(words),
        }
        await self._kube.patch(self._kind.resource, name, body={"status": status}, namespace=NAMESPACE, subresource="status")

    async def _withdraw(self, service: NamespacedName) -> None:
        name = self._kind.name(service, self._node)
        try:
            found = await self._kube.get(self._kind.resource, name, namespace=NAMESPACE)
        except NotFound:
            return
        if text_map(found, "metadata", "labels").get(_NODE) == self._node:
            await self._kube.delete(self._kind.resource, name, namespace=NAMESPACE, uid=text(part(found, "metadata"), "uid"))
