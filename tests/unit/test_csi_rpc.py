"""The CSI driver over gRPC on a real socket: abilities, codes, readiness, and how it registers itself with the kubelet."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from google.protobuf import message_factory
from google.protobuf.message import Message

from moyai.cloud.memory import MemoryAdapter, MemoryCloud
from moyai.cloud.model import Instance
from moyai.core.clock import SystemClock
from moyai.core.waiting import NotYet, auntil
from moyai.csi.app import CsiOptions, Driver
from moyai.csi.grpc.server import probe
from moyai.csi.proto import csi_pb2 as pb
from moyai.csi.proto import registration_pb2 as registration
from moyai.csi.settings import CsiConfig, DriverConfig
from tests.fakes.cloud import add_server, memory
from tests.unit.csi_disks import FakeDisks, as_disks
from tests.unit.csi_world import capability


def _bytes(message: Message) -> bytes:
    return message.SerializeToString()


class Client:
    """Calls a service's methods by name on a socket."""

    def __init__(self, socket: Path, descriptor: Any, *, service: str) -> None:
        self._channel = grpc.aio.insecure_channel(f"unix:{socket}")
        self._service = descriptor.services_by_name[service]

    async def __call__(self, name: str, request: Any) -> Any:
        method = self._service.methods_by_name[name]
        answer = message_factory.GetMessageClass(method.output_type)
        call = cast("Any", self._channel).unary_unary(
            f"/{self._service.full_name}/{name}",
            request_serializer=_bytes,
            response_deserializer=answer.FromString,
        )
        return await call(request, timeout=60)

    async def refused(self, name: str, request: Any) -> str:
        with pytest.raises(grpc.aio.AioRpcError) as found:
            await self(name, request)
        return found.value.code().name

    async def close(self) -> None:
        await self._channel.close()


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A folder with a short name: a socket's whole path has 107 characters at most."""
    with tempfile.TemporaryDirectory(prefix="csi-") as folder:
        yield Path(folder)


@pytest_asyncio.fixture
async def world(sockets: Path) -> AsyncIterator[tuple[MemoryCloud, Path]]:
    raw = memory(looks=1)
    server = add_server(raw, "one")
    folder = sockets / "registry"
    folder.mkdir()
    options = CsiOptions(
        endpoint=f"unix://{sockets}/csi.sock",
        cluster="demo",
        kubelet_path="/var/lib/kubelet/plugins/csi.sock",
        registration_dir=folder,
    )
    adapter = MemoryAdapter(machine=Instance(server.id, server.zone))
    driver = Driver(
        options,
        CsiConfig(adapter.read_login({}), moyai=DriverConfig(cluster_uid="0123456789")),
        adapter=adapter,
        cloud=raw,
        disks=as_disks(FakeDisks()),
    )
    stop = asyncio.Event()
    running = asyncio.create_task(driver.run(stop))

    async def serves() -> bool | NotYet:
        wrong = await probe(sockets / "csi.sock")
        return NotYet(wrong) if wrong else (folder / "disks.memory.test-reg.sock").exists() or NotYet("the registration socket")

    await auntil(serves, clock=SystemClock(), timeout=60, pause=0.02)
    yield raw, sockets
    stop.set()
    assert await running


