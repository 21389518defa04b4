"""The Services that use a load balancer, and the owner of each of its parts. Pure: only the tags that the cloud shows decide.

What always holds: a load balancer that was made for a Service lives for as long as any Service uses it, also another one;
within a cluster (its unique tag) a Service is known by namespace and name, so that neither a change of the cluster's name nor a
Service that was deleted and created again loses its load balancer; on a load balancer without that tag it is known by its UID
as well, because Services of two clusters may have the same names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from moyai.cloud.load_balancers import LoadBalancer
from moyai.core.ids import ClusterIdentity, cluster_tag, tag_owner
from moyai.kube.objects import Service
from moyai.plan.load_balancer.names import (
    is_service_uid_tag,
    load_balancer_name,
    names_service,
    service_of_name,
    service_uid_tag,
)


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

    def mine(self, found: LoadBalancer, tags: Collection[str]) -> bool:
        """Whether what has these tags, the load balancer ``found`` or a part of it, is the Service's (too)."""
        if self.in_cluster(found):
            return any(service_of_name(one) == self.key for one in tags)
        # earlier versions gave parts no UID
        return self.uid in tags or (self.name in tags and not _uids(tags))

    def owns(self, found: LoadBalancer) -> bool:
        """Whether it was made for this Service."""
        return self.in_cluster(found) and service_of_name(found.name) == self.key and self.mine(found, found.tags)

    def others(self, found: LoadBalancer) -> tuple[str, ...]:
        """The tags of the other Services that use it."""
        return tuple(sorted(one for one in _names(found.tags) if service_of_name(one) != self.key))

    def alone(self, found: LoadBalancer) -> bool:
        """Whether all of it is the Service's own to change."""
        return self.owns(found) and not self.others(found)

    def joined(self, found: LoadBalancer) -> tuple[str, ...]:
        """Its tags once the Service uses it; the same where nothing is missing."""
        missing = [self.name] if self.name not in found.tags else []
        if not self.in_cluster(found) and self.uid not in found.tags:
            missing.append(self.uid)
        if not missing:
            return found.tags
        # the cluster may have had another name before
        former = {one for one in found.tags if self.in_cluster(found) and service_of_name(one) == self.key}
        return (*(tag for tag in found.tags if tag not in former - {self.name}), *missing)

    def left(self, found: LoadBalancer) -> tuple[str, ...]:
        """Its tags once the Service uses it no more."""
        rest = tuple(tag for tag in found.tags if tag != self.uid)
        # on a load balancer without a cluster the name may be that of another cluster's Service as well, which has its own UID
        if not self.in_cluster(found) and len(_names(rest)) <= len(_uids(rest)):
            return rest
        return tuple(tag for tag in rest if service_of_name(tag) != self.key)


def made_for_a_service(found: LoadBalancer, cluster: str) -> bool:
    """Whether this cluster (its tag) made it, so that it goes with its last user."""
    return cluster in found.tags and names_service(found.name)


def users(found: LoadBalancer) -> frozenset[str]:
    """``namespace/name`` of every Service that its tags name."""
    return frozenset(service_of_name(one) for one in _names(found.tags))


def another_cluster(found: LoadBalancer, cluster: str) -> str:
    """The tag of the cluster that it belongs to, where that is another one; else empty."""
    return next((tag for tag in found.tags if tag_owner(tag) and tag != cluster), "")


def _names(tags: Iterable[str]) -> list[str]:
    return [tag for tag in tags if names_service(tag)]


def _uids(tags: Iterable[str]) -> list[str]:
    return [tag for tag in tags if is_service_uid_tag(tag)]
