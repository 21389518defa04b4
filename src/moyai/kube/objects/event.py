"""Events as a reader sees them; ``kube.events`` records them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from moyai.kube.objects.meta import part, text
from moyai.kube.resources import Json


@dataclass(frozen=True)
class ObjectEvent:
    """``kind``: Normal or Warning. ``time``: as the API has it, for users to read."""

    kind: str
    reason: str
    message: str
    time: str = ""


def parse_event(found: Json) -> ObjectEvent:
    times = (
        text(part(found, "series"), "lastObservedTime"),
        text(found, "lastTimestamp"),
        text(found, "eventTime"),
        text(part(found, "metadata"), "creationTimestamp"),
    )
    return ObjectEvent(text(found, "type"), text(found, "reason"), text(found, "message"), next(filter(None, times), ""))


def in_order(events: Iterable[ObjectEvent]) -> tuple[ObjectEvent, ...]:
    """By their time."""
    return tuple(sorted(events, key=lambda event: event.time))


def by_object(found: Iterable[Json]) -> Mapping[str, tuple[ObjectEvent, ...]]:
    """UID of the object that an event is about → its events, by their time."""
    groups: dict[str, list[ObjectEvent]] = defaultdict(list)
    for one in found:
        groups[text(part(one, "involvedObject"), "uid")].append(parse_event(one))
    return {uid: in_order(events) for uid, events in groups.items()}
