"""Which sessions are up, by what FRR reports, and what a user is told of those that are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from moyai.core.clock import Clock
from moyai.linux.frr import Adjacency

#: Seconds after which a session that was never up is reported.
PATIENCE = 10.0


@dataclass
class _Watched:
    """``since``: when it began to be wanted, or went down. ``password``: how many packets the kernel had dropped by then."""

    name: str
    since: float
    drops: int
    up: bool = False
    reported: bool = False
    secured: bool = False
    why: str = ""


class SessionWatch:
    """``drops``: packets that the kernel dropped for their password."""

    def __init__(self, clock: Clock, drops: Callable[[], int]) -> None:
        self._clock, self._drops = clock, drops
        self._watched: dict[str, _Watched] = {}
        #: How often a session went down.
        self.downs = 0

    @property
    def up(self) -> int:
        return sum(one.up for one in self._watched.values())

    @property
    def down(self) -> int:
        return len(self._watched) - self.up

    def wanted(self, sessions: Mapping[str, tuple[str, bool]]) -> None:
        """``sessions``: address → name for users, and whether it has a password."""
        self._watched = {
            address: self._watched.get(address) or _Watched(name, self._clock.monotonic(), self._drops(), secured=secured)
            for address, (name, secured) in sessions.items()
        }

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

    def overdue(self) -> Iterator[str]:
        """What to say of sessions that do not come up, each once."""
        for address, one in self._watched.items():
            if one.up or one.reported or self._clock.monotonic() - one.since < PATIENCE:
                continue
            one.reported = True
            said = f"no BGP session with {one.name} ({address}) for {PATIENCE:.0f} s"
            if dropped := self._drops() - one.drops:
                yield f"{said}: {dropped} packets had a wrong password, or should have one"
            elif one.secured:
                yield f"{said}: the router does not answer; its address, port or password may be wrong"
            else:
                why = f" ({one.why})" if one.why else ""
                yield f"{said}: the router does not answer, or wants a password or another AS{why}"

    @property
    def waiting(self) -> float | None:
        """Seconds until the next session is overdue, None for none."""
        now = self._clock.monotonic()
        return min((one.since + PATIENCE - now for one in self._watched.values() if not (one.up or one.reported)), default=None)
