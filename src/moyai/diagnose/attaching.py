"""A pod on a node whose disks are not there yet: where each of them is, and why it does not come."""

from __future__ import annotations

from moyai.diagnose.case import Case, line
from moyai.diagnose.placement import Disk
from moyai.diagnose.pod_facts import ClaimFacts, Explanation
from moyai.diagnose.refusals import BY_ITSELF, Refusal, refusal
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
    if found := _lost(case, disk):
        return found
    claim = next((one for one in case.facts.claims if one.name == disk.claim), ClaimFacts(disk.claim))
    other = next((one for one in here if one.node != node), None)
    if other is not None and claim.exclusive:
        return _elsewhere(case, disk, other=other)
    if found := _taken(case, disk, known={one.node for one in here}):
        return found
    if own is not None and own.error:
        said = refusal(own.error)
        why = f"the disk of its claim {disk.claim} cannot be attached to {node}: {said.words}"
        return case.say("attach-failed", why, *_attach_help(case, disk, said=said), volume=disk.volume)
    return None


def _lost(case: Case, disk: Disk) -> Explanation | None:
    """The cloud has no such disk, or calls it broken: nothing that Kubernetes tries again brings it back."""
    there = case.facts.cloud_disks.get(disk.volume)
    if there is None or (there.found and not there.broken):
        return None
    which = f"the disk of its claim {disk.claim} (volume {disk.volume}, {there.handle} in the cloud)"
    if there.found:
        why = f"{which} is in {there.status} in the cloud"
        help_ = (
            "have the cloud's operator look at that volume, or restore its content from a snapshot or a backup into a new claim"
        )
        return case.say("attach-failed", why, help_, volume=disk.volume)
    drop = f"`moyai kubectl -n {case.pod.namespace} delete pvc {disk.claim}`"
    return case.say(
        "volume-gone",
        f"{which} does not exist any more: it was deleted in the cloud",
        "restore its content from a snapshot or a backup into a new claim, and let the pod use that",
        f"{drop} and create the claim again, for an empty disk",
        volume=disk.volume,
    )


def _taken(case: Case, disk: Disk, *, known: set[str]) -> Explanation | None:
    """A machine has the disk to which Kubernetes did not attach it. ``known``: nodes to which Kubernetes does."""
    there = case.facts.cloud_disks.get(disk.volume)
    others = [one for one in there.machines if one not in {*known, case.pod.node}] if there else []
    if there is None or not others:
        return None
    why = f"the disk of its claim {disk.claim} (volume {disk.volume}) is attached to machine {others[0]}, and not by Kubernetes"
    help_ = f"detach volume {there.handle} from machine {others[0]} in the cloud: then it comes to {case.pod.node} by itself"
    return case.say("attached-elsewhere", why, help_, volume=disk.volume)


def _attach_help(case: Case, disk: Disk, *, said: Refusal) -> list[str]:
    node = case.pod.node
    if said.passes:
        return [BY_ITSELF]
    if said.code == "ResourceExhausted":
        return [f"end a pod on {node} that has a disk: then this one comes by itself"]
    if said.code == "NotFound" and disk.volume in case.facts.cloud_disks:
        # the disk is there, so it is the machine that is not
        return [f"`moyai up` makes the machine of node {node} again"]
    return []


def _unmounted(case: Case) -> Explanation | None:
    failed = next((one for one in reversed(case.facts.events) if one.reason in ("FailedAttachVolume", "FailedMount")), None)
    if failed is None or any(one.held for one in case.pod.containers):
        return None
    help_ = [BY_ITSELF] if refusal(failed.message).passes else []
    return case.say("mount-failed", line(failed.message), *help_)


def _elsewhere(case: Case, disk: Disk, *, other: VolumeAttachment) -> Explanation:
    holder = next((one for one in case.facts.nodes if one.name == other.node), None)
    why = f"the disk of its claim {disk.claim} (volume {disk.volume}) is still attached to {other.node}"
    zone = " or ".join(disk.zones)
    if holder is None or not holder.ready:
        gone = "which is gone" if holder is None else "which does not answer"
        why += f", {gone}, and is let go only when that machine is known to be off"
        help_ = f"`moyai up` starts or restarts machine {other.node}; or power it off in the cloud, and its disks move"
        return case.say("attached-elsewhere", why, help_, volume=disk.volume, zone=zone)
    if other.deleting:
        detail = f" ({line(other.error)})" if other.error else ""
        return case.say("attached-elsewhere", f"{why} and is being detached{detail}", volume=disk.volume, zone=zone)
    why += ", where another pod uses it"
    return case.say(
        "attached-elsewhere",
        why,
        f"end the pod on {other.node} that uses it, or use a volume that several may mount",
        volume=disk.volume,
        zone=zone,
    )
