"""The CSI node plug-in over disks in memory: format only what is empty, mount once, grow, refuse, die anywhere."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from moyai.cloud.memory import Killed
from moyai.cloud.model import Instance
from moyai.cloud.openstack.guest import disk_links
from moyai.csi.controller.access_modes import Access
from moyai.csi.errors import Refused
from moyai.csi.names import BLANK
from moyai.csi.node.service import Node
from moyai.csi.node.staging import NodeWork
from moyai.csi.proto import csi_pb2 as pb
from moyai.linux import mounts
from tests.unit.csi_disks import GIB, FakeDisks, as_disks
from tests.unit.csi_world import capability

ID = "0a1b2c3d-4e5f-6789-abcd-ef0123456789"
STAGING, TARGET, SECOND = "/k/globalmount", "/k/pods/p1/mount", "/k/pods/p2/mount"
WRITER = Access("SINGLE_NODE_WRITER")
BLOCK = Access("SINGLE_NODE_WRITER", block=True)


def work(disks: FakeDisks, *, rescan: bool = False) -> NodeWork:
    elapsed = [0.0]

    def sleep(seconds: float) -> None:
        elapsed[0] += seconds

    return NodeWork(as_disks(disks), links=disk_links, rescan=rescan, sleep=sleep, now=lambda: elapsed[0])


def stage(disks: FakeDisks, access: Access = WRITER, *, blank: bool = True) -> None:
    work(disks).stage(ID, STAGING, access, {BLANK: "true"} if blank else {}, {})


def publish(disks: FakeDisks, target: str = TARGET, access: Access = WRITER, *, read_only: bool = False) -> None:
    work(disks).publish(ID, STAGING, target, access, read_only=read_only)


def code(refused: pytest.ExceptionInfo[Refused]) -> str:
    return refused.value.code


# stage


@pytest.mark.parametrize(("asked", "made"), [("", "ext4"), ("ext4", "ext4"), ("xfs", "xfs")])
def test_an_empty_disk_is_formatted_once(asked: str, made: str) -> None:
    disks = FakeDisks()
    disk = disks.attach(ID)
    for _ in range(2):
        stage(disks, Access("SINGLE_NODE_WRITER", fs_type=asked))
    work(disks).unstage(STAGING)
    stage(disks, Access("SINGLE_NODE_WRITER", fs_type=asked))
    assert disks.done.count(f"make {made}") == 1
    assert disk.content == made
    assert ("nouuid" in disks.options[STAGING]) == (made == "xfs")


@pytest.mark.parametrize("content", ["crypto_LUKS", "dos partitions", "btrfs", "LVM2_member"])
def test_what_is_not_ours_to_know_stays_as_it_is(content: str) -> None:
    disks = FakeDisks()
    disks.attach(ID, content=content)
    with pytest.raises(Refused, match="unchanged") as refused:
        stage(disks)
    assert code(refused) == "FAILED_PRECONDITION"
    assert disks.done == []


def test_data_without_a_mark_is_formatted_only_on_a_volume_made_blank() -> None:
    disks = FakeDisks()
    disks.attach(ID, zero=False)
    with pytest.raises(Refused, match="nothing was changed"):
        stage(disks, blank=False)
    assert disks.done == []
    stage(disks, blank=True)
    assert disks.done[0] == "make ext4"


def test_an_empty_disk_cannot_be_read() -> None:
    disks = FakeDisks()
    disks.attach(ID)
    with pytest.raises(Refused, match="write it first"):
        stage(disks, Access("MULTI_NODE_READER_ONLY"))


def test_readers_on_several_nodes_replay_no_log() -> None:
    disks = FakeDisks()
    disks.attach(ID, content="ext4", fs_size=GIB // 2)
    stage(disks, Access("MULTI_NODE_READER_ONLY"))
    assert disks.options[STAGING] == ["ro", "noload"]
    assert disks.done == [f"mount {STAGING}"]


def test_a_damaged_file_system_is_not_mounted() -> None:
    disks = FakeDisks()
    disks.attach(ID, content="ext4", damaged=True)
    with pytest.raises(Refused, match="damaged"):
        stage(disks)
    assert disks.table == []


def test_another_file_system_than_asked_for() -> None:
    disks = FakeDisks()
    disks.attach(ID, content="xfs")
    with pytest.raises(Refused, match="holds xfs, not ext4") as refused:
        stage(disks, Access("SINGLE_NODE_WRITER", fs_type="ext4"))
    assert code(refused) == "FAILED_PRECONDITION"
    stage(disks)
    with pytest.raises(Refused) as mounted:
        stage(disks, Access("SINGLE_NODE_WRITER", fs_type="ext4"))
    assert code(mounted) == "ALREADY_EXISTS"


def test_a_disk_that_does_not_come() -> None:
    with pytest.raises(Refused, match="attached") as refused:
        stage(FakeDisks())
    assert code(refused) == "NOT_FOUND"


def test_a_raw_device_is_left_alone() -> None:
    disks = FakeDisks()
    disks.attach(ID)
    stage(disks, BLOCK)
    assert disks.done == []


def test_a_place_that_another_disk_has() -> None:
    disks = FakeDisks()
    disks.attach("other", content="ext4")
    work(disks).stage("other", STAGING, WRITER, {}, {})
    disks.attach(ID, content="ext4")
    with pytest.raises(Refused, match="another disk"):
        stage(disks)


# publish


def test_publish_and_back() -> None:
    disks = FakeDisks()
    disks.attach(ID)
    stage(disks)
    for _ in range(2):
        publish(disks)
        publish(disks, SECOND, read_only=True)
    assert [(one.point, one.read_only) for one in disks.table] == [(STAGING, False), (TARGET, False), (SECOND, True)]
    with pytest.raises(Refused) as refused:
        publish(disks, SECOND)
    assert code(refused) == "ALREADY_EXISTS"
    for _ in range(2):
        work(disks).unpublish(TARGET)
        work(disks).unpublish(SECOND)
        work(disks).unstage(STAGING)
    assert disks.table == []
    assert disks.folders == {STAGING}


def test_a_raw_device_is_shown_as_a_file() -> None:
    disks = FakeDisks()
    disk = disks.attach(ID, size=3 * GIB)
    for _ in range(2):
        publish(disks, access=BLOCK)
    assert disks.done == [f"bind {TARGET}"]
    assert disks.number(TARGET) == disk.number
    assert work(disks).usage(ID, TARGET) == 3 * GIB
    assert work(disks).expand(ID, TARGET, "", 3 * GIB) == 3 * GIB
    work(disks).unpublish(TARGET)
    assert disks.files == set()


def test_what_is_not_staged_or_not_attached() -> None:
    disks = FakeDisks()
    with pytest.raises(Refused, match="not attached"):
        publish(disks)
    disks.attach(ID)
    with pytest.raises(Refused, match="not staged") as refused:
        publish(disks)
    assert code(refused) == "FAILED_PRECONDITION"


@pytest.mark.parametrize(("block", "dev"), [(False, "devtmpfs"), (True, "devtmpfs"), (True, "tmpfs")])
def test_a_volume_for_one_pod(block: bool, dev: str) -> None:
    disks = FakeDisks(dev=dev)
    disks.attach(ID)
    single = Access("SINGLE_NODE_SINGLE_WRITER", block=block)
    stage(disks, single)
    publish(disks, access=single)
    publish(disks, access=single)
    with pytest.raises(Refused, match="for one pod") as refused:
        publish(disks, SECOND, single)
    assert code(refused) == "FAILED_PRECONDITION"
    work(disks).unpublish(TARGET)
    publish(disks, SECOND, single)


def test_a_raw_volume_for_one_pod_is_published_again_beside_the_kubelets_own_bind() -> None:
    disks = FakeDisks()
    disks.attach(ID)
    single = Access("SINGLE_NODE_SINGLE_WRITER", block=True)
    publish(disks, access=single)
    disks.bind("/dev/vdb", "/var/lib/kubelet/plugins/kubernetes.io/csi/volumeDevices/pv/dev/pod", read_only=False)
    publish(disks, access=single)


# grow


def test_a_file_system_grows_in_use_or_when_it_is_mounted_next() -> None:
    for kind, online in (("ext4", True), ("xfs", False)):
        disks = FakeDisks(online=online)
        disk = disks.attach(ID, content=kind)
        stage(disks)
        publish(disks)
        disk.size = 2 * GIB
        for _ in range(2):
            assert work(disks).expand(ID, TARGET, STAGING, 2 * GIB) == 2 * GIB
        assert disk.fs_size == 2 * GIB
        assert disks.done.count("grow mounted") == 1

    disks = FakeDisks(online=False)
    disk = disks.attach(ID, content="ext4")
    stage(disks)
    publish(disks)
    disk.size = 2 * GIB
    with pytest.raises(Refused, match="mounted next") as refused:
        work(disks).expand(ID, TARGET, STAGING, 2 * GIB)
    # the only code after which the kubelet writes the reason to the claim and waits for the next mount
    assert code(refused) == "FAILED_PRECONDITION"
    work(disks).unpublish(TARGET)
    work(disks).unstage(STAGING)
    stage(disks)
    publish(disks)
    assert work(disks).expand(ID, TARGET, STAGING, 2 * GIB) == 2 * GIB
    assert disk.fs_size == 2 * GIB


def test_what_stays_staged_from_one_pod_to_the_next_grows_between_them() -> None:
    disks = FakeDisks(online=False)
    disk = disks.attach(ID)
    stage(disks)
    publish(disks)
    disk.size = 2 * GIB
    publish(disks, SECOND)
    assert disk.fs_size == GIB, "a pod used it"
    work(disks).unpublish(TARGET)
    work(disks).unpublish(SECOND)
    publish(disks, SECOND)
    assert disk.fs_size == 2 * GIB
    assert work(disks).expand(ID, SECOND, STAGING, 2 * GIB) == 2 * GIB
    before = list(disks.done)
    work(disks).unpublish(SECOND)
    publish(disks)
    assert [one for one in disks.done[len(before) :] if STAGING in one or "check" in one] == []


def test_a_crash_while_it_grows_between_pods() -> None:
    for die_after in range(1, 12):
        disks = FakeDisks(online=False)
        disk = disks.attach(ID)
        stage(disks)
        disk.size, disks.done, disks.die_after = 2 * GIB, [], die_after
        died = 0
        while True:
            try:
                publish(disks)
                break
            except Killed:
                died, disks.die_after = died + 1, None
        disks.die_after = None
        assert disk.fs_size == 2 * GIB
        assert disks.mounted(STAGING)
        assert disks.mounted(TARGET)
        work(disks).unpublish(TARGET)
        work(disks).unstage(STAGING)
        assert not disks.files, "the kubelet could not remove the folder"
        if not died:
            assert die_after > 5
            return
    raise AssertionError("it never came through")


def test_a_copy_on_a_larger_disk_fills_it() -> None:
    for kind in ("ext4", "xfs"):
        disks = FakeDisks(online=False)
        disk = disks.attach(ID, content=kind, size=2 * GIB, fs_size=GIB)
        stage(disks, blank=False)
        assert disk.fs_size == 2 * GIB


def test_a_disk_that_has_not_grown_yet() -> None:
    disks = FakeDisks()
    disks.attach(ID)
    stage(disks)
    publish(disks)
    with pytest.raises(Refused, match="still sees") as refused:
        work(disks, rescan=True).expand(ID, TARGET, STAGING, 2 * GIB)
    assert code(refused) == "UNAVAILABLE"
    assert disks.rescans > 0
    with pytest.raises(Refused) as nowhere:
        work(disks).expand(ID, "/nowhere", "", GIB)
    assert code(nowhere) == "NOT_FOUND"


# measure


def test_measures_and_illness() -> None:
    disks = FakeDisks()
    disk = disks.attach(ID)
    stage(disks)
    publish(disks)
    assert work(disks).faults(ID, TARGET) == []
    with pytest.raises(Refused) as refused:
        work(disks).usage(ID, "/nowhere")
    assert code(refused) == "NOT_FOUND"
    disks.error_count = 3
    assert [one.reason for one in work(disks).faults(ID, TARGET)] == ["FileSystemErrors"]
    disk.sick = True
    assert [one.kind for one in work(disks).faults(ID, TARGET)] == ["INACCESSIBLE", "DEGRADED"]
    disks.links.clear()
    assert [one.reason for one in work(disks).faults(ID, TARGET)] == ["DeviceGone"]
    with pytest.raises(Refused):
        work(disks).faults(ID, "/nowhere")


# crashes


def test_a_crash_between_any_two_steps() -> None:
    def life(disks: FakeDisks) -> None:
        stage(disks)
        publish(disks, read_only=True)

    def death(disks: FakeDisks) -> None:
        work(disks).unpublish(TARGET)
        work(disks).unstage(STAGING)

    whole = FakeDisks()
    whole.attach(ID)
    life(whole)
    assert len(whole.done) == 4
    for number in range(1, len(whole.done) + 1):
        disks = FakeDisks(die_after=number)
        disks.attach(ID)
        with pytest.raises(Killed):
            life(disks)
        disks.die_after = None
        life(disks)
        assert disks.done.count("make ext4") == 1
        assert [(one.point, one.read_only) for one in disks.table] == [(STAGING, False), (TARGET, True)]
        for _ in ("unpublish", "unstage"):
            disks.die_after = len(disks.done) + 1
            with pytest.raises(Killed):
                death(disks)
            disks.die_after = None
        death(disks)
        assert disks.table == []


# the service itself


async def test_the_service_speaks_csi() -> None:
    disks = FakeDisks()
    disks.attach(ID)
    node = Node(work(disks), instance=lambda: Instance("server-1", "az1"), limit=7)
    info = await node.NodeGetInfo(pb.NodeGetInfoRequest())
    assert (info.node_id, info.max_volumes_per_node) == ("server-1", 7)
    assert info.accessible_topology.segments == {"topology.cinder.csi.openstack.org/zone": "az1"}
    for _ in range(2):
        await asyncio.gather(
            *(
                node.NodeStageVolume(
                    pb.NodeStageVolumeRequest(
                        volume_id=ID,
                        staging_target_path=STAGING,
                        volume_capability=capability(),
                        volume_context={BLANK: "true"},
                    )
                )
                for _ in range(3)
            )
        )
    assert disks.done.count("make ext4") == 1
    await node.NodePublishVolume(
        pb.NodePublishVolumeRequest(
            volume_id=ID, staging_target_path=STAGING, target_path=TARGET, volume_capability=capability()
        )
    )
    stats = await node.NodeGetVolumeStats(pb.NodeGetVolumeStatsRequest(volume_id=ID, volume_path=TARGET))
    assert [one.total for one in stats.usage] == [GIB, 10]
    disks.error_count = 1
    health = await node.NodeGetVolumeHealth(pb.NodeGetVolumeHealthRequest(volume_id=ID, volume_publish_path=TARGET))
    assert [one.reason for one in health.volume_health.health_statuses] == ["FileSystemErrors"]
    await node.NodeUnpublishVolume(pb.NodeUnpublishVolumeRequest(volume_id=ID, target_path=TARGET))
    await node.NodeUnstageVolume(pb.NodeUnstageVolumeRequest(volume_id=ID, staging_target_path=STAGING))
    assert disks.table == []


async def test_a_machine_that_does_not_know_itself_says_so() -> None:
    node = Node(work(FakeDisks()), instance=lambda: None, limit=7)
    with pytest.raises(Refused) as refused:
        await node.NodeGetInfo(pb.NodeGetInfoRequest())
    assert code(refused) == "UNAVAILABLE"


# the table of mounts

TABLE = r"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
40 22 7:3 / /var/lib/kubelet/plugins/a\040b/globalmount rw,relatime shared:9 - ext4 /dev/vdb rw
41 22 7:3 / /var/lib/kubelet/pods/1/mount ro,relatime - ext4 /dev/vdb rw
42 22 7:4 / /var/lib/kubelet/pods/2/mount rw,relatime - ext4 /dev/vdc ro,errors=remount-ro
43 22 0:6 /vdd /var/lib/kubelet/pods/3/dev rw - devtmpfs udev rw
44 22 0:9 / /none rw - tmpfs
nonsense
"""


def test_the_table_of_mounts_is_read(tmp_path: Path) -> None:
    table = mounts.parse(TABLE)
    assert [one.point for one in table if one.device == (7, 3)] == [
        "/var/lib/kubelet/plugins/a b/globalmount",
        "/var/lib/kubelet/pods/1/mount",
    ]
    assert [one.read_only for one in table[1:4]] == [False, True, False]
    assert [one.broken for one in table[1:4]] == [False, False, True]
    assert table[4].root == "/vdd"
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    here = mounts.Mount(str(real / "m"), "/", (7, 9), "ext4", "/dev/vdx", False)
    assert mounts.at(str(tmp_path / "link" / "m"), [here]) == here
    assert mounts.at(str(tmp_path / "link"), [here]) is None
