"""Ports that may send from pods' addresses: what every mode without encapsulation needs of the cloud."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from moyai.cloud.model import SourceAddress
from moyai.plan import keys
from moyai.plan import steps as s
from moyai.plan.existing import Existing
from moyai.plan.nodes import PlannedNode


def own_range(node: PlannedNode) -> tuple[SourceAddress, ...]:
    return (SourceAddress(node.pod_cidr), *virtual(node))


def virtual(node: PlannedNode) -> tuple[SourceAddress, ...]:
    """The API's address, of a machine that may take it."""
    return (SourceAddress(node.virtual),) if node.virtual else ()


def allow_sources(nodes: Sequence[PlannedNode], existing: Existing) -> Iterator[s.Step]:
    """For ports that exist; a new one is made so."""
    for node in nodes:
        port = existing.ports.get(node.name)
        if port is not None and {pair.address for pair in port.send_from} != {pair.address for pair in own_range(node)}:
            yield s.SetSendFrom(key=keys.port(node.name), port_id=port.id, send_from=own_range(node))
