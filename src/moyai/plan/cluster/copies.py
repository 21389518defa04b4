"""How many copies the controllers have that run on control planes, when the number of control planes changes.

Always holds: a controller gets a second copy only where its copies elect one that works, and not before there is a machine for
it.
"""

from __future__ import annotations

from collections.abc import Iterator

from moyai.core.keys import Key, Kind
from moyai.plan import steps as s
from moyai.plan.addons import copies
from moyai.plan.cluster.situation import Situation


def plan_copies(now: Situation) -> Iterator[s.Step]:
    """Nothing while the API does not answer, and nothing for a cluster that is made now: it begins with as many as it needs."""
    kube, wanted = now.observed.kube, copies(now.spec)
    if kube is None or not now.recorded.ready:
        return
    for name in _copied(now):
        has = kube.copies.get(name, wanted)
        if has > wanted or (has < wanted and name in kube.elected):
            after = (s.reached(s.API), *((s.reached(s.NODES),) if has < wanted else ()))
            yield s.SetCopies(key=Key(Kind.DEPLOYMENT, name), after=after, copies=wanted)


def copies_notes(now: Situation) -> Iterator[str]:
    """Controllers that are to have more copies and would then work twice."""
    kube, wanted = now.observed.kube, copies(now.spec)
    if kube is None or not now.recorded.ready:
        return
    alone = [name for name in _copied(now) if kube.copies.get(name, wanted) < wanted and name not in kube.elected]
    if alone:
        yield (
            f"{', '.join(alone)} of kube-system keep one copy: the cluster was made by an older moyai, whose copies do not "
            "elect one that works"
        )


def _copied(now: Situation) -> tuple[str, ...]:
    return tuple(name for addon in now.addons for name in addon.copied)
