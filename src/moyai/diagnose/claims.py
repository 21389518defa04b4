"""A pod whose claims are not bound: which of them is missing, and what makes it."""

from __future__ import annotations

from moyai.diagnose.case import Case
from moyai.diagnose.pod_facts import ClaimFacts, Explanation
from moyai.diagnose.refusals import provisioning_help, refusal


def claims(case: Case) -> Explanation | None:
    for claim in case.facts.claims:
        if not claim.found:
            why = f"there is no claim {claim.name} in namespace {case.pod.namespace}"
            return case.say("claim-missing", why, f"make the PersistentVolumeClaim {claim.name}")
        if claim.phase == "Lost":
            why = f"the volume {claim.volume} of its claim {claim.name} is gone"
            return case.say("volume-lost", why, "restore it from a snapshot into a new claim", volume=claim.volume)
        if claim.phase != "Bound" and (found := _unbound(case, claim)):
            return found
    return None


def _unbound(case: Case, claim: ClaimFacts) -> Explanation | None:
    failed = next((one for one in reversed(claim.events) if one.reason == "ProvisioningFailed"), None)
    if claim.volume:
        why = f"its claim {claim.name} waits for the volume {claim.volume}, which is not bound to it"
        return case.say("claim-unbound", why, f"`moyai kubectl describe pv {claim.volume}` says what it is bound to")
    if not claim.class_name:
        return _classless(case, claim)
    if claim.storage is None:
        known = f"there are {', '.join(case.facts.classes)}" if case.facts.classes else "there is none at all"
        why = f"its claim {claim.name} asks for StorageClass {claim.class_name}, and there is none of that name"
        return case.say("class-missing", why, f"create it, or create the claim again with another ({known})")
    if failed:
        why = f"no disk could be made for its claim {claim.name} ({claim.class_name}): {refusal(failed.message).words}"
        help_ = provisioning_help(failed.message, claim=claim.name, class_name=claim.class_name)
        return case.say("provisioning-failed", why, *help_)
    if claim.storage.waits and not case.pod.node:
        return None  # made where the pod is placed: what keeps it is the place
    why = f"the disk of its claim {claim.name} is being made by {claim.storage.provisioner}"
    return case.say("claim-unbound", why, "`moyai status` says whether the add-ons run")


def _classless(case: Case, claim: ClaimFacts) -> Explanation:
    if case.facts.default_class:
        why = f"its claim {claim.name} names no StorageClass and no volume fits it"
        help_ = f"create the claim again with storageClassName {case.facts.default_class}, or a PersistentVolume that fits"
        return case.say("claim-unbound", why, help_)
    why = f"its claim {claim.name} names no StorageClass, and no class is the default"
    known = f": {', '.join(case.facts.classes)}" if case.facts.classes else ""
    return case.say("class-missing", why, f"name one in the claim, or make one the default{known}")
