"""A pod that no node takes: what keeps it from each of them.

Always holds: a disk that only some zones can reach is the reason before all others, because nodes elsewhere do not help.
"""

from __future__ import annotations

from dataclasses import dataclass

from moyai.diagnose.advice import advice, comes_back, more_nodes
from moyai.diagnose.case import Case, line
from moyai.diagnose.placement import CandidateNode, Disk, Obstacle, obstacles
from moyai.diagnose.pod_facts import Explanation, MissingNode, NodeVerdict, several

#: What does not end by itself: a node that has it does not take the pod when it is Ready, free or uncordoned either.
_LASTING = frozenset({"taint", "selector", "driver"})


@dataclass(frozen=True)
class _Judged:
    node: CandidateNode
    obstacles: tuple[Obstacle, ...]

    @property
    def lasting(self) -> bool:
        return any(one.kind in _LASTING for one in self.obstacles)

    @property
    def verdict(self) -> NodeVerdict:
        return NodeVerdict(self.node.name, self.node.zone, tuple(one.text for one in self.obstacles))

    def reaches(self, disk: Disk) -> bool:
        return self.node.zone in disk.zones

    def __str__(self) -> str:
        return f"{self.node.name} {' and '.join(one.text for one in self.obstacles)}"


def unplaced(case: Case) -> Explanation:
    facts = case.facts
    if case.pod.gates:
        why = f"it is held back by its scheduling gates {', '.join(case.pod.gates)}"
        return case.say("gated", why, "the controller that set them must remove them")
    if not facts.nodes:
        help_ = comes_back(facts.missing) or [more_nodes(facts.pools)]
        return case.say("no-node", f"the cluster has no node{_absent(facts.missing)}", *help_)
    judged = tuple(_Judged(node, obstacles(node, facts.requirements, disks=facts.disks)) for node in facts.nodes)
    for disk in facts.disks:
        if disk.zones and not any(one.reaches(disk) and not one.obstacles for one in judged):
            return _zone(case, disk, judged=judged)
    free = [one.node.name for one in judged if not one.obstacles]
    return _unknown(case, judged, free=free) if free else _no_place(case, judged)


def _absent(missing: tuple[MissingNode, ...]) -> str:
    """The end of a sentence about nodes: those that the cluster should have and that nobody sees."""
    names = several([f"{one.name} ({one.zone})" if one.zone else one.name for one in missing])
    return f"; node {names} is missing" if missing else ""


def _unknown(case: Case, judged: tuple[_Judged, ...], *, free: list[str]) -> Explanation:
    said = f", but the scheduler says: {line(case.pod.scheduler)}" if case.pod.scheduler else " yet"
    why = f"no reason is known here why {several(free)} does not take it{said}"
    return case.say("unknown", why, nodes=tuple(one.verdict for one in judged))


def _no_place(case: Case, judged: tuple[_Judged, ...]) -> Explanation:
    whose = f"none of the {len(judged)} nodes takes it" if len(judged) > 1 else "the only node does not take it"
    missing = case.facts.missing
    why = f"{whose}: {'; '.join(map(str, judged))}{_absent(missing)}"
    help_ = comes_back(missing) or advice(case.facts.pools, {one.node.name: one.obstacles for one in judged})
    return case.say("no-place", why, *help_, nodes=tuple(one.verdict for one in judged))


def _zone(case: Case, disk: Disk, *, judged: tuple[_Judged, ...]) -> Explanation:
    """A disk that only nodes of some zones can reach, and none of them takes the pod."""
    zone = " or ".join(disk.zones)
    here = [one for one in judged if one.reaches(disk)]
    away = [one.node for one in judged if not one.reaches(disk)]
    why = f"the disk of its claim {disk.claim} (volume {disk.volume}) is in zone {zone}, "
    why += f"and no node there takes the pod: {'; '.join(map(str, here))}" if here else "where the cluster has no node"
    if away:
        others = sorted({node.zone or "no zone" for node in away})
        why += f"; {several([node.name for node in away])} ({', '.join(others)}) cannot reach it"
    missing = tuple(one for one in case.facts.missing if one.zone in disk.zones)
    why += _absent(missing)
    passing = {one.node.name: one.obstacles for one in here if not one.lasting}
    help_ = comes_back(missing) or advice(case.facts.pools, passing, zones=disk.zones)
    if not missing and not any("raise `replicas`" in one for one in help_):
        help_.append(more_nodes(case.facts.pools, disk.zones))
    nodes = tuple(one.verdict for one in judged)
    return case.say("zone", why, *help_, volume=disk.volume, zone=zone, nodes=nodes)
