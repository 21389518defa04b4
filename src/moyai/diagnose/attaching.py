"""A pod on a node whose disks are not there yet: where each of them is, and why it does not come."""

from __future__ import annotations

from moyai.diagnose.case import Case, line
from moyai.diagnose.placement import Disk
from moyai.diagnose.pod_facts import ClaimFacts, Explanation
from moyai.kube.objects import VolumeAttachment


def attaching(case: Case) -> Explanation | None:
    if any(not one.waiting and (one.ready or one.ended or one.restarts) for one in case.pod.containers):
        return None  # a container has started: the disks were there
    for disk in case.facts.disks:
        if found := _unattached(case, disk):
            return found
    return _unmounted(case)


def _unattached(case: Case, disk: Disk) -> Explanation | None:
    node = case.pod.node
    here = [one for one in case.facts.attachments if one.volume == disk.volume]
    own = next((one for one in here if one.node == node), None)
    if own is not None and own.attached:
        return None
    claim = next((one for one in case.facts.claims if one.name == disk.claim), ClaimFacts(disk.claim))
    other = next((one for one in here if one.node != node), None)
    if other is not None and claim.exclusive:
        return _elsewhere(case, disk, other)
    if own is not None and own.error:
        why = f"the disk of its claim {disk.claim} cannot be attached to {node}: {line(own.error)}"
        return case.say("attach-failed", why, "it is tried again by itself", volume=disk.volume)
    return None


def _unmounted(case: Case) -> Explanation | None:
    failed = next((one for one in reversed(case.facts.events) if one.reason in ("FailedAttachVolume", "FailedMount")), None)
    if failed is None or any(one.held for one in case.pod.containers):
        return None
    return case.say("mount-failed", line(failed.message), "it is tried again by itself")


def _elsewhere(case: Case, disk: Disk, other: VolumeAttachment) -> Explanation:
    holder = next((one for one in case.facts.nodes if one.name == other.node), None)
    why = f"the disk of its claim {disk.claim} (volume {disk.volume}) is still attached to {other.node}"
    zone = " or ".join(disk.zones)
    if holder is None or not holder.ready:
        gone = "which is gone" if holder is None else "which does not answer"
        why += f", {gone}, and is let go only when that machine is known to be off"
        help_ = "start that machine again, or power it off in the cloud; `moyai kubectl describe node` has what was decided"
        return case.say("attached-elsewhere", why, help_, volume=disk.volume, zone=zone)
    if other.deleting:
        detail = f" ({line(other.error)})" if other.error else ""
        return case.say("attached-elsewhere", f"{why} and is being detached{detail}", volume=disk.volume, zone=zone)
    why += ", where another pod uses it"
    return case.say(
        "attached-elsewhere",
        why,
        "end that pod first, or use a volume that several may mount",
        volume=disk.volume,
        zone=zone,
    )
