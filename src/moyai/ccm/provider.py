"""What makes Services of type LoadBalancer reachable: the protocol between the Service controller and its providers.

The controller owns the Service object (finalizer, status, events) and chooses the provider by ``spec.loadBalancerClass``. A
provider owns what is outside of the cluster's API: a load balancer of the cloud, an announced address. All of its methods may
be called again at any time, also after a process was killed in the middle of one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from moyai.core.errors import Retriable
from moyai.core.keys import Key
from moyai.kube.objects import Ingress, Node, Service

#: Keeps the Service object until its provider has removed everything.
Protect = Callable[[], Coroutine[Any, Any, None]]


class Report(Protocol):
    """Shows the user an event on the Service."""

    def __call__(self, kind: Literal["Normal", "Warning"], *, reason: str, message: str) -> None: ...


class StillWorking(Retriable):
    """What the provider asked for is under way; look again after ``requeue_after`` seconds. No failure, and no event."""

    def __init__(self, message: str, *, requeue_after: float, object_id: str | None = None) -> None:
        super().__init__(message, object_id=object_id)
        self.requeue_after = requeue_after


@dataclass(frozen=True)
class Ensured:
    """``ingress``: where the Service answers, None where it cannot. ``annotations``: what the provider keeps on the Service,
    None for one that it takes away. ``changes``: what was done, in a user's words; empty when everything was as it should be.
    ``remarks``: what the user is shown once (reason, message). ``affected``: other Services (``namespace/name``) that the
    changes concern. ``requeue_after``: seconds until the provider has more to do."""

    ingress: Ingress | None
    annotations: Mapping[str, str | None] = field(default_factory=dict[str, str | None])
    changes: tuple[str, ...] = ()
    remarks: tuple[tuple[str, str], ...] = ()
    affected: tuple[str, ...] = ()
    requeue_after: float | None = None


@dataclass(frozen=True)
class Orphan:
    """An object of ``services`` (``namespace/name``), none of which exists any more. ``key``: its kind, and its id in the
    cloud."""

    key: Key
    services: frozenset[str]


@dataclass(frozen=True)
class Inventory:
    """``services``: all that something was made for. ``orphans``: what of it belongs to no Service that is alive."""

    services: frozenset[str]
    orphans: frozenset[Orphan]


class ServiceProvider(Protocol):
    @property
    def output_annotations(self) -> frozenset[str]:
        """Keys of the annotations that the provider writes: they are no input, and go with the load balancer."""
        ...

    def watch(self, again: Callable[[], None]) -> None:
        """From now on ``again`` is called when something has changed that the provider's Services depend on besides themselves
        and nodes: all of them are looked at again."""
        ...

    def unknown_annotations(self, service: Service) -> Sequence[str]:
        """Annotations that look as if they were meant for the provider and have no effect."""
        ...

    def backends(self, nodes: Collection[Node]) -> Callable[[Service], Hashable]:
        """For these nodes: a function whose value for a Service changes if and only if its backends do; false where it
        has none."""
        ...

    async def ensure(self, service: Service, nodes: Collection[Node], *, protect: Protect, report: Report) -> Ensured:
        """Make the Service reachable as it asks for. ``protect`` is awaited before anything is made: from then on the Service
        object stays until ``remove`` has succeeded. Raises StillWorking instead of waiting for long."""
        ...

    async def remove(self, service: Service, *, report: Report) -> None:
        """Take away all that was made for the Service. Raises StillWorking instead of waiting for long."""
        ...

    async def inventory(self, alive: Callable[[], Collection[str]]) -> Inventory:
        """What was made for Services. ``alive`` (``namespace/name``) is asked after the provider has listed its objects, so
        that nothing that was just made is taken for an orphan."""
        ...

    async def remove_orphan(self, orphan: Orphan) -> None:
        """Take away what the last ``inventory`` has as an orphan. Raises StillWorking instead of waiting for long."""
        ...
