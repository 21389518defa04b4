"""What a phase of a simulation cost, and whether it grows with the number of objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

#: Calls for one object may be this many times those at the smallest size that counts.
CALLS = 1.2
#: And objects that are read for one: a list now and then is longer where there are more of them, one for each is a square.
ANSWERS = 2.0
#: Below it the calls that are made once weigh too much.
SMALLEST = 10


@dataclass(frozen=True)
class Phase:
    """``objects``: how many nodes or Services (``unit``) it was about. ``answered``: objects in the cloud's answers."""

    name: str
    unit: str
    objects: int
    seconds: float
    cloud: Mapping[str, int]
    answered: Mapping[str, int]
    kubernetes: Mapping[str, int]

    def each(self, counted: Mapping[str, int]) -> float:
        return sum(counted.values()) / self.objects


@dataclass(frozen=True)
class Run:
    """One size. ``planning``: seconds that the plan of the empty cloud took; ``peak_mb``: the process's most memory."""

    nodes: int
    services: int
    planning: float
    phases: tuple[Phase, ...]
    peak_mb: float = 0.0


@dataclass(frozen=True)
class Growth:
    """One thing that costs more per object where there are more of them."""

    phase: str
    what: str
    small: float
    large: float
    #: Call → how many more of them, or of their answers, for one object.
    worst: Mapping[str, float]

    def __str__(self) -> str:
        worst = ", ".join(f"{name} {number:+.1f}" for name, number in self.worst.items())
        return f"{self.phase}: {self.what} grow from {self.small:.1f} to {self.large:.1f} ({worst})"


def growing(runs: Sequence[Run]) -> list[Growth]:
    """What costs more for one object where there are more of them."""
    counted = [one for one in runs if min(one.nodes, one.services) >= SMALLEST]
    found: list[Growth] = []
    for base in counted[0].phases if counted else ():
        for run in counted[1:]:
            phase = next(one for one in run.phases if one.name == base.name)
            for what, small, large, bound in (
                ("calls to the cloud", base.cloud, phase.cloud, CALLS),
                ("calls to Kubernetes", base.kubernetes, phase.kubernetes, CALLS),
                ("objects read from the cloud", base.answered, phase.answered, ANSWERS),
            ):
                before, after = base.each(small), phase.each(large)
                if after > bound * before:
                    each = {name: large[name] / phase.objects - small.get(name, 0) / base.objects for name in large}
                    worst = dict(sorted(each.items(), key=lambda one: -one[1])[:3])
                    found.append(Growth(f"{base.name} of {phase.objects}", f"{what} per {base.unit}", before, after, worst))
    return found


def table(run: Run) -> list[str]:
    """One size as lines of text."""
    lines = [
        f"{run.nodes} nodes, {run.services} Services: planned in {run.planning:.2f} s, {run.peak_mb:.0f} MiB",
        f"  {'':24} {'cloud':>8} {'each':>7} {'read':>9} {'each':>8} {'Kubernetes':>11} {'each':>7} {'seconds':>8}",
    ]
    for phase in run.phases:
        total, read, kube = (sum(one.values()) for one in (phase.cloud, phase.answered, phase.kubernetes))
        lines.append(
            f"  {phase.name:24} {total:8} {phase.each(phase.cloud):7.1f} {read:9} {phase.each(phase.answered):8.1f}"
            f" {kube:11} {phase.each(phase.kubernetes):7.1f} {phase.seconds:8.1f}"
        )
        most = Counter(phase.cloud).most_common(6)
        lines.append("    " + ", ".join(f"{name} {number / phase.objects:.2f}" for name, number in most))
    return lines
