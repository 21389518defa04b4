"""Which sessions are up, by what FRR reports, and what events report about those that are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from moyai.core.clock import Clock
from moyai.linux.frr import Adjacency

#: Seconds after which a session that was never up is reported.
PATIENCE = 10.0


@dataclass
class _WatchedSession:
    """``since``: when it began to be wanted, or went down. ``password``: how many packets the kernel had dropped by then."""

    name: str
    since: float
    drops: int
    up: bool = False
    reported: bool = False
    secured: bool = False
    node: bool = False
    why: str = ""


@dataclass(frozen=True)
class WantedSession:
    """``name``: for users. ``node``: with another node. ``secured``: it has a password."""

    name: str
    node: bool = False
    secured: bool = False


class SessionWatch:
    """``drops``: packets that the kernel dropped for their password."""

    def __init__(self, clock: Clock, drops: Callable[[], int]) -> None:
        self._clock, self._drops = clock, drops
        self._watched: dict[str, _WatchedSession] = {}
        #: How often a session went down.
        self.downs = 0

    @property
    def up(self) -> int:
        return sum(one.up for one in self._watched.values())

    @property
    def down(self) -> int:
        return len(self._watched) - self.up

    def wanted(self, sessions: Mapping[str, WantedSession]) -> None:
        """``sessions``: address → session."""
        now, drops = self._clock.monotonic(), self._drops()
        self._watched = {
            address: self._watched.get(address) or _WatchedSession(one.name, now, drops, secured=one.secured, node=one.node)
            for address, one in sessions.items()
        }
        for address, one in sessions.items():
            # a node that is replaced leaves its address to another one
            watched = self._watched[address]
            watched.name, watched.secured, watched.node = one.name, one.secured, one.node

    def of_node(self, address: str) -> bool:
        """Whether it is a session with another node of the cluster."""
        one = self._watched.get(address)
        return one is not None and one.node

    def all_down(self) -> None:
        """FRR has ended."""
        for one in self._watched.values():
            one.up, one.since, one.reported = False, self._clock.monotonic(), False

    def heard(self, change: Adjacency) -> str:
        """Returns what to say of it, empty for nothing."""
        one = self._watched.get(change.neighbour)
        if one is None or one.up == change.up:
            return ""
        self.downs += one.up
        one.up, one.since, one.drops, one.reported = change.up, self._clock.monotonic(), self._drops(), False
        one.why = change.why
        return f"BGP session with {one.name} ({change.neighbour}) is {'up' if change.up else f'down: {change.why}'}"

    def overdue(self) -> Iterator[tuple[bool, str]]:
        """What to say of sessions that do not come up, each once, and whether it is one with a node."""
        for address, one in self._watched.items():
            if one.up or one.reported or self._clock.monotonic() - one.since < PATIENCE:
                continue
            one.reported = True
            said = f"no BGP session with {one.name} ({address}) for {PATIENCE:.0f} s"
            if dropped := self._drops() - one.drops:
                yield one.node, f"{said}: {dropped} packets had a wrong password, or should have one"
            elif one.secured:
                yield one.node, f"{said}: the router does not answer; its address, port or password may be wrong"
            else:
                why = f" ({one.why})" if one.why else ""
                yield one.node, f"{said}: it does not answer, or wants a password or another AS{why}"

    @property
    def waiting(self) -> float | None:
        """Seconds until the next session is overdue, None for none."""
        now = self._clock.monotonic()
        return min((one.since + PATIENCE - now for one in self._watched.values() if not (one.up or one.reported)), default=None)
