"""The cluster's machines as the cloud has them: one list for all nodes, however many ask at the same time."""

from __future__ import annotations

import asyncio

from moyai.cloud.model import Server
from moyai.core.clock import Clock
from moyai.core.errors import NotFound
from moyai.core.ids import cluster_tag
from moyai.kube.objects import Node
from moyai.runtime.calls import CloudCalls


class Servers:
    """``uid``: the cluster's; empty where servers carry no tag of it (a cluster that was not made by us)."""

    def __init__(self, calls: CloudCalls, uid: str, clock: Clock) -> None:
        self._cloud, self._call = calls.cloud, calls.call
        self._tag = cluster_tag(uid) if uid else None
        self._clock = clock
        self._lock = asyncio.Lock()
        self._listed: tuple[float, list[Server]] | None = None

    def id_of(self, node: Node) -> str | None:
        """The id of the node's server; None for a node that is not (yet) this cloud's."""
        return self._cloud.machines.server_id(node.provider_id)

    def provider_id(self, server: Server) -> str:
        return self._cloud.machines.provider_id(server.id)

    async def all(self, *, max_age: float) -> list[Server]:
        """Seen at most ``max_age`` seconds ago; who asks while a list is under way gets that one's answer."""
        asked = self._clock.monotonic()
        async with self._lock:
            if self._listed is None or self._listed[0] < asked - max_age:
                now = self._clock.monotonic()
                self._listed = (now, await self._call(self._cloud.machines.servers, tag=self._tag))
            return self._listed[1]

    def forget(self) -> None:
        """The list has proved wrong, or is about to be: the next question reads a new one."""
        self._listed = None

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
        self.forget()

    async def ask(self, wanted: str) -> Server | None:
        """The server of this id as it is now; None: the cloud has none such."""
        try:
            return await self._call(self._cloud.machines.server, wanted)
        except NotFound:
            return None
