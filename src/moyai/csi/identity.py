"""CSI's identity service: the driver's name, its abilities, its readiness."""

from __future__ import annotations

from collections.abc import Callable

from moyai import __version__
from moyai.cloud.kind import VolumeNames
from moyai.csi.proto import csi_pb2 as pb


class IdentityService:
    """``not_ready`` returns the reason why the driver is not ready, empty when it is."""

    def __init__(self, names: VolumeNames, *, not_ready: Callable[[], str]) -> None:
        self._driver, self._not_ready = names.driver, not_ready

    async def GetPluginInfo(self, _: pb.GetPluginInfoRequest) -> pb.GetPluginInfoResponse:  # noqa: N802 - CSI's name
        return pb.GetPluginInfoResponse(name=self._driver, vendor_version=__version__)

    async def GetPluginCapabilities(self, _: pb.GetPluginCapabilitiesRequest) -> pb.GetPluginCapabilitiesResponse:  # noqa: N802
        # of the driver as a whole, whichever service this process has: so CSI wants it
        service, expansion = pb.PluginCapability.Service, pb.PluginCapability.VolumeExpansion
        kinds = (service.CONTROLLER_SERVICE, service.VOLUME_ACCESSIBILITY_CONSTRAINTS)
        return pb.GetPluginCapabilitiesResponse(
            capabilities=[
                *(pb.PluginCapability(service=service(type=kind)) for kind in kinds),
                pb.PluginCapability(volume_expansion=expansion(type=expansion.ONLINE)),
            ]
        )

    async def Probe(self, _: pb.ProbeRequest) -> pb.ProbeResponse:  # noqa: N802
        answer = pb.ProbeResponse()
        answer.ready.value = not self._not_ready()
        return answer
