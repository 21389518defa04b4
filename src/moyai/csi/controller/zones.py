"""Which zones of machines reach which zones of volumes, and in which zone a new volume is made. Pure.

Machines and volumes have separate zones. If both have a zone of one name, machines of that zone reach volumes of that zone. If
one of the two has a single zone, this zone reaches all zones of the other. In all other cases the attachments count: a volume
of zone V that is attached to a machine of zone M proves that M reaches V. Kubernetes sees only the machines' zones.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from moyai.csi.errors import Refused


@dataclass(frozen=True)
class ZoneMap:
    """``edges``: (zone of machines, zone of volumes) where the one reaches the other."""

    edges: frozenset[tuple[str, str]]

    def for_machines(self, zone: str) -> tuple[str, ...]:
        """The zones of volumes that machines of ``zone`` reach, the one of the same name first."""
        return _sorted(zone, (volumes for machines, volumes in self.edges if machines == zone))

    def for_volumes(self, zone: str) -> tuple[str, ...]:
        """The zones of machines that reach volumes of ``zone``, the one of the same name first."""
        return _sorted(zone, (machines for machines, volumes in self.edges if volumes == zone))


def _sorted(same: str, zones: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(zones), key=lambda zone: (zone != same, zone)))


def learn(
    machines: Collection[str],
    volumes: Collection[str],
    *,
    seen: Iterable[tuple[str, str]] = (),
    ignore: bool = False,
) -> ZoneMap:
    """``machines`` and ``volumes``: the zones of either. ``seen``: (machine's zone, volume's zone) of volumes in use now.
    ``ignore``: the operator says that zones do not matter."""
    if ignore or len(set(volumes)) == 1 or len(set(machines)) == 1:
        return ZoneMap(frozenset((one, other) for one in machines for other in volumes))
    known = {(one, other) for one, other in seen if one in machines and other in volumes}
    return ZoneMap(frozenset({(zone, zone) for zone in machines if zone in volumes} | known))


def is_plain(machines: Collection[str], volumes: Collection[str]) -> bool:
    """Whether the names alone decide, so that volumes in use need not be read."""
    return len(set(volumes)) == 1 or len(set(machines)) == 1 or set(machines) <= set(volumes)


@dataclass(frozen=True)
class Place:
    """Where a volume is made: ``zone`` (empty: the cloud chooses), for pods of ``machine_zones``."""

    zone: str
    machine_zones: tuple[str, ...]


def choose(
    zones: ZoneMap,
    *,
    preferred: Sequence[str] = (),
    requisite: Sequence[str] = (),
    availability: str = "",
    source: str = "",
) -> Place:
    """The place of a new volume.

    ``preferred`` and ``requisite``: machines' zones, from the scheduler. ``availability``: the zone of volumes that the
    StorageClass demands. ``source``: the zone of the volume or snapshot that is copied; the copy is created in the same
    zone. Raises RESOURCE_EXHAUSTED if no zone of volumes fits; the scheduler then looks for another node.
    """
    if availability and source and availability != source:
        raise Refused(
            "INVALID_ARGUMENT", f"the class wants the zone {availability}, but the source of the copy is in the zone {source}"
        )
    fixed = availability or source
    wanted = [*dict.fromkeys([*preferred, *requisite])]
    if fixed:
        reachable = zones.for_volumes(fixed)
        if requisite and not set(reachable) & set(requisite):
            why = "the source of the copy is" if source else "the class wants the volume"
            raise Refused("RESOURCE_EXHAUSTED", f"{why} in the zone {fixed}, which no machine in {_words(requisite)} reaches")
        return Place(fixed, reachable)
    for zone in wanted:
        if found := zones.for_machines(zone):
            return Place(found[0], zones.for_volumes(found[0]))
    if wanted:
        raise Refused("RESOURCE_EXHAUSTED", f"the cloud has no volumes for machines in {_words(wanted)}")
    return Place("", ())


def _words(zones: Sequence[str]) -> str:
    return f"the zone {zones[0]}" if len(zones) == 1 else f"the zones {', '.join(zones)}"
