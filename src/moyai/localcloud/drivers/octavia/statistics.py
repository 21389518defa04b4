"""Pure: HAProxy's and nftables' counters → what each listener gained since the last look.

Counters begin again with every process and rule set, so a number smaller than the last one is a new beginning, not a loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from moyai.linux.haproxy import Row
from moyai.localcloud.drivers.octavia.balancer_tree import LoadBalancer
from moyai.localcloud.drivers.octavia.nft_rules import counter_name

Datagrams = Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Counters:
    """Of one listener. ``active`` is a state, the others only grow. UDP has no connections: datagrams are counted as such."""

    bytes_in: int = 0
    bytes_out: int = 0
    active: int = 0
    total: int = 0
    errors: int = 0

    def since(self, former: Counters) -> Counters:
        """What was gained since then."""
        return Counters(
            _gain(self.bytes_in, former.bytes_in),
            _gain(self.bytes_out, former.bytes_out),
            self.active,
            _gain(self.total, former.total),
            _gain(self.errors, former.errors),
        )

    def as_delta(self, listener_id: str) -> dict[str, int | str]:
        """In Octavia's words."""
        return {
            "id": listener_id,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "active_connections": self.active,
            "total_connections": self.total,
            "request_errors": self.errors,
        }


def read(balancer: LoadBalancer, rows: list[Row], *, datagrams: Datagrams) -> dict[str, Counters]:
    """The counters of every listener that is served, by its id."""
    fronts = {row.proxy: row for row in rows if row.server == "FRONTEND"}
    found: dict[str, Counters] = {}
    for listener in balancer.live_listeners:
        if listener.protocol == "UDP":
            asked = datagrams.get(counter_name(listener.id, "original"))
            answered = datagrams.get(counter_name(listener.id, "reply"), (0, 0))
            if asked:
                found[listener.id] = Counters(asked[1], answered[1], 0, asked[0], 0)
        elif row := fronts.get(listener.id):
            found[listener.id] = Counters(row.bytes_in, row.bytes_out, row.sessions, row.sessions_total, row.errors)
    return found


def _gain(now: int, former: int) -> int:
    return now - former if now >= former else now
