"""Where machines have their roots, and how those of a pool are kept on different hosts.

A group that keeps machines apart is made with the first machine that it is for: a cluster that exists gets none for the
machines that it has. Machines stay in the group that they were made in, and a group keeps its rule.
"""

from __future__ import annotations

from collections.abc import Iterator

from moyai.cloud.capabilities import Capability
from moyai.cloud.model import RootDisk
from moyai.core.errors import UsageError
from moyai.plan import keys
from moyai.plan import steps as s
from moyai.plan.cluster.situation import Situation
from moyai.plan.nodes import CONTROL_PLANE_POOL
from moyai.spec.model import ClusterSpec
from moyai.spec.root_volume import AntiAffinity


def spread_pools(spec: ClusterSpec) -> tuple[str, ...]:
    """The pools, among them the control plane, whose machines may be in a group."""
    return (CONTROL_PLANE_POOL, *(pool.name for pool in spec.node_pools))


def root_of(spec: ClusterSpec, pool: str) -> RootDisk | None:
    """The root volume of a pool's machines; None for the flavor's disk."""
    found = next((one for one in spec.node_pools if one.name == pool), spec.control_plane).root_volume
    return RootDisk(found.size_gib, found.type) if found.size_gib else None


def rule_of(spec: ClusterSpec, pool: str) -> AntiAffinity:
    """The rule of a pool, ``auto`` resolved: control planes that may be several are kept apart where that is possible."""
    found = next((one for one in spec.node_pools if one.name == pool), spec.control_plane)
    if found.anti_affinity != "auto":
        return found.anti_affinity
    return "soft" if found is spec.control_plane and spec.control_plane.virtual else "none"


def spreads(now: Situation, pool: str) -> bool:
    """Whether new machines of a pool are made in its group."""
    return Capability.SPREAD in now.observed.capabilities and rule_of(now.cluster.spec, pool) != "none"


def plan_spread(now: Situation) -> Iterator[s.Step]:
    """The groups of pools that get machines now. UsageError for a rule that the group of a pool does not have."""
    for pool in dict.fromkeys(node.pool for node in now.nodes if not now.lives(node.name)):
        if not spreads(now, pool):
            continue
        strict, group = rule_of(now.cluster.spec, pool) == "hard", now.existing.spread_groups.get(pool)
        if group is None:
            name = keys.unique_name(now.cluster.name, now.recorded.uid, what=pool)
            yield s.CreateSpreadGroup(key=keys.spread_group(pool), name=name, strict=strict)
        elif group.strict != strict:
            has = "hard" if group.strict else "soft"
            where = "spec.controlPlane" if pool == CONTROL_PLANE_POOL else f"spec.nodePools[{pool}]"
            raise UsageError(f"{where}.antiAffinity: should be {has!r} or 'none': the group {group.name} keeps the rule it has")


def check_spread(spec: ClusterSpec, offered: frozenset[Capability]) -> None:
    """Raises UsageError for what a spec asks of its machines and the cloud cannot do."""
    places = [("spec.controlPlane", spec.control_plane)]
    places += [(f"spec.nodePools[{number}]", pool) for number, pool in enumerate(spec.node_pools)]  # type: ignore[misc]
    for where, one in places:
        if one.anti_affinity in ("soft", "hard") and Capability.SPREAD not in offered:
            lacks = f"cloud {spec.cloud} has no {Capability.SPREAD}"
            raise UsageError(f"{where}.antiAffinity: {one.anti_affinity!r}, should be left out: {lacks}")
        if one.root_volume.size_gib and Capability.ROOT_VOLUMES not in offered:
            raise UsageError(f"{where}.rootVolume: should be left out: cloud {spec.cloud} has no {Capability.ROOT_VOLUMES}")


def spread_notes(now: Situation) -> Iterator[str]:
    plane = now.cluster.spec.control_plane
    if (
        plane.virtual
        and plane.anti_affinity == "auto"
        and Capability.SPREAD not in now.observed.capabilities
        and now.makes_cluster
    ):
        yield f"cloud {now.cluster.spec.cloud} has no {Capability.SPREAD}: control planes may share a host"
