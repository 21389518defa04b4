"""Mounts of disks that are gone: undone at the driver's start, before each stage, and once no process holds them.

A disk that is attached keeps its mounts.
"""

from __future__ import annotations

import asyncio
import posixpath
import threading

import pytest

from moyai.cloud.memory import Killed
from moyai.cloud.model import Instance
from moyai.csi.access_modes import VolumeAccess
from moyai.csi.errors import Refused
from moyai.csi.node.rpc import NodeService
from moyai.csi.node.staging import NodeWork
from moyai.csi.node.stale import staging_folder
from moyai.csi.proto import csi_pb2 as pb
from tests.fakes.clock import FakeClock
from tests.unit.csi_disks import GIB, FakeDisks
from tests.unit.csi_node import BLOCK, ID, NAMES, TARGET, WRITER, code, work
from tests.unit.csi_world import capability

pytestmark = pytest.mark.virtual_time

OTHER = "1a1b2c3d-4e5f-6789-abcd-ef0123456789"
FOLDER = staging_folder(NAMES.driver)


def place(volume_id: str) -> str:
    return f"{FOLDER}/{volume_id[:8]}/globalmount"


def put(disks: FakeDisks, volume_id: str, *pods: str) -> None:
    disks.volumes_at[posixpath.dirname(place(volume_id))] = volume_id
    node = work(disks)
    node.stage(volume_id, place(volume_id), access=WRITER, context={}, published={})
    for pod in pods:
        node.publish(volume_id, place(volume_id), target=pod, access=WRITER, read_only=False)


def points(disks: FakeDisks) -> list[str]:
    return [one.point for one in disks.table]


def service(disks: FakeDisks, node: NodeWork | None = None) -> NodeService:
    return NodeService(node or work(disks), names=NAMES, instance=lambda: Instance("server-1", "az1"), limit=7)


def two(disks: FakeDisks) -> None:
    """One disk that is there and one that is gone, each in use by a pod."""
    for volume_id, pod in ((ID, TARGET), (OTHER, "/k/pods/p9/mount")):
        disks.attach(volume_id, content="ext4")
        put(disks, volume_id, pod)
    disks.unplug(OTHER)


async def test_at_its_start_the_driver_lets_go_of_disks_that_are_gone() -> None:
    disks = FakeDisks()
    two(disks)
    await service(disks).clear_stale()
    assert points(disks) == [place(ID), TARGET], "a disk that is there was unmounted, or one that is gone was kept"


async def test_before_a_volume_is_staged_all_that_is_left_of_others_goes() -> None:
    disks = FakeDisks()
    two(disks)
    third = "2a1b2c3d-4e5f-6789-abcd-ef0123456789"
    disks.attach(third, content="ext4")
    request = pb.NodeStageVolumeRequest(
        volume_id=third, staging_target_path=place(third), volume_capability=capability(), volume_context={}
    )
    await service(disks).NodeStageVolume(request)
    assert points(disks) == [place(ID), TARGET, place(third)]


async def test_a_mount_that_cannot_go_hinders_nothing_else() -> None:
    disks = FakeDisks()
    two(disks)
    disks.busy.add("/k/pods/p9/mount")
    await service(disks).clear_stale()
    assert points(disks) == [place(ID), TARGET, "/k/pods/p9/mount"]


async def test_a_mount_that_a_container_held_at_the_driver_s_start_goes_without_a_stage() -> None:
    """A cloud may attach the disk nowhere while it is held, and without an attachment no volume is staged."""
    disks = FakeDisks()
    two(disks)
    disks.busy.update({"/k/pods/p9/mount", place(OTHER)})
    clock, looking = FakeClock(), asyncio.create_task(service(disks).keep_clear(60))
    try:
        await clock.advance(150)
        assert len(points(disks)) == 4
        disks.busy.clear()
        await clock.advance(60)
        assert points(disks) == [place(ID), TARGET]
    finally:
        looking.cancel()


async def test_an_unmount_that_hangs_is_begun_once_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moyai.csi.node.rpc._CLEARING_SECONDS", 0)
    disks, begun, end = FakeDisks(), list[str](), threading.Event()
    two(disks)
    node = work(disks)

    def hang(volume_id: str) -> None:
        begun.append(volume_id)
        end.wait(30)

    node.clear_stale = hang
    served = service(disks, node)
    for _ in range(3):
        await served.clear_stale()
    end.set()
    await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))
    assert begun == [OTHER]


def test_a_disk_that_comes_back_as_another_device_is_staged_and_published_again() -> None:
    """With a real unplug: the old mount lives on under the old number, and the disk has a new one."""
    disks = FakeDisks()
    disks.attach(ID, content="ext4")
    put(disks, ID, TARGET)
    disks.unplug(ID)
    back = disks.attach(ID, content="ext4")
    node = work(disks)
    node.stage(ID, place(ID), access=WRITER, context={}, published={})
    node.publish(ID, place(ID), target=TARGET, access=WRITER, read_only=False)
    assert [(one.point, one.device) for one in disks.table] == [(place(ID), back.number), (TARGET, back.number)]


def test_a_disk_that_came_back_is_mounted_again_where_the_kubelet_takes_it_for_staged() -> None:
    whole = 0
    for die_after in range(1, 10):
        disks = FakeDisks()
        disks.attach(ID, content="ext4")
        put(disks, ID)
        disks.unplug(ID)
        back = disks.attach(ID, content="ext4")
        disks.done, disks.die_after = [], die_after
        try:
            work(disks).publish(ID, place(ID), target=TARGET, access=WRITER, read_only=False)
            whole += 1
        except Killed:
            disks.die_after = None
            work(disks).publish(ID, place(ID), target=TARGET, access=WRITER, read_only=False)
        assert [(one.point, one.device) for one in disks.table] == [(place(ID), back.number), (TARGET, back.number)]
        assert not disks.files, "the kubelet could not remove the folder"
    assert whole


def test_a_raw_disk_that_comes_back_is_shown_again() -> None:
    disks = FakeDisks()
    disks.attach(ID)
    node = work(disks)
    node.publish(ID, place(ID), target=TARGET, access=BLOCK, read_only=False)
    disks.unplug(ID)
    back = disks.attach(ID, size=2 * GIB)
    node.publish(ID, place(ID), target=TARGET, access=BLOCK, read_only=False)
    assert disks.number(TARGET) == back.number
    # another disk that is there is not taken away
    disks.attach(OTHER)
    with pytest.raises(Refused, match="another disk") as refused:
        node.publish(OTHER, place(OTHER), target=TARGET, access=VolumeAccess("SINGLE_NODE_WRITER", block=True), read_only=False)
    assert code(refused) == "INTERNAL"
    assert disks.number(TARGET) == back.number


def test_a_crash_while_what_is_left_is_cleared() -> None:
    for die_after in (1, 2):
        disks = FakeDisks()
        disks.attach(ID, content="ext4")
        put(disks, ID, TARGET)
        disks.unplug(ID)
        disks.done, disks.die_after = [], die_after
        with pytest.raises(Killed):
            work(disks).clear_stale(ID)
        disks.die_after = None
        for volume_id in work(disks).stale():
            work(disks).clear_stale(volume_id)
        assert disks.table == []


def test_a_link_that_still_leads_to_the_disk_is_a_sign_that_it_is_there() -> None:
    disks = FakeDisks()
    disks.attach(ID, content="ext4")
    put(disks, ID)
    next(iter(disks.disks.values())).gone = True  # no node of this number below /dev, but the volume's own link
    assert work(disks).stale() == []
