"""Which nodes have ready endpoints of a Service, and which pods are behind it: what moyai reads of an EndpointSlice."""

from __future__ import annotations

from dataclasses import dataclass

from moyai.kube.objects.meta import part, rows, text, text_map, texts
from moyai.kube.resources import Json


@dataclass(frozen=True)
class Endpoints:
    """``service``: ``namespace/name`` of the Service that the slice belongs to. ``nodes``: those with a ready endpoint.
    ``pods``: addresses of pods, ready or not."""

    service: str
    nodes: frozenset[str]
    pods: frozenset[str] = frozenset()

    @property
    def announced(self) -> tuple[str, frozenset[str]]:
        """What an announcement depends on."""
        return (self.service, self.nodes)


def parse_endpoints(found: Json) -> Endpoints:
    meta = part(found, "metadata")
    owner = text_map(meta, "labels").get("kubernetes.io/service-name", "")
    # an endpoint of which nothing is said is ready, as the API has it
    ready = (one for one in rows(found, "endpoints") if part(one, "conditions").get("ready") is not False)
    nodes = frozenset(filter(None, (text(one, "nodeName") for one in ready)))
    own = (one for one in rows(found, "endpoints") if text(part(one, "targetRef"), "kind") == "Pod")
    pods = frozenset(address for one in own for address in texts(one, "addresses"))
    return Endpoints(f"{text(meta, 'namespace')}/{owner}", nodes, pods)
