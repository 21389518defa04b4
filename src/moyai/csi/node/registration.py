"""The node plug-in registers itself: the kubelet's plug-in registration, served on a socket that the kubelet watches for.

The kubelet finds the socket (also after its own restart), asks for the plug-in's name, connects to the driver's socket, and
reports the result. Where the kubelet refuses, the socket is recreated after a while, so that the kubelet tries again.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from enum import Enum
from pathlib import Path

from moyai.core.backoff import Backoff
from moyai.core.ids import ZONE_LABEL
from moyai.csi.grpc.server import RpcServer
from moyai.csi.proto import registration_pb2 as pb
from moyai.runtime.metrics import Metrics

_log = logging.getLogger(__name__)

_AGAIN = Backoff(base=2.0, ceiling=60.0)


#: Source: ``updateTopologyLabels`` of the kubelet's nodeinfomanager.
_COLLISION = re.compile(r'topology value collision: driver reported "([^"]+)"')


class RegistrationRefusal(Enum):
    """Why the kubelet does not register the driver."""

    ZONE = "the standard label of the Node says another zone than the driver"
    OTHER = "another reason"


def refusal(error: str) -> RegistrationRefusal:
    """Of the kubelet's words: it reports its reason in no other form."""
    found = _COLLISION.search(error)
    return RegistrationRefusal.ZONE if found and found[1] == ZONE_LABEL else RegistrationRefusal.OTHER


class Registration:
    """``driver``: its name. ``socket``: where the kubelet looks (``plugins_registry``); ``endpoint``: the driver's socket as
    the kubelet sees it. ``refused`` is called when the kubelet refuses."""

    def __init__(
        self,
        *,
        driver: str,
        socket: Path,
        endpoint: str,
        metrics: Metrics,
        refused: Callable[[RegistrationRefusal], None],
        again: Backoff = _AGAIN,
    ) -> None:
        self._driver, self._socket, self._endpoint = driver, socket, endpoint
        self._metrics, self._on_refused, self._again = metrics, refused, again
        self._answered = asyncio.Event()
        self._wrong = "the kubelet has not answered yet"

    def wrong(self) -> str:
        """Why the kubelet does not know this plug-in; empty when it does."""
        return self._wrong

    async def GetInfo(self, _: pb.InfoRequest) -> pb.PluginInfo:  # noqa: N802 - the kubelet's name
        return pb.PluginInfo(type="CSIPlugin", name=self._driver, endpoint=self._endpoint, supported_versions=["1.0.0"])

    async def NotifyRegistrationStatus(self, status: pb.RegistrationStatus) -> pb.RegistrationStatusResponse:  # noqa: N802
        self._wrong = "" if status.plugin_registered else f"the kubelet refuses the plug-in: {status.error}"
        if not status.plugin_registered:
            self._on_refused(refusal(status.error))
        self._answered.set()
        return pb.RegistrationStatusResponse()

    async def run(self) -> None:
        """Serves until cancelled."""
        attempt = 0
        service = pb.DESCRIPTOR.services_by_name["Registration"]
        while True:
            server = RpcServer({"registration": (service, self)}, metrics=self._metrics)
            await server.start(f"unix://{self._socket}")
            try:
                await self._refused()
            finally:
                await server.stop(1.0)
                await asyncio.to_thread(self._socket.unlink, missing_ok=True)
            _log.error("%s; asking again", self._wrong)
            await asyncio.sleep(self._again.delay(attempt))
            attempt += 1

    async def _refused(self) -> None:
        """Returns when the kubelet has refused, or when the socket is gone."""
        while True:
            try:
                async with asyncio.timeout(30.0):
                    await self._answered.wait()
            except TimeoutError:
                if not await asyncio.to_thread(self._socket.exists):
                    self._wrong = f"{self._socket} is gone"
                    return
                continue
            self._answered.clear()
            if self._wrong:
                return
            _log.info("registered with the kubelet")
