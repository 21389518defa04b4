"""What ends inside a cluster, through Kubernetes, before the cluster is removed from the cloud.

Pure. Always holds: Services go first, while their controller still removes load balancers as it was asked to. Then pods let go
of the volumes that outlive the cluster, in their own time, and Kubernetes detaches these. No pod is placed meanwhile, since it
would take such a volume again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from moyai.core.keys import Key, Kind
from moyai.plan import keys
from moyai.plan import steps as s
from moyai.plan.observed import KubeUse


def plan_ending(in_use: KubeUse | None, staying: Collection[str]) -> tuple[s.Step, ...]:
    """The steps, none where the API did not answer; the last waits for all others. ``staying``: ids of volumes at the cluster's
    servers that outlive it."""
    if in_use is None:
        return ()
    services = _services(in_use)
    return (*services, *_volumes(in_use, staying, after=_ids(services[-1:])))


def _services(in_use: KubeUse) -> tuple[s.Step, ...]:
    if not in_use.services:
        return ()
    deleted = [
        s.DeleteService(key=Key(Kind.SERVICE, one.key), namespace=one.namespace, service=one.name) for one in in_use.services
    ]
    names = tuple(one.key for one in in_use.services)
    return (*deleted, s.WaitServices(key=s.SERVICES_GONE, after=_ids(deleted), services=names))


def _volumes(in_use: KubeUse, staying: Collection[str], *, after: tuple[s.StepId, ...]) -> tuple[s.Step, ...]:
    claims = {one.name: one.claim for one in in_use.volumes if one.claim and one.handle in staying}
    if not claims:
        return ()
    names = tuple(sorted(claims))
    cordons = [s.CordonNode(key=keys.node_object(name), after=after, node=name) for name in in_use.open_nodes]
    pods = s.DeletePods(key=s.PODS_OF_VOLUMES, after=_ids(cordons) or after, volumes=names, claims=frozenset(claims.values()))
    return (*cordons, pods, s.WaitReleased(key=s.VOLUMES_RELEASED, after=(pods.id,), volumes=names))


def _ids(steps: Iterable[s.Step]) -> tuple[s.StepId, ...]:
    return tuple(step.id for step in steps)
