"""Ports that may send from other addresses than their own: those of pods, of the API, of Services that nodes announce.

Always holds: a port is created with the same addresses to which it is repaired.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from moyai.cloud.model import SourceAddress
from moyai.plan import keys
from moyai.plan import steps as s
from moyai.plan.existing import Existing
from moyai.plan.nodes import PlannedNode


def own_range(node: PlannedNode) -> tuple[SourceAddress, ...]:
    return (SourceAddress(node.pod_cidr), *besides_pods(node))


def besides_pods(node: PlannedNode) -> tuple[SourceAddress, ...]:
    """The API's address, of a machine that may take it, and the addresses of announced Services."""
    return tuple(SourceAddress(one) for one in (*([node.virtual] if node.in_turns else []), *node.announced))


def allow_sources(
    nodes: Sequence[PlannedNode],
    existing: Existing,
    *,
    send_from: Callable[[PlannedNode], tuple[SourceAddress, ...]] = own_range,
    keep: bool = False,
) -> Iterator[s.Step]:
    """For ports that exist; a new one is made so. ``keep``: what others added to a port stays."""
    for node in nodes:
        port = existing.ports.get(node.name)
        if port is None:
            continue
        wanted = send_from(node)
        have, want = {pair.address for pair in port.send_from}, {pair.address for pair in wanted}
        if have != want and not (keep and want <= have):
            kept = [pair for pair in port.send_from if keep and pair.address not in want]
            yield s.SetSendFrom(key=keys.port(node.name), port_id=port.id, send_from=(*wanted, *kept))
