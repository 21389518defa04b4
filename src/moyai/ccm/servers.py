"""The cluster's machines as the cloud has them: one list for all nodes, however many ask at the same time."""

from __future__ import annotations

from moyai.cloud.model import Server
from moyai.core.clock import Clock
from moyai.core.errors import NotFound
from moyai.core.ids import cluster_tag
from moyai.kube.objects import Node
from moyai.runtime.calls import CloudCalls
from moyai.runtime.shared_reads import RecentList


class Servers:
    """``uid``: the cluster's; empty where servers carry no tag of it (a cluster that was not made by us)."""

    def __init__(self, calls: CloudCalls, *, uid: str, clock: Clock) -> None:
        self._cloud, self._call = calls.cloud, calls.call
        self._tag = cluster_tag(uid) if uid else None
        self._all: RecentList[Server] = RecentList(
            lambda: self._call(self._cloud.machines.servers, tag=self._tag), key=lambda one: one.id, clock=clock
        )

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
        known = set(node.internal_ips) | {node.annotations.get("alpha.kubernetes.io/provided-node-ip", "")}
        return next(
            (one for one in listed if any(address.address in known for address in one.addresses)),
            None,
        )

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
