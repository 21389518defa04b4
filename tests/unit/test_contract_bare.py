"""What holds on every cloud, over the cloud in memory, whole and bare, and over NIFCLOUD's wire."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from moyai.cloud.capabilities import Capability
from moyai.cloud.memory import Delays, MemoryCloud
from tests.contract import bare_suite
from tests.contract.bare_site import BareRunner, BareSite, building_bare
from tests.fakes.clock import FakeClock
from tests.fakes.nifcloud_wire import NifcloudWire

RSA = "ssh-rsa AAAAB3NzaC1yc2E= somebody"


def memory(folder: Path, *, bare: bool) -> BareRunner:
    clock = FakeClock()
    capabilities = {Capability.DISKS, Capability.TAGS} if bare else set(Capability)
    cloud = MemoryCloud(clock=clock, delays=Delays(server=20, volume=3, snapshot=3, balancer=8), capabilities=capabilities)
    (folder / "node.tar").write_bytes(b"a machine's image")
    image = cloud.images.upload(name="node", file=folder / "node.tar", distribution="debian", properties={})
    return BareRunner(cloud, clock, image.id, cloud.machines.flavors()[0].id, user_data="", public_key=RSA)


def nifcloud(_: Path) -> BareRunner:
    wire = NifcloudWire()
    script = "#!/bin/sh\ntrue\n"
    return BareRunner(wire.cloud(), wire.clock, "283", "e-medium4", user_data=script, public_key=RSA, step_gb=100)


RUNNERS: dict[str, Callable[[Path], BareRunner]] = {
    "memory": lambda folder: memory(folder, bare=False),
    "bare memory": lambda folder: memory(folder, bare=True),
    "NIFCLOUD": nifcloud,
}


@pytest.fixture(params=list(RUNNERS))
def bare(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[BareSite]:
    runner = RUNNERS[request.param](tmp_path)
    with building_bare(runner) as made:
        yield made
    cloud = runner.cloud
    left = (cloud.machines.servers(), cloud.disks.volumes(), cloud.firewall.security_groups(), cloud.machines.keypairs())
    assert left == ([], [], [], []), "all is taken away again"


class TestMachines(bare_suite.BareMachines):
    """On these clouds."""


class TestNetworks(bare_suite.BareNetworks):
    """On these clouds."""


class TestFirewall(bare_suite.BareFirewall):
    """On these clouds."""


class TestDisks(bare_suite.BareDisks):
    """On these clouds."""


class TestEntrances(bare_suite.BareEntrances):
    """On these clouds."""


class TestCloud(bare_suite.BareCloud):
    """On these clouds."""
