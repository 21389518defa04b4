"""Volumes that outlive a cluster, as Kubernetes detaches them.

Always holds: nothing is taken by force here. Pods end as on any other day (their grace period, a database's last writes), then
Kubernetes itself unmounts and detaches.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress

from moyai.core.clock import Clock
from moyai.core.progress import Progress
from moyai.core.waiting import NotYet, until
from moyai.kube.objects import parse_attachment
from moyai.kube.quick import KubeApi
from moyai.kube.resources import VOLUME_ATTACHMENTS

#: Seconds: a pod's usual grace period of 30, and the detaching.
TIMEOUT = 60.0


def volumes_detached(api: KubeApi, volumes: Collection[str], *, driver: str, clock: Clock, progress: Progress) -> list[str]:
    """Wait until no node has these PersistentVolumes of the CSI driver ``driver``; after the time-out, returns those that are
    still attached."""
    left: list[str] = []

    def look() -> NotYet | None:
        nonlocal left
        found = map(parse_attachment, api.list(VOLUME_ATTACHMENTS))
        left = sorted(one.volume for one in found if one.attacher == driver and one.volume in volumes)
        return NotYet(f"{len(left)} volumes are still attached") if left else None

    def late(seen: NotYet) -> Exception:
        # an API that did not answer is an error, disks that stay are not
        return seen.error or TimeoutError()

    with suppress(TimeoutError):
        until(look, clock=clock, timeout=TIMEOUT, pause=0.5, on_wait=progress.progress, late=late)
    return left
