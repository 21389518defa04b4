"""Why a pod does not run, in a sentence, with what would help: from facts of the API to words.

Pure. Always holds: the first cause in the pod's own order of life is reported (claims, place, disks, images, containers,
probes), and nothing is guessed: where no rule finds a reason, the answer says so, with the scheduler's words and the last
events.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from moyai.diagnose.placement import Disk, NodeFacts, Obstacle, obstacles
from moyai.diagnose.pod_facts import ClaimFacts, Explanation, Facts, NodeVerdict, PoolFacts
from moyai.kube.objects import Pod, VolumeAttachment


def explain(facts: Facts) -> Explanation:
    pod = facts.pod
    state = "Terminating" if pod.deleting else "not ready" if pod.phase == "Running" and not pod.ready else pod.phase
    found = _life(facts, state)
    return found if found.cause in ("runs", "done") else replace(found, events=facts.events[-5:])


def _say(
    facts: Facts,
    state: str,
    cause: str,
    why: str,
    *help_: str,
    volume: str = "",
    zone: str = "",
    nodes: tuple[NodeVerdict, ...] = (),
) -> Explanation:
    pod = facts.pod.key
    return Explanation(pod, state, cause, f"Pod {pod} is {state}: {why}.", help_, volume, zone, nodes)


def _life(facts: Facts, state: str) -> Explanation:
    pod = facts.pod
    if pod.phase == "Succeeded":
        return _say(facts, state, "done", "its containers have done their work")
    if pod.deleting:
        return _leaving(facts, state)
    if pod.phase == "Failed":
        return _say(facts, state, "failed", _ended(pod) or "the API gives no reason")
    if pod.phase == "Running" and pod.ready:
        return _say(facts, state, "runs", f"it runs on {pod.node} and is ready")
    return _claims(facts, state) or (_placed(facts, state) if pod.node else _unplaced(facts, state))


def _ended(pod: Pod) -> str:
    own = next((one for one in pod.containers if one.ended and one.ended != "Completed"), None)
    words = [pod.reason, pod.message] if pod.reason else []
    if own:
        words = [*words, f"container {own.name} ended with {own.ended}", own.message]
    return ": ".join(word.rstrip(".") for word in words if word)


def _leaving(facts: Facts, state: str) -> Explanation:
    node = next((one for one in facts.nodes if one.name == facts.pod.node), None)
    if facts.pod.node and node is None:
        why = f"its node {facts.pod.node} is gone, Kubernetes forgets the pod within a minute"
        return _say(facts, state, "node-gone", why)
    if node is not None and not node.ready:
        why = f"its node {node.name} does not answer, so nobody can say that its containers have ended"
        help_ = "`moyai status` says what its machine does; `moyai up` starts a machine that is off"
        return _say(facts, state, "node-not-ready", why, help_)
    return _say(facts, state, "terminating", "it was deleted, and its containers have not ended yet")


# ---- claims


def _claims(facts: Facts, state: str) -> Explanation | None:
    for claim in facts.claims:
        if not claim.found:
            why = f"there is no claim {claim.name} in namespace {facts.pod.namespace}"
            return _say(facts, state, "claim-missing", why, f"make the PersistentVolumeClaim {claim.name}")
        if claim.phase == "Lost":
            why = f"the volume {claim.volume} of its claim {claim.name} is gone"
            return _say(facts, state, "volume-lost", why, "restore it from a snapshot into a new claim", volume=claim.volume)
        if claim.phase != "Bound" and (found := _unbound(facts, state, claim)):
            return found
    return None


def _unbound(facts: Facts, state: str, claim: ClaimFacts) -> Explanation | None:
    failed = next((one for one in reversed(claim.events) if one.reason == "ProvisioningFailed"), None)
    if claim.volume:
        why = f"its claim {claim.name} waits for the volume {claim.volume}, which is not bound to it"
        return _say(facts, state, "claim-unbound", why, f"`moyai kubectl describe pv {claim.volume}` says what it is bound to")
    if not claim.class_name:
        return _classless(facts, state, claim)
    if claim.storage is None:
        known = f"there are {', '.join(facts.classes)}" if facts.classes else "there is none at all"
        why = f"its claim {claim.name} asks for StorageClass {claim.class_name}, and there is none of that name"
        return _say(facts, state, "class-missing", why, f"create it, or create the claim again with another ({known})")
    if failed:
        why = f"no disk could be made for its claim {claim.name} ({claim.class_name}): {_line(failed.message)}"
        return _say(facts, state, "provisioning-failed", why, "it is tried again by itself; the reason is the cloud's own")
    if claim.storage.waits and not facts.pod.node:
        return None  # made where the pod is placed: what keeps it is the place
    why = f"the disk of its claim {claim.name} is being made by {claim.storage.provisioner}"
    return _say(facts, state, "claim-unbound", why, "`moyai status` says whether the add-ons run")


def _classless(facts: Facts, state: str, claim: ClaimFacts) -> Explanation:
    if facts.default_class:
        why = f"its claim {claim.name} names no StorageClass and no volume fits it"
        help_ = f"create the claim again with storageClassName {facts.default_class}, or a PersistentVolume that fits"
        return _say(facts, state, "claim-unbound", why, help_)
    why = f"its claim {claim.name} names no StorageClass, and no class is the default"
    known = f": {', '.join(facts.classes)}" if facts.classes else ""
    return _say(facts, state, "class-missing", why, f"name one in the claim, or make one the default{known}")


# ---- no node yet


def _unplaced(facts: Facts, state: str) -> Explanation:
    if facts.pod.gates:
        why = f"it is held back by its scheduling gates {', '.join(facts.pod.gates)}"
        return _say(facts, state, "gated", why, "whoever set them takes them away")
    if not facts.nodes:
        return _say(facts, state, "no-node", "the cluster has no node", "raise `replicas` of a pool and run `moyai up`")
    judged = [(node, obstacles(node, facts.requirements, facts.disks)) for node in facts.nodes]
    verdicts = tuple(NodeVerdict(node.name, node.zone, tuple(one.text for one in why)) for node, why in judged)
    stuck = next((disk for disk in facts.disks if disk.zones and not _takes(judged, disk)), None)
    if stuck is not None:
        return _zone(facts, state, stuck, judged, verdicts)
    free = [node.name for node, why in judged if not why]
    if free:
        said = f", but the scheduler says: {_line(facts.pod.scheduler)}" if facts.pod.scheduler else " yet"
        why = f"no reason is known here why {_several(free)} does not take it{said}"
        return _say(facts, state, "unknown", why, nodes=verdicts)
    reasons = "; ".join(f"{node.name} {_both(why)}" for node, why in judged)
    why = (
        f"none of the {len(judged)} nodes takes it: {reasons}"
        if len(judged) > 1
        else f"the only node does not take it: {reasons}"
    )
    return _say(facts, state, "no-place", why, *_help(facts, [one for _, one in judged]), nodes=verdicts)


def _takes(judged: Iterable[tuple[NodeFacts, tuple[Obstacle, ...]]], disk: Disk) -> bool:
    return any(not why for node, why in judged if _in_zone(node, disk))


def _in_zone(node: NodeFacts, disk: Disk) -> bool:
    return node.zone in disk.zones


def _zone(
    facts: Facts,
    state: str,
    disk: Disk,
    judged: list[tuple[NodeFacts, tuple[Obstacle, ...]]],
    verdicts: tuple[NodeVerdict, ...],
) -> Explanation:
    """A disk that only nodes of some zones can reach, and none of them takes the pod."""
    zone = " or ".join(disk.zones)
    here = [(node, why) for node, why in judged if _in_zone(node, disk)]
    away = [node.name for node, _ in judged if not _in_zone(node, disk)]
    volume = f"the disk of its claim {disk.claim} (volume {disk.volume}) is in zone {zone}"
    if here:
        why = f"{volume}, and no node there takes the pod: " + "; ".join(f"{node.name} {_both(why)}" for node, why in here)
    else:
        why = f"{volume}, where the cluster has no node"
    if away:
        others = {node.zone or "no zone" for node, _ in judged if node.name in away}
        why += f"; {_several(away)} ({', '.join(sorted(others))}) cannot reach it"
    lasting = {"taint", "selector", "driver"}
    help_ = [*_help(facts, [why for _, why in here if not {one.kind for one in why} & lasting], disk.zones)]
    if not any("raise `replicas`" in one for one in help_):
        help_.append(more_nodes(facts.pools, disk.zones))
    return _say(facts, state, "zone", why, *help_, volume=disk.volume, zone=zone, nodes=verdicts)


def _help(facts: Facts, reasons: Iterable[tuple[Obstacle, ...]], zones: tuple[str, ...] = ()) -> list[str]:
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
        found.append("lower the pod's requests, or " + more_nodes(facts.pools, zones))
    elif kinds & {"attach", "pods"}:
        found.append(more_nodes(facts.pools, zones))
    if "taint" in kinds:
        found.append("give the pod a toleration, or " + more_nodes(facts.pools, zones))
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


# ---- on a node


def _placed(facts: Facts, state: str) -> Explanation:
    pod = facts.pod
    node = next((one for one in facts.nodes if one.name == pod.node), None)
    if node is None or not node.ready:
        what = "is gone" if node is None else "does not answer"
        help_ = "`moyai status` says what its machine does; `moyai up` starts a machine that is off"
        return _say(facts, state, "node-not-ready", f"its node {pod.node} {what}", help_)
    return _disks(facts, state) or _containers(facts, state) or _last(facts, state)


def _disks(facts: Facts, state: str) -> Explanation | None:
    if any(not one.waiting and (one.ready or one.ended or one.restarts) for one in facts.pod.containers):
        return None  # a container has started: the disks were there
    for disk in facts.disks:
        if found := _unattached(facts, state, disk):
            return found
    return _unmounted(facts, state)


def _unattached(facts: Facts, state: str, disk: Disk) -> Explanation | None:
    node = facts.pod.node
    here = [one for one in facts.attachments if one.volume == disk.volume]
    own = next((one for one in here if one.node == node), None)
    if own is not None and own.attached:
        return None
    claim = next((one for one in facts.claims if one.name == disk.claim), ClaimFacts(disk.claim))
    other = next((one for one in here if one.node != node), None)
    if other is not None and claim.exclusive:
        return _elsewhere(facts, state, disk, other)
    if own is not None and own.error:
        why = f"the disk of its claim {disk.claim} cannot be attached to {node}: {_line(own.error)}"
        return _say(facts, state, "attach-failed", why, "it is tried again by itself", volume=disk.volume)
    return None


def _unmounted(facts: Facts, state: str) -> Explanation | None:
    failed = next((one for one in reversed(facts.events) if one.reason in ("FailedAttachVolume", "FailedMount")), None)
    if failed is None or any(one.held for one in facts.pod.containers):
        return None
    return _say(facts, state, "mount-failed", _line(failed.message), "it is tried again by itself")


def _elsewhere(facts: Facts, state: str, disk: Disk, other: VolumeAttachment) -> Explanation:
    holder = next((one for one in facts.nodes if one.name == other.node), None)
    why = f"the disk of its claim {disk.claim} (volume {disk.volume}) is still attached to {other.node}"
    zone = " or ".join(disk.zones)
    if holder is None or not holder.ready:
        gone = "which is gone" if holder is None else "which does not answer"
        why += f", {gone}, and is let go only when that machine is known to be off"
        help_ = "start that machine again, or power it off in the cloud; `moyai kubectl describe node` has what was decided"
        return _say(facts, state, "attached-elsewhere", why, help_, volume=disk.volume, zone=zone)
    if other.deleting:
        detail = f" ({_line(other.error)})" if other.error else ""
        return _say(facts, state, "attached-elsewhere", f"{why} and is being detached{detail}", volume=disk.volume, zone=zone)
    why += ", where another pod uses it"
    return _say(
        facts,
        state,
        "attached-elsewhere",
        why,
        "end that pod first, or use a volume that several may mount",
        volume=disk.volume,
        zone=zone,
    )


_IMAGE = frozenset({"ImagePullBackOff", "ErrImagePull", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError"})


def _containers(facts: Facts, state: str) -> Explanation | None:
    for one in facts.pod.containers:
        if one.waiting in _IMAGE:
            detail = f": {_line(one.message)}" if one.message else ""
            help_ = "`moyai image load` brings an image into the local cloud's registry; check its name and tag"
            return _say(facts, state, "image", f"the image {one.image} of container {one.name} is not to be had{detail}", help_)
        if one.waiting == "CrashLoopBackOff":
            why = f"container {one.name} ended {one.restarts} times, last with {one.ended or 'an unknown reason'}"
            help_ = (
                f"`moyai kubectl -n {facts.pod.namespace} logs {facts.pod.name} -c {one.name} --previous` has its last words"
            )
            return _say(facts, state, "crash", why, help_)
        if one.held:
            return _say(facts, state, "container", f"container {one.name} waits: {one.waiting}: {_line(one.message)}")
    if facts.pod.phase == "Running":
        slow = [one.name for one in facts.pod.containers if not one.ready and not one.waiting]
        probe = next((one for one in reversed(facts.events) if one.reason == "Unhealthy"), None)
        if slow and probe:
            return _say(facts, state, "probe", f"container {_several(slow)} runs but is not ready: {_line(probe.message)}")
    return None


def _last(facts: Facts, state: str) -> Explanation:
    warning = next((one for one in reversed(facts.events) if one.kind == "Warning"), None)
    if warning is not None:
        return _say(facts, state, "event", f"the last warning is {warning.reason}: {_line(warning.message)}")
    if any(one.starting for one in facts.pod.containers):
        return _say(
            facts, state, "starting", f"its containers are being made on {facts.pod.node}, and nothing has gone wrong so far"
        )
    return _say(facts, state, "unknown", "no reason was found; the last events are all that is known")


def _line(text: str) -> str:
    return " ".join(text.split()).rstrip(".")


def _both(why: tuple[Obstacle, ...]) -> str:
    return " and ".join(one.text for one in why)


def _several(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
