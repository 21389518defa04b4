"""Before a cluster goes: the volumes that outlive it are let go by those who use them, in order and in their own time.

Always holds: nothing is taken by force here. Pods end as on any other day (their grace period, a database's last writes), then
Kubernetes itself unmounts and detaches; what is still attached after the time-out is reported, and `down` shuts its machine
down first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from moyai.core.clock import Clock
from moyai.core.errors import MoyaiError, NotFound
from moyai.core.progress import Step as Progress
from moyai.csi.names import DRIVER
from moyai.kube.quick import ATTACHMENTS, Json, KubeApi

#: Seconds: a pod's usual grace period of 30, and the detaching.
TIMEOUT = 60.0


def release(
    api: KubeApi, volume_ids: Collection[str], *, clock: Clock, progress: Progress, timeout: float = TIMEOUT
) -> list[str]:
    """End the pods that use these volumes; returns the names of the PersistentVolumes that are attached all the same."""
    end = clock.monotonic() + timeout
    claims: dict[str, tuple[str, str]] = {}
    for pv in api.items("/api/v1/persistentvolumes"):
        claim: Json = pv["spec"].get("claimRef") or {}
        if claim and _handle(pv) in volume_ids:
            claims[pv["metadata"]["name"]] = (claim["namespace"], claim["name"])
    if not claims:
        return []
    for node in api.items("/api/v1/nodes"):
        # else a Deployment's next pod would take the volume again
        api.patch(f"/api/v1/nodes/{node['metadata']['name']}", {"spec": {"unschedulable": True}})
    used = set(claims.values())
    for pod in api.items("/api/v1/pods"):
        meta: Json = pod["metadata"]
        if any((meta["namespace"], name) in used for name in _claim_names(pod)):
            api.delete(f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}")
    while True:
        try:
            left = sorted(_attached(api.items(ATTACHMENTS), claims))
        except NotFound:
            return []
        if not left or clock.monotonic() >= end:
            return left
        progress.progress(f"{len(left)} volumes are still attached")
        clock.sleep(0.5)


def try_release(api: KubeApi, volume_ids: Collection[str], *, clock: Clock, progress: Progress) -> None:
    """The same, for an API that may not answer any more."""
    try:
        if not api.ready(timeout=2):
            progress.progress("the API does not answer; their machines are shut down")
            return
        left = release(api, volume_ids, clock=clock, progress=progress)
    except MoyaiError as error:
        progress.progress(f"{error.message}; their machines are shut down")
        return
    if left:
        progress.progress(f"{', '.join(left)} did not come off in time; their machines are shut down")


def _handle(pv: Json) -> str:
    source: Json = pv["spec"].get("csi") or {}
    return str(source.get("volumeHandle", "")) if source.get("driver") == DRIVER else ""


def _claim_names(pod: Json) -> Iterator[str]:
    volumes: list[Json] = pod["spec"].get("volumes") or []
    for volume in volumes:
        if "persistentVolumeClaim" in volume:
            yield volume["persistentVolumeClaim"]["claimName"]
        elif "ephemeral" in volume:
            yield f"{pod['metadata']['name']}-{volume['name']}"


def _attached(attachments: list[Json], claims: Mapping[str, object]) -> Iterator[str]:
    for one in attachments:
        name = one["spec"]["source"].get("persistentVolumeName")
        if one["spec"].get("attacher") == DRIVER and name in claims:
            yield str(name)
