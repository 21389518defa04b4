"""The cloud in memory held to the contract of all adapters, also as a cloud that tags at creation only; no second passes but on
its own clock.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from moyai.cloud.capabilities import Capability
from moyai.cloud.memory import Delays, MemoryAdapter, MemoryCloud
from moyai.cloud.model import Instance, Server
from moyai.cloud.own_machine import Guest
from tests.contract import suite
from tests.contract.site import Runner, Site, building
from tests.fakes.clock import FakeClock


@pytest.fixture(scope="module", params=[None, Capability.TAGS], ids=["whole", "no tags later"])
def memory(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Generator[MemoryCloud]:
    cloud = MemoryCloud(
        clock=FakeClock(),
        delays=Delays(server=20, volume=3, snapshot=3, balancer=8),
        capabilities=frozenset(Capability) - {request.param},
    )
    file: Path = tmp_path_factory.mktemp("image") / "node.tar"
    file.write_bytes(b"a machine's image")
    cloud.images.upload(name="node", file=file, distribution="debian", properties={"moyai_format": "rootfs-tar"})
    yield cloud
    left = [cloud.store.networks, cloud.store.ports, cloud.store.servers, cloud.store.volumes, cloud.store.balancers]
    assert [len(one) for one in left] == [1, 0, 0, 0, 0], "the external network alone was there before"


@dataclass(frozen=True)
class MachineInMemory:
    """Implements ``tests.contract.site.Machine``: a volume that is attached shows at its links at once."""

    cloud: MemoryCloud
    server: Server

    def guest(self) -> Guest:
        return MemoryAdapter(machine=Instance(self.server.id, self.server.zone)).guest()

    def has(self, paths: Sequence[str]) -> bool:
        volumes = self.cloud.machines.server(self.server.id).volume_ids
        return any(link in paths for volume in volumes for link in self.guest().disk_links(volume))


@pytest.fixture(scope="module")
def site(memory: MemoryCloud) -> Generator[Site]:
    def lacking(capability: Capability) -> MemoryCloud:
        return MemoryCloud(capabilities=memory.capabilities() - {capability})

    def enter(server: Server) -> MachineInMemory:
        return MachineInMemory(memory, server)

    with building(memory, Runner(memory.store.clock, memory.log_in, lacking, enter, user_data="")) as made:
        yield made


globals().update(suite.for_runner(__name__))
