"""Load balancers that a cloud makes for Services by itself, where they do not fit the tree of ``cloud.load_balancers``.

The cloud says what it reads of a Service, which annotations it knows, what it refuses, and what its load balancers are called.
The cloud controller manager says which nodes take traffic, and keeps the Service object. A cloud offers this beside its
capabilities, by having the attribute of ``HasServiceBalancers``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from moyai.core.errors import Retriable


class BalancerChanging(Retriable):
    """The cloud is still at work on the load balancer. No failure: call again in a few seconds."""


@dataclass(frozen=True)
class WantedPort:
    """``node_port`` 0: the Service has none."""

    protocol: str
    port: int
    node_port: int


@dataclass(frozen=True)
class ServiceToServe:
    """What of a Service its load balancer depends on. ``key``: ``namespace/name``. ``source_ranges``: CIDRs of
    ``spec.loadBalancerSourceRanges``. ``asked_address``: ``spec.loadBalancerIP``."""

    key: str
    uid: str
    ports: tuple[WantedPort, ...]
    annotations: Mapping[str, str] = field(default_factory=dict[str, str])
    source_ranges: tuple[str, ...] = ()
    asked_address: str = ""


@dataclass(frozen=True)
class BackendNode:
    """A node that takes traffic."""

    name: str
    provider_id: str


@dataclass(frozen=True)
class ServedService:
    """``address``: where the load balancer answers. ``changes``: what was done, in a user's words. ``remarks``: what the user
    is shown once (reason, message)."""

    address: str
    changes: tuple[str, ...] = ()
    remarks: tuple[tuple[str, str], ...] = ()


class ServiceBalancers(Protocol):
    """All methods may be called again at any time, also after a process was killed in the middle of one. The first three ask
    nobody."""

    def unknown_annotations(self, annotations: Mapping[str, str]) -> list[str]:
        """Those that look as if they were meant for the cloud, and have no effect."""
        ...

    def check(self, service: ServiceToServe) -> None:
        """Raises UsageError, with all the reasons in one line, for what no load balancer of the cloud can be."""
        ...

    def balancer_name(self, uid: str) -> str:
        """What the cloud calls the load balancer of the Service with this UID."""
        ...

    def ensure_balancer(self, service: ServiceToServe, nodes: Collection[BackendNode]) -> ServedService:
        """Make the load balancer what the Service asks for. Without nodes it has no members. Raises UsageError as ``check``,
        BalancerChanging instead of waiting for long."""
        ...

    def remove_balancer(self, name: str) -> None:
        """With all that was made for it; what is gone is success. Raises BalancerChanging instead of waiting for long."""
        ...

    def cluster_balancers(self, cluster_uid: str) -> frozenset[str]:
        """Names of the load balancers that were certainly made for Services of this cluster."""
        ...


@runtime_checkable
class HasServiceBalancers(Protocol):
    @property
    def service_balancers(self) -> ServiceBalancers: ...
