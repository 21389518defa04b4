"""MetalLB's ServiceL2Status objects: which node announces a Service, for users and for their tools.

Always holds: a Service has one, by its owner; a node deletes only those that name it.
"""

from __future__ import annotations

from collections.abc import Mapping

from moyai.core.errors import Conflict, NotFound
from moyai.kube.objects.meta import part, text, text_map
from moyai.kube.resources import SERVICE_L2_STATUSES, Json
from moyai.kube.watching import Kube
from moyai.plan.announce.metallb_words import NAMESPACE, status_name

_NODE, _SERVICE, _OF = "metallb.io/node", "metallb.io/service-name", "metallb.io/service-namespace"


class L2Statuses:
    """``node``: this machine's."""

    def __init__(self, kube: Kube, node: str) -> None:
        self._kube = kube
        self._node = node
        self._published: dict[str, tuple[str, ...]] | None = None

    async def sync(self, wanted: Mapping[str, tuple[str, ...]]) -> None:
        """``wanted``: Service (``namespace/name``) → interfaces, of those that this node announces. Raises MoyaiError."""
        if self._published is None:
            self._published = await self._earlier()
        for service in [one for one in self._published if one not in wanted]:
            await self._withdraw(service)
            del self._published[service]
        for service, interfaces in wanted.items():
            if self._published.get(service) != interfaces:
                await self._publish(service, interfaces)
                self._published[service] = interfaces

    async def _earlier(self) -> dict[str, tuple[str, ...]]:
        """What an earlier process of this node left."""
        found, _ = await self._kube.list(SERVICE_L2_STATUSES, namespace=NAMESPACE)
        labels = (text_map(one, "metadata", "labels") for one in found)
        return {f"{one.get(_OF, '')}/{one.get(_SERVICE, '')}": () for one in labels if one.get(_NODE) == self._node}

    async def _publish(self, service: str, interfaces: tuple[str, ...]) -> None:
        namespace, _, short = service.partition("/")
        name = status_name(service)
        labels = {_NODE: self._node, _SERVICE: short, _OF: namespace}
        meta: Json = {"name": name, "namespace": NAMESPACE, "labels": labels}
        body: Json = {"apiVersion": "metallb.io/v1beta1", "kind": "ServiceL2Status", "metadata": meta, "spec": {}}
        try:
            await self._kube.create(SERVICE_L2_STATUSES, body, namespace=NAMESPACE)
        except Conflict:
            await self._kube.patch(SERVICE_L2_STATUSES, name, body={"metadata": {"labels": labels}}, namespace=NAMESPACE)
        status: Json = {
            "node": self._node,
            "serviceName": short,
            "serviceNamespace": namespace,
            "interfaces": [{"name": one} for one in interfaces],
        }
        await self._kube.patch(SERVICE_L2_STATUSES, name, body={"status": status}, namespace=NAMESPACE, subresource="status")

    async def _withdraw(self, service: str) -> None:
        name = status_name(service)
        try:
            found = await self._kube.get(SERVICE_L2_STATUSES, name, namespace=NAMESPACE)
        except NotFound:
            return
        if text_map(found, "metadata", "labels").get(_NODE) == self._node:
            await self._kube.delete(SERVICE_L2_STATUSES, name, namespace=NAMESPACE, uid=text(part(found, "metadata"), "uid"))
