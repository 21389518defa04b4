"""A pod on a node whose containers do not run: images, crashes, probes."""

from __future__ import annotations

from moyai.diagnose.case import Case, line
from moyai.diagnose.pod_facts import Explanation, several

_IMAGE = frozenset({"ImagePullBackOff", "ErrImagePull", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError"})


#: Part of a message → what helps, the first that fits.
_IMAGE_HELP = (
    (
        ("not found", "manifest unknown", "name unknown", "does not exist"),
        "correct the image's name or tag; into the local cloud's registry `moyai image load` brings one",
    ),
    (
        ("unauthorized", "authentication required", "denied", "forbidden"),
        "give the pod `imagePullSecrets` that the registry takes",
    ),
    (
        ("no such host", "timeout", "connection refused", "network is unreachable", "no route to host"),
        "the node does not reach that registry: see to it that it does, then the image is pulled by itself",
    ),
)


def _image_help(reason: str, message: str) -> list[str]:
    if reason == "InvalidImageName":
        return ["correct the image's name: it is none"]
    if reason == "ErrImageNeverPull":
        return ["let the pod pull it (`imagePullPolicy: IfNotPresent`): the node does not hold it"]
    text = message.lower()
    return [help_ for words, help_ in _IMAGE_HELP if any(word in text for word in words)][:1]


def containers(case: Case) -> Explanation | None:
    for one in case.pod.containers:
        if one.waiting in _IMAGE:
            detail = f": {line(one.message)}" if one.message else ""
            why = f"the image {one.image} of container {one.name} cannot be pulled{detail}"
            return case.say("image", why, *_image_help(one.waiting, one.message))
        if one.waiting == "CrashLoopBackOff":
            why = f"container {one.name} ended {one.restarts} times, last with {one.ended or 'an unknown reason'}"
            logs = f"moyai kubectl -n {case.pod.namespace} logs {case.pod.name} -c {one.name} --previous"
            return case.say("crash", why, f"`{logs}` shows its last output")
        if one.held:
            return case.say("container", f"container {one.name} waits: {one.waiting}: {line(one.message)}")
    if case.pod.phase == "Running":
        slow = [one.name for one in case.pod.containers if not one.ready and not one.waiting]
        probe = next((one for one in reversed(case.facts.events) if one.reason == "Unhealthy"), None)
        if slow and probe:
            return case.say("probe", f"container {several(slow)} runs but is not ready: {line(probe.message)}")
    return None