async def test_abilities_and_codes(world: tuple[MemoryCloud, Path]) -> None:
    _, folder = world
    socket = folder / "csi.sock"
    assert socket.stat().st_mode & 0o777 == 0o600
    identity, controller, node = (Client(socket, pb.DESCRIPTOR, service=name) for name in ("Identity", "Controller", "Node"))
    info = await identity("GetPluginInfo", pb.GetPluginInfoRequest())
    assert info.name == "disks.memory.test"
    abilities = await identity("GetPluginCapabilities", pb.GetPluginCapabilitiesRequest())
    assert len(abilities.capabilities) == 3
    assert (await controller("ControllerGetCapabilities", pb.ControllerGetCapabilitiesRequest())).capabilities
    assert (await node("NodeGetInfo", pb.NodeGetInfoRequest())).node_id
    assert await controller.refused("CreateVolume", pb.CreateVolumeRequest()) == "INVALID_ARGUMENT"
    assert await controller.refused("CreateVolume", pb.CreateVolumeRequest(name="a")) == "INVALID_ARGUMENT"
    listing = pb.ListVolumesRequest(starting_token="nonsense")
    assert await controller.refused("ListVolumes", listing) == "ABORTED"
    assert await controller.refused("DeleteVolume", pb.DeleteVolumeRequest()) == "INVALID_ARGUMENT"
    expand = pb.ControllerExpandVolumeRequest(volume_id="none", capacity_range=pb.CapacityRange(required_bytes=1))
    assert await controller.refused("ControllerExpandVolume", expand) == "NOT_FOUND"
    publish = pb.ControllerPublishVolumeRequest(volume_id="none", node_id="none", volume_capability=capability())
    assert await controller.refused("ControllerPublishVolume", publish) == "NOT_FOUND"
    group = pb.ControllerModifyVolumeRequest(volume_id="none", mutable_parameters={"type": "files"})
    assert await controller.refused("ControllerModifyVolume", group) == "NOT_FOUND"
    stats = pb.NodeGetVolumeStatsRequest(volume_id="none", volume_path="some/path")
    assert await node.refused("NodeGetVolumeStats", stats) == "NOT_FOUND"
    assert await node.refused("NodeStageVolume", pb.NodeStageVolumeRequest(volume_id="a")) == "INVALID_ARGUMENT"
    made = await controller("CreateVolume", pb.CreateVolumeRequest(name="a", volume_capabilities=[capability()]))
    await controller("DeleteVolume", pb.DeleteVolumeRequest(volume_id=made.volume.volume_id))
    for one in (identity, controller, node):
        await one.close()


async def test_the_node_service_alone_tells_what_the_driver_can_as_a_whole(sockets: Path) -> None:
    options = CsiOptions(endpoint=f"unix://{sockets}/csi.sock", cluster="demo", controller=False)
    adapter = MemoryAdapter(machine=Instance("one", "az1"))
    driver = Driver(options, CsiConfig(adapter.read_login({})), adapter=adapter, cloud=None, disks=as_disks(FakeDisks()))
    stop = asyncio.Event()
    running = asyncio.create_task(driver.run(stop))

    async def listens() -> bool | NotYet:
        return (sockets / "csi.sock").exists() or NotYet("the socket")

    await auntil(listens, clock=SystemClock(), timeout=60, pause=0.02)
    identity, controller = (Client(sockets / "csi.sock", pb.DESCRIPTOR, service=name) for name in ("Identity", "Controller"))
    said = await identity("GetPluginCapabilities", pb.GetPluginCapabilitiesRequest())
    assert pb.PluginCapability.Service.CONTROLLER_SERVICE in [one.service.type for one in said.capabilities]
    assert await controller.refused("ListVolumes", pb.ListVolumesRequest()) == "UNIMPLEMENTED"
    for one in (identity, controller):
        await one.close()
    stop.set()
    assert await running


async def test_an_exhausted_quota_has_its_code(world: tuple[MemoryCloud, Path]) -> None:
    raw, folder = world
    raw.store.limits["volumes"] = 0
    controller = Client(folder / "csi.sock", pb.DESCRIPTOR, service="Controller")
    request = pb.CreateVolumeRequest(name="a", volume_capabilities=[capability()])
    assert await controller.refused("CreateVolume", request) == "RESOURCE_EXHAUSTED"
    await controller.close()


async def test_the_kubelet_is_told(world: tuple[MemoryCloud, Path]) -> None:
    _, folder = world
    kubelet = Client(folder / "registry" / "disks.memory.test-reg.sock", registration.DESCRIPTOR, service="Registration")
    info = await kubelet("GetInfo", registration.InfoRequest())
    assert (info.type, info.name, info.endpoint) == ("CSIPlugin", "disks.memory.test", "/var/lib/kubelet/plugins/csi.sock")
    await kubelet("NotifyRegistrationStatus", registration.RegistrationStatus(plugin_registered=True))
    node = Client(folder / "csi.sock", pb.DESCRIPTOR, service="Node")
    assert len((await node("NodeGetInfo", pb.NodeGetInfoRequest())).accessible_topology.segments) == 2
    collision = 'detected topology value collision: driver reported "topology.kubernetes.io/zone":"az1" but existing label is …'
    await kubelet("NotifyRegistrationStatus", registration.RegistrationStatus(plugin_registered=False, error=collision))
    assert len((await node("NodeGetInfo", pb.NodeGetInfoRequest())).accessible_topology.segments) == 1
    await node.close()
    await kubelet.close()
