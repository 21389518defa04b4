"""Where a real packet was seen on its way, and where it vanished, from what the watchers of several nodes report. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from moyai.kube.objects.meta import number, text, texts
from moyai.kube.resources import Json


@dataclass(frozen=True)
class Sighting:
    """``at``: microseconds since the first one, by the nodes' clocks. ``outer``: addresses around the packet, empty for none.
    ``says``: what an answer or an error means; empty for the packet itself."""

    node: str
    link: str
    direction: str
    at: float
    source: str
    destination: str
    ttl: int
    says: str = ""
    vni: int = 0
    outer: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        around = f" in VXLAN, VNI {self.vni}, {' → '.join(self.outer)}" if self.outer else ""
        what = f" {self.says}" if self.says else ""
        way = f"{self.source} → {self.destination}"
        return f"{self.at:>8.0f} µs  {self.link} {self.direction}: {way}, ttl {self.ttl}{what}{around}"


@dataclass(frozen=True)
class LiveTrace:
    """``answer``: what came back to where the packet began, empty for nothing. ``sent``: how many packets; the way is that of
    the one that was seen most often."""

    sightings: tuple[Sighting, ...]
    sent: int
    answer: str = ""

    @property
    def last(self) -> Sighting | None:
        return next((one for one in reversed(self.sightings) if not one.says), None)

    @property
    def last_answer(self) -> Sighting | None:
        return next((one for one in reversed(self.sightings) if one.says), None)

    def data(self) -> dict[str, Any]:
        return asdict(self)


def joined(found: Mapping[str, Sequence[Json]], *, source: str, sent: int) -> LiveTrace:
    """``found``: node → what its watcher reported. ``source``: the node at which the packets began."""
    seen = [(node, one) for node, several in found.items() for one in several]
    if not seen:
        return LiveTrace((), sent)
    most = Counter(text(one, "mark") for _, one in seen).most_common(1)[0][0]
    chosen = sorted(((node, one) for node, one in seen if text(one, "mark") == most), key=lambda pair: _time(pair[1]))
    begin = _time(chosen[0][1])
    sightings = tuple(
        Sighting(
            node,
            text(one, "link"),
            text(one, "direction"),
            at=(_time(one) - begin) * 1e6,
            source=text(one, "source"),
            destination=text(one, "destination"),
            ttl=number(one, "ttl"),
            says=text(one, "says"),
            vni=number(one, "vni"),
            outer=texts(one, "outer"),
        )
        for node, one in chosen
    )
    answer = next((one.says for one in reversed(sightings) if one.says and one.node == source), "")
    return LiveTrace(sightings, sent, answer)


def _time(one: Json) -> float:
    found = one.get("time")
    return float(found) if isinstance(found, int | float) else 0.0
