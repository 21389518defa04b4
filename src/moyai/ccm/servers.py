"""The cluster's machines as the cloud has them: one list for all nodes, however many ask at the same time."""

from __future__ import annotations

from moyai.cloud.model import Server
from moyai.core.clock import Clock
from moyai.core.errors import NotFound
from moyai.core.ids import cluster_tag, tag_owner
from moyai.kube.objects import Node
from moyai.runtime.calls import CloudCalls
from moyai.runtime.shared_reads import RecentList


class Servers:
    """``uid``: the cluster's; empty where servers carry no tag of it (a cluster that was not made by us).

    ``untagged``: a server without any cluster's tag is a node's, too, if it has the node's name. That is for a kind of cloud
    on which nobody can tag the servers of a cluster that was not made by us.
    """

    def __init__(self, calls: CloudCalls, *, uid: str, clock: Clock, untagged: bool = False) -> None:
        self._cloud, self._call = calls.cloud, calls.call
        self._tag = cluster_tag(uid) if uid else None
        self._all: RecentList[Server] = RecentList(
            lambda: self._call(self._cloud.machines.servers, tag=self._tag), key=lambda one: one.id, clock=clock
        )
        self._untagged: RecentList[Server] | None = None
        if self._tag and untagged:
            self._untagged = RecentList(self._without_tag, key=lambda one: one.id, clock=clock)

    async def _without_tag(self) -> list[Server]:
        found = await self._call(self._cloud.machines.servers)
        return [one for one in found if not any(map(tag_owner, one.tags))]

    def id_of(self, node: Node) -> str | None:
        """The id of the node's server; None for a node that is not (yet) this cloud's."""
        return self._cloud.machines.server_id(node.provider_id)

    def provider_id(self, server: Server) -> str:
        return self._cloud.machines.provider_id(server.id, server.zone)

    async def all(self, *, max_age: float) -> list[Server]:
        """As seen at most ``max_age`` seconds ago (``RecentList.get``)."""
        return await self._all.get(max_age=max_age)

    async def of(self, node: Node, *, max_age: float) -> Server | None:
        """The node's server, by provider id, else by name or address. None: the cloud has none such."""
        listed = await self.all(max_age=max_age)
        wanted = self.id_of(node)
        if wanted is not None:
            found = next((one for one in listed if one.id == wanted), None)
            # a list may lack what lost its tag: that a server is gone is only believed when it is asked for by id
            return found or await self.ask(wanted)
        found = next((one for one in listed if one.name == node.name), None)
        if found:
            return found
        known = {*node.internal_ips, *node.provided_ips}
        found = next((one for one in listed if any(address.address in known for address in one.addresses)), None)
        if found is None and self._untagged is not None:
            others = await self._untagged.get(max_age=max_age)
            found = next((one for one in others if one.name == node.name), None)
        return found

    async def stop(self, wanted: str) -> None:
        """Power a server off; returns while it is still about to."""
        await self._call(self._cloud.machines.stop_server, wanted)
        # the list says that it runs
        self._all.forget()

    async def ask(self, wanted: str) -> Server | None:
        """The server of this id as it is now; None: the cloud has none such."""
        try:
            found = await self._call(self._cloud.machines.server, wanted)
        except NotFound:
            self._all.drop(wanted)
            return None
        # newer than the list: the next caller must not see an earlier state
        self._all.put(found)
        return found
