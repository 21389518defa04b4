"""What would bring a pod to a node: the change of a pod or of the spec, in the words of a user.

Always holds: a pool is named only where one more of its nodes would come up in a zone that helps.
"""

from __future__ import annotations

from collections.abc import Iterable

from moyai.diagnose.placement import Obstacle
from moyai.diagnose.pod_facts import PoolFacts


def advice(pools: tuple[PoolFacts, ...], reasons: Iterable[tuple[Obstacle, ...]], *, zones: tuple[str, ...] = ()) -> list[str]:
    """What would help, from the nodes that are kept by the fewest reasons."""
    listed = [why for why in reasons if why]
    if not listed:
        return []
    kinds = {one.kind for why in listed for one in why if len(why) == min(map(len, listed))}
    found: list[str] = []
    if "ready" in kinds:
        found.append("`moyai status` says what the machines do, and `moyai up` starts those that are off")
    if "cordoned" in kinds:
        found.append("`moyai kubectl uncordon NODE` lets pods in again")
    if kinds & {"cpu", "memory"}:
        found.append("lower the pod's requests, or " + more_nodes(pools, zones))
    elif kinds & {"attach", "pods"}:
        found.append(more_nodes(pools, zones))
    if "taint" in kinds:
        found.append("give the pod a toleration, or " + more_nodes(pools, zones))
    if "selector" in kinds:
        found.append("change the pod's selector, or give a pool of the spec these labels (new nodes get them)")
    if "driver" in kinds:
        found.append("`moyai kubectl -n kube-system get daemonsets` says whether the volume driver runs everywhere")
    return found


def more_nodes(pools: tuple[PoolFacts, ...], zones: tuple[str, ...] = ()) -> str:
    """The change of the spec that brings one more node (to one of ``zones``, where given)."""
    if not zones:
        if not pools:
            return "add a pool to the spec and run `moyai up`"
        name = f"pool {pools[0].name}" if len(pools) == 1 else "a pool"
        return f"raise `replicas` of {name} in the spec and run `moyai up`"
    where = " or ".join(zones)
    best: tuple[int, PoolFacts, str] | None = None
    for pool in pools:
        for number in range(pool.replicas, pool.replicas + len(pool.zones)):
            zone = pool.zones[number % len(pool.zones)]
            if zone in zones and (best is None or number + 1 - pool.replicas < best[0]):
                best = (number + 1 - pool.replicas, pool, zone)
                break
    if best is None:
        if any(not pool.zones for pool in pools):
            return f"raise `replicas` of a pool in the spec until a node comes up in {where}, and run `moyai up`"
        return f"add a pool with `zones: [{zones[0]}]` to the spec and run `moyai up`"
    more, pool, zone = best
    turns = f" (its nodes take turns in {', '.join(pool.zones)})" if len(pool.zones) > 1 else ""
    goal = f"from {pool.replicas} to {pool.replicas + more}"
    return f"raise `replicas` of pool {pool.name} {goal} in the spec, for a node in {zone}{turns}, and run `moyai up`"
