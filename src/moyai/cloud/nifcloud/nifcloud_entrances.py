"""A public address that leads to a port of a cluster's machines (``cloud.entrances``): an L4 load balancer with one pair of
ports.

An L4 load balancer has no description, so its owner is in its name alone, which follows from the cluster's UID. What always
holds: a balancer of that name which has another pair, or a member without the cluster's mark, is somebody else's and is not
touched. Its id is its name. A cluster's machines are members by their cloud's names, looked up by their ids.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from moyai.cloud.entrances import Entrance
from moyai.cloud.nifcloud.balancer_model import HealthCheck, PairBalancer, PortPair
from moyai.cloud.nifcloud.instance_calls import InstanceCalls, WireInstance
from moyai.cloud.nifcloud.marks import Mark, mark_of, read_mark, wire_name
from moyai.cloud.nifcloud.nifcloud_limits import Terms
from moyai.cloud.nifcloud.pair_balancers import PairBalancers
from moyai.cloud.nifcloud.wire import Wire
from moyai.core.errors import Conflict, NotFound, Retriable

#: Seconds between two checks of a machine's port, and how many must fail.
_INTERVAL, _THRESHOLD = 5, 2


class NifcloudEntrances:
    """``terms``: of what it makes."""

    def __init__(self, wire: Wire, balancers: PairBalancers, *, terms: Terms) -> None:
        self._balancers, self._instances, self._terms = balancers, InstanceCalls(wire), terms

    def entrance(self, *, name: str, tags: Sequence[str]) -> Entrance | None:
        mark = mark_of(name, tags)
        found = self._balancers.get(wire_name(mark))
        return self._shown(found, mark) if found else None

    def create_entrance(self, *, name: str, port: int, tags: Sequence[str]) -> Entrance:
        mark = mark_of(name, tags)
        called = wire_name(mark)
        found = self._balancers.get(called)
        if found is None or not found.pairs:
            wanted = PairBalancer(called, (_pair(port),), accounting=self._terms.accounting)
            found = self._balancers.ensure(wanted)
        if not found.address:
            raise Retriable(f"load balancer {called} has no address yet", object_id=called)
        return self._shown(found, mark)

    def lead_to(self, entrance_id: str, server_ids: Collection[str]) -> None:
        found = self._balancers.get(entrance_id)
        if found is None or not found.pairs:
            raise NotFound(f"NIFCLOUD has no load balancer {entrance_id}", object_id=entrance_id)
        listed = {one.id: one for one in self._instances.all()}
        members = frozenset(listed[one].name for one in server_ids if one in listed)
        wanted = _pair(found.pairs[0].port, members)
        self._balancers.ensure(
            PairBalancer(
                found.name,
                (wanted,),
                address=found.address,
                volume=found.volume,
                accounting=found.accounting,
                policy=found.policy,
            ),
            checked=True,
        )

    def delete_entrance(self, entrance_id: str) -> None:
        self._balancers.delete(entrance_id)

    def _shown(self, found: PairBalancer, mark: Mark) -> Entrance:
        """Raises Conflict for a balancer that is somebody else's."""
        servers = {one.name: one for one in self._instances.all()} if any(one.members for one in found.pairs) else {}
        members = [servers[one] for pair in found.pairs for one in pair.members if one in servers]
        if len(found.pairs) != 1 or not all(_ours(one, mark.uid) for one in members):
            hint = "rename or delete it in the control panel if nobody needs it"
            raise Conflict(f"NIFCLOUD has a load balancer {found.name} already, and it is somebody else's", hint=hint)
        ids = frozenset(one.id for one in members)
        return Entrance(found.name, mark.name, found.address, found.pairs[0].port, ids, mark.tags)


def _ours(server: WireInstance, uid: str) -> bool:
    mark = read_mark(server.description)
    return mark is not None and mark.uid == uid


def _pair(port: int, members: frozenset[str] = frozenset()) -> PortPair:
    return PortPair("TCP", port, port, HealthCheck(f"TCP:{port}", _INTERVAL, _THRESHOLD), members)
