"""The default StorageClass of a cluster that runs, when ``spec.volumes.reclaimPolicy`` has changed."""

from __future__ import annotations

from collections.abc import Iterator

from moyai.plan import keys
from moyai.plan import steps as s
from moyai.plan.cluster.situation import Situation


def plan_reclaim_policy(now: Situation) -> Iterator[s.Step]:
    """The default StorageClass follows ``spec.volumes.reclaimPolicy``.

    A class that is missing although the policy did not change was taken away by the user, and stays away.
    """
    kube = now.observed.kube
    if kube is None or keys.secret(keys.VOLUMES_CREDENTIAL) not in now.recorded.intended:
        return
    wanted = now.spec.volumes.reclaim_policy
    changed = any(change.path == "spec.volumes.reclaimPolicy" for change in now.changes)
    if kube.reclaim_policy != wanted and (kube.reclaim_policy or changed):
        yield s.SetReclaimPolicy(key=keys.STORAGE_CLASS, after=(s.reached(s.API),), policy=wanted)
