"""Add-ons that a cluster that runs gets, changes or loses, because its spec changed or because somebody deleted them.

Always holds: before the objects of an add-on are deleted, its pods remove from every node what they have changed there. If a
pod does not, `up` fails, and the next `up` tries again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from moyai.core.keys import Key, Kind
from moyai.plan import steps as s
from moyai.plan.addons import Addon
from moyai.plan.cluster.situation import Situation


def plan_live_addons(now: Situation) -> Iterator[s.Step]:
    """What a new cluster's control plane is about to apply itself is not missing. While the API does not answer, only what no
    later look would find."""
    kube = now.observed.kube
    if not now.recorded.ready:
        return
    paths = {change.path for change in now.changes}
    changed = "spec.network.policy" in paths
    # without the mode, nodes speak to routers only about Services
    bgp = now.spec.network.mode == "bgp" or bool(now.spec.services.announce.ranges)
    speaks = "spec.network.bgp" in paths and bgp
    for addon in now.addons:
        if not addon.live:
            continue
        if kube is None:
            # when `up` ends, the spec on record is the new one
            if speaks and not addon.unwanted:
                yield _apply(addon, "spec.network.bgp has changed")
            continue
        there = addon.names <= kube.workloads
        if addon.unwanted and there:
            yield _apply(addon, "so that its pods take back what they have done to the nodes")
            yield s.RemoveAddon(key=_key(addon), after=(s.reached(addon.condition),), addon=addon.name)
        elif not addon.unwanted and not there and (changed or now.recorded.applied):
            yield _apply(addon, "the cluster has none")
        elif not addon.unwanted and there and kube.policies != now.spec.network.policy:
            yield _apply(addon, f"network policies are {'enforced' if now.spec.network.policy else 'no longer enforced'}")
        elif not addon.unwanted and there and speaks:
            yield _apply(addon, "spec.network.bgp has changed")


def live_addon_notes(steps: Iterable[s.Step]) -> Iterator[str]:
    """A node runs the moyai of the image that its machine was made from, whatever moyai applies the add-on."""
    for step in steps:
        if isinstance(step, s.ApplyAddon):
            yield (
                f"each node runs {step.key} with the moyai of its own image: if the pod does not become ready on a node of an "
                "older moyai, delete that node's machine in the cloud, and `moyai up` recreates it"
            )


def _apply(addon: Addon, why: str) -> s.Step:
    return s.ApplyAddon(key=_key(addon), after=(s.reached(s.API),), addon=addon.name, why=why)


def _key(addon: Addon) -> Key:
    return Key(Kind.ADDON, addon.name)
