"""Before a cluster goes: the volumes that outlive it are let go by those who use them, in order and in their own time.

Always holds: nothing is taken by force here. Pods end as on any other day (their grace period, a database's last writes), then
Kubernetes itself unmounts and detaches; what is still attached after the time-out is reported, and `down` shuts its machine
down first.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress

from moyai.core.clock import Clock
from moyai.core.errors import MoyaiError
from moyai.core.progress import Progress
from moyai.core.waiting import NotYet, until
from moyai.kube.objects import parse_attachment, parse_node, parse_pod, parse_volume
from moyai.kube.quick import KubeApi
from moyai.kube.resources import NODES, PODS, VOLUME_ATTACHMENTS, VOLUMES
from moyai.lifecycle.drain import cordon

#: Seconds: a pod's usual grace period of 30, and the detaching.
TIMEOUT = 60.0


def release(
    api: KubeApi, volume_ids: Collection[str], *, driver: str, clock: Clock, progress: Progress, timeout: float = TIMEOUT
) -> list[str]:
    """End the pods that use these volumes of the CSI driver ``driver``; returns the names of the PersistentVolumes that are
    attached all the same."""
    claims = {
        volume.name: volume.claim
        for volume in map(parse_volume, api.list(VOLUMES))
        if volume.claim and volume.driver == driver and volume.handle in volume_ids
    }
    if not claims:
        return []
    for node in map(parse_node, api.list(NODES)):
        # else a Deployment's next pod would take the volume again
        cordon(api, node.name)
    used = set(claims.values())
    for pod in map(parse_pod, api.list(PODS)):
        if any((pod.namespace, name) in used for name in pod.claims):
            api.delete(PODS, pod.name, namespace=pod.namespace)
    left: list[str] = []

    def look() -> NotYet | None:
        nonlocal left
        left = _attached(api, claims, driver=driver)
        return NotYet(f"{len(left)} volumes are still attached") if left else None

    with suppress(TimeoutError):
        until(look, clock=clock, timeout=timeout, pause=0.5, on_wait=progress.progress, late=_timed_out)
    return left


def try_release(api: KubeApi, volume_ids: Collection[str], *, driver: str, clock: Clock, progress: Progress) -> None:
    """The same, for an API that may not answer any more."""
    try:
        if not api.ready(timeout=2):
            progress.progress("the API does not answer; their machines are shut down")
            return
        left = release(api, volume_ids, driver=driver, clock=clock, progress=progress)
    except MoyaiError as error:
        progress.progress(f"{error.message}; their machines are shut down")
        return
    if left:
        progress.progress(f"{', '.join(left)} did not come off in time; their machines are shut down")


def _attached(api: KubeApi, volumes: Collection[str], *, driver: str) -> list[str]:
    """Which of these PersistentVolumes our driver still has, or is to have, at a node."""
    there = map(parse_attachment, api.list(VOLUME_ATTACHMENTS))
    return sorted(one.volume for one in there if one.attacher == driver and one.volume in volumes)


def _timed_out(seen: NotYet) -> Exception:
    """What ended the wait: an API that did not answer is an error, disks that stay are not."""
    return seen.error or TimeoutError()
