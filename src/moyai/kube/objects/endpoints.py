"""Which nodes have ready endpoints of a Service: the little of an EndpointSlice that an announcement depends on."""

from __future__ import annotations

from dataclasses import dataclass

from moyai.kube.objects.meta import part, rows, text, text_map
from moyai.kube.resources import Json


@dataclass(frozen=True)
class Endpoints:
    """``service``: ``namespace/name`` of the Service that the slice belongs to. ``nodes``: those with a ready endpoint."""

    service: str
    nodes: frozenset[str]


def parse_endpoints(found: Json) -> Endpoints:
    meta = part(found, "metadata")
    owner = text_map(meta, "labels").get("kubernetes.io/service-name", "")
    # an endpoint of which nothing is said is ready, as the API has it
    ready = (one for one in rows(found, "endpoints") if part(one, "conditions").get("ready") is not False)
    return Endpoints(f"{text(meta, 'namespace')}/{owner}", frozenset(filter(None, (text(one, "nodeName") for one in ready))))
