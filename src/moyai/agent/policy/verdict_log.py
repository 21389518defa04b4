"""What policies with a log have denied, as lines of the agent's log. A line names the sender, the receiver and the policy.

Always holds: a flow has at most one line in a minute, however often it is tried. One look at the kernel writes at most
``_MOST`` lines, and a last line counts the flows that were left out. Nothing is asked of the kernel while no policy of this
node's pods wants a log.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from moyai.agent.policy.flows import NotedFlow
from moyai.plan.network_policy.index import PolicyIndex

_log = logging.getLogger(__name__)
#: Seconds between two looks, and after which a flow that goes on has another line.
PAUSE = 10.0
_AGAIN = 60.0
#: Lines of one look.
_MOST = 50


class VerdictLog:
    """``index``: names pods, and says which policy denies."""

    def __init__(self, index: PolicyIndex) -> None:
        self._index = index
        self._logged: dict[tuple[str, str, str, int], float] = {}

    @property
    def wanted(self) -> bool:
        return self._index.logs

    def log(self, flows: Iterable[NotedFlow], *, now: float) -> None:
        """``flows``: all that the kernel has noted. ``now``: on a clock of seconds."""
        self._logged = {key: moment for key, moment in self._logged.items() if now - moment < _AGAIN}
        lines = left_out = 0
        for flow in flows:
            key = (flow.source, flow.destination, flow.protocol, flow.port)
            # the kernel keeps flows longer than they last; a second more, as it counts whole ones
            if flow.seconds > PAUSE + 1 or key in self._logged:
                continue
            self._logged[key] = now
            if lines >= _MOST:
                left_out += 1
                continue
            lines += 1
            why = self._index.denier(flow.source, flow.destination, protocol=flow.protocol, port=flow.port)
            _log.info(
                "denied: %s to %s port %d/%s: %s",
                _place(self._index, flow.source),
                _place(self._index, flow.destination),
                flow.port,
                flow.protocol,
                why or "the policies that denied it have changed",
            )
        if left_out:
            _log.info("denied: %d more flows", left_out)


def _place(index: PolicyIndex, address: str) -> str:
    name = index.named(address)
    return address if name == address else f"{name} ({address})"
