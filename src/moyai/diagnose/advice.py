"""What would bring a pod to a node: the change of a pod or of the spec, in the words of a user.

Always holds: a pool is named only where one more of its nodes would come up in a zone that helps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from moyai.diagnose.placement import Obstacle
from moyai.diagnose.pod_facts import MissingNode, PoolFacts, several


def advice(
    pools: tuple[PoolFacts, ...], reasons: Mapping[str, tuple[Obstacle, ...]], *, zones: tuple[str, ...] = ()
) -> list[str]:
    """What would help, from the nodes that are kept by the fewest reasons. ``reasons``: by node."""
    listed = {node: why for node, why in reasons.items() if why}
    if not listed:
        return []
    fewest = min(map(len, listed.values()))
    kept: dict[str, list[str]] = {}
    for node, why in listed.items():
        for one in why if len(why) == fewest else ():
            kept.setdefault(one.kind, []).append(node)
    kinds = kept.keys()
    found: list[str] = []
    if "ready" in kinds:
        names = several(kept["ready"])
        found.append(f"`moyai status` says what the machine of {names} does, and `moyai up` starts or restarts it")
    if "cordoned" in kinds:
        found.append(f"`moyai kubectl uncordon {kept['cordoned'][0]}` lets pods in again")
    if kinds & {"cpu", "memory"}:
        found.append("lower the pod's requests, or " + more_nodes(pools, zones))
    elif kinds & {"attach", "pods"}:
        found.append(more_nodes(pools, zones))
    if "taint" in kinds:
        found.append("give the pod a toleration, or " + more_nodes(pools, zones))
    if "selector" in kinds:
        found.append("change the pod's selector, or give a pool of the spec these labels (new nodes get them)")
    if "driver" in kinds:
        where = f"--field-selector spec.nodeName={kept['driver'][0]}"
        found.append(f"`moyai kubectl -n kube-system get pods {where}` shows what the volume driver's pod does there")
    return found


def comes_back(missing: Iterable[MissingNode]) -> list[str]:
    """What brings nodes back that the cluster should have; empty where none is missing."""
    names = [one.name for one in missing]
    return [f"`moyai up` brings node {several(names)} back"] if names else []


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
