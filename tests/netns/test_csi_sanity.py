"""csi-sanity against the driver: node service on the real kernel with loop devices, the cloud in memory.

The same suite against a real OpenStack and in a machine of it: tests/cloud/test_csi_sanity.py.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from moyai.cloud.memory import MemoryAdapter
from moyai.cloud.model import Instance, Volume
from moyai.cloud.openstack.guest import disk_links
from moyai.csi.app import CsiOptions, Driver
from moyai.csi.node.disks import linux_disks
from moyai.csi.settings import BlockStorageConfig, CsiConfig, DriverConfig
from moyai.linux import loop, mounts
from moyai.linux.process import run
from tests import csi_sanity
from tests.fakes.cloud import add_server, memory
from tests.netns.test_csi_disks import HereDevices
from tests.unit.csi_disks import KnownGuest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts and loop devices")

GIB = 1 << 30


class Attacher:
    """Makes disks of the cloud's volumes on this machine: a sparse file each, a loop device while it is attached."""

    def __init__(self, folder: Path, server: str) -> None:
        self.folder, self.server = folder, server
        (folder / "by-id").mkdir()
        (folder / "files").mkdir()

    def __call__(self, before: Volume | None, after: Volume | None) -> None:
        volume = after or before
        assert volume is not None
        file = self.folder / "files" / volume.id
        link = self.folder / "by-id" / Path(disk_links(volume.id)[0]).name
        if after is None:
            assert not loop.find(file), "deleted while it is attached"
            file.unlink()
            return
        if not file.exists():
            file.touch()
        if file.stat().st_size != after.size_gb * GIB:
            os.truncate(file, after.size_gb * GIB)
            for device in loop.find(file):
                loop.refresh(device)
        has = self.server in after.attached_server_ids
        if has and not link.is_symlink():
            link.symlink_to(loop.attach(file))
        elif not has and link.is_symlink():
            assert not any(
                one.point.startswith(str(self.folder)) and one.source == str(link.resolve()) for one in mounts.mounts()
            )
            link.unlink()
            loop.detach(file)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for one in reversed(mounts.mounts()):
        if one.point.startswith(str(tmp_path)):
            mounts.unmount(one.point)
    loop.detach_under(tmp_path)


@pytest.mark.parametrize("kind", ["mount", "block"])
async def test_the_suite_passes_whole(place: Path, kind: str) -> None:
    raw, adapter = memory(looks=1), MemoryAdapter()
    server = add_server(raw, "node-1")
    raw.store.volumes.watch(Attacher(place, server.id))
    endpoint = f"unix://{place}/csi.sock"
    storage = BlockStorageConfig(node_volume_attach_limit=5)
    config = CsiConfig(adapter.read_login({}), storage, DriverConfig(cluster_uid="sanity"))
    driver = Driver(
        CsiOptions(endpoint=endpoint, cluster="sanity"),
        config,
        adapter=adapter,
        cloud=raw,
        disks=linux_disks(HereDevices(place / "by-id")),
        guest=KnownGuest(Instance(server.id, server.zone)),
    )
    stop = asyncio.Event()
    serving = asyncio.create_task(driver.run(stop))
    program = str(csi_sanity.binary())
    (place / "attributes.yaml").write_text(csi_sanity.ATTRIBUTES)
    words = csi_sanity.words(
        program,
        endpoint=endpoint,
        controller=endpoint,
        folder=str(place),
        size=GIB,
        kind=kind,
        report=str(place / "report.json"),
        attributes=str(place / "attributes.yaml"),
    )
    try:
        done = await asyncio.to_thread(run, words, timeout=300, check=False)
    finally:
        stop.set()
        assert await serving
    csi_sanity.check_whole(csi_sanity.read((place / "report.json").read_text()), code=done.returncode, text=done.stdout)
    assert not raw.store.volumes
    assert not raw.store.snapshots
