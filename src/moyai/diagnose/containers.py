"""A pod on a node whose containers do not run: images, crashes, probes."""

from __future__ import annotations

from moyai.diagnose.case import Case, line, several
from moyai.diagnose.pod_facts import Explanation

_IMAGE = frozenset({"ImagePullBackOff", "ErrImagePull", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError"})


def containers(case: Case) -> Explanation | None:
    for one in case.pod.containers:
        if one.waiting in _IMAGE:
            detail = f": {line(one.message)}" if one.message else ""
            help_ = "`moyai image load` brings an image into the local cloud's registry; check its name and tag"
            return case.say("image", f"the image {one.image} of container {one.name} is not to be had{detail}", help_)
        if one.waiting == "CrashLoopBackOff":
            why = f"container {one.name} ended {one.restarts} times, last with {one.ended or 'an unknown reason'}"
            logs = f"moyai kubectl -n {case.pod.namespace} logs {case.pod.name} -c {one.name} --previous"
            return case.say("crash", why, f"`{logs}` has its last words")
        if one.held:
            return case.say("container", f"container {one.name} waits: {one.waiting}: {line(one.message)}")
    if case.pod.phase == "Running":
        slow = [one.name for one in case.pod.containers if not one.ready and not one.waiting]
        probe = next((one for one in reversed(case.facts.events) if one.reason == "Unhealthy"), None)
        if slow and probe:
            return case.say("probe", f"container {several(slow)} runs but is not ready: {line(probe.message)}")
    return None
