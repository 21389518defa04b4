"""Who uses a load balancer, and what of it is whose. Pure: it is decided from the tags that the cloud shows, and only here.

What always holds: a load balancer that was made for a Service lives for as long as any Service uses it, whoever it was made
for; within a cluster (its unique tag) a Service is known by namespace and name, so that neither a change of the cluster's name
nor a Service that was deleted and created again loses its load balancer; on a load balancer without that tag it is known by its
UID as well, because Services of two clusters may have the same names.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from moyai.cloud.load_balancers import LoadBalancer
from moyai.core.ids import CLUSTER_TAG, SERVICE_TAG_PREFIX, ClusterIdentity, cluster_tag
from moyai.kube.objects import Service
from moyai.plan.load_balancer.names import SERVICE_UID_KEY, load_balancer_name, service_key_of, service_uid_tag


@dataclass(frozen=True)
class ServiceMarks:
    """By which one Service is known in the cloud. ``cluster``: the cluster's tag. ``name``: of its load balancer, and its tag
    on every load balancer that it uses. ``uid``: its other tag there. ``key``: ``namespace/name``."""

    cluster: str
    name: str
    uid: str
    key: str

    @staticmethod
    def of(service: Service, cluster: ClusterIdentity) -> ServiceMarks:
        return ServiceMarks(
            cluster_tag(cluster.uid), load_balancer_name(cluster, service), service_uid_tag(service), service.key
        )

    def in_cluster(self, found: LoadBalancer) -> bool:
        return self.cluster in found.tags

    def uses(self, found: LoadBalancer) -> bool:
        """Whether the Service has or had a part in it."""
        return self.uid in found.tags or bool(self.names(found) & set(found.tags))

    def owns(self, found: LoadBalancer) -> bool:
        """Whether it was made for this Service."""
        return self.in_cluster(found) and service_key_of(found.name) == self.key and self.uses(found)

    def others(self, found: LoadBalancer) -> tuple[str, ...]:
        """The tags of the other Services that use it."""
        return tuple(sorted(set(_names(found.tags)) - self.names(found)))

    def alone(self, found: LoadBalancer) -> bool:
        """Whether all of it is the Service's own to change."""
        return self.owns(found) and not self.others(found)

    def names(self, found: LoadBalancer) -> frozenset[str]:
        """The names under which the Service's parts are tagged: today's, and those from before the cluster's name changed."""
        if self.in_cluster(found):
            return frozenset({self.name, *(tag for tag in _all_tags(found) if service_key_of(tag) == self.key)})
        # from before load balancers were tagged with UIDs, or with ours
        by_name = self.uid in found.tags or not any(tag.startswith(f"{SERVICE_UID_KEY}=") for tag in found.tags)
        return frozenset({self.name}) if by_name else frozenset()

    def joined(self, found: LoadBalancer) -> tuple[str, ...]:
        """Its tags once the Service uses it; the same where nothing is missing."""
        missing = [self.name] if self.name not in found.tags else []
        if not self.in_cluster(found) and self.uid not in found.tags:
            missing.append(self.uid)
        if not missing:
            return found.tags
        former = self.names(found) - {self.name}
        return (*(tag for tag in found.tags if tag not in former), *missing)

    def left(self, found: LoadBalancer) -> tuple[str, ...]:
        """Its tags once the Service uses it no more."""
        return tuple(tag for tag in found.tags if tag not in self.names(found) and tag != self.uid)


def made_for_a_service(found: LoadBalancer, cluster: str) -> bool:
    """Whether this cluster (its tag) made it, so that it goes with its last user."""
    return cluster in found.tags and found.name.startswith(SERVICE_TAG_PREFIX)


def users(found: LoadBalancer) -> frozenset[str]:
    """``namespace/name`` of every Service that its tags name."""
    return frozenset(service_key_of(one) for one in _names(found.tags))


def another_cluster(found: LoadBalancer, cluster: str) -> str:
    """The tag of the cluster that it belongs to, where that is another one; else empty."""
    return next((tag for tag in found.tags if tag.startswith(f"{CLUSTER_TAG}=") and tag != cluster), "")


def _names(tags: Iterable[str]) -> list[str]:
    return [tag for tag in tags if tag.startswith(SERVICE_TAG_PREFIX)]


def _all_tags(found: LoadBalancer) -> Iterable[str]:
    yield from found.tags
    for listener in found.listeners:
        yield from listener.tags
        if listener.pool:
            yield from listener.pool.tags
    for pool in found.loose_pools:
        yield from pool.tags
