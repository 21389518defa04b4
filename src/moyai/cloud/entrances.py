"""A public address of the cloud's that leads to one TCP port of some of a cluster's machines (``Capability.ENTRANCES``).

It is less than a load balancer: one port, the same on both sides, and machines named by their ids. The address is known before
there is a machine. A cloud has it where neither floating IPs nor load balancers of ``cloud.load_balancers`` lead to a cluster's
API. It is asked for by its name, since a cloud may be unable to list those of a cluster. Blocks, safe from several threads.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Entrance:
    """``server_ids``: the machines that it leads to."""

    id: str
    name: str
    address: str
    port: int
    server_ids: frozenset[str] = frozenset()
    tags: tuple[str, ...] = ()


class Entrances(Protocol):
    def entrance(self, *, name: str, tags: Sequence[str]) -> Entrance | None:
        """The one that was made with this name and these tags, which are the cluster's."""
        ...

    def create_entrance(self, *, name: str, port: int, tags: Sequence[str]) -> Entrance:
        """One that leads nowhere yet; the one that exists, whatever it leads to. Returns once it has its address. Raises
        Conflict for a name that is somebody else's."""
        ...

    def lead_to(self, entrance_id: str, server_ids: Collection[str]) -> None:
        """Lead to these machines and to no others. A machine that is gone is left out."""
        ...

    def delete_entrance(self, entrance_id: str) -> None:
        """What is gone is success."""
        ...
