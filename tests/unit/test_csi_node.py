"""The CSI node plug-in over disks in memory: format only an empty disk, mount once, refuse, die anywhere."""

from __future__ import annotations

import pytest

from moyai.cloud.memory import Killed
from moyai.csi.access_modes import VolumeAccess
from moyai.csi.errors import Refused
from tests.unit.csi_disks import GIB, FakeDisks
from tests.unit.csi_node import BLOCK, ID, SECOND, STAGING, TARGET, WRITER, code, publish, stage, work

# stage


@pytest.mark.parametrize(("asked", "made"), [("", "ext4"), ("ext4", "ext4"), ("xfs", "xfs")])
def test_an_empty_disk_is_formatted_once(asked: str, made: str) -> None:
    disks = FakeDisks()
    disk = disks.attach(ID)
    for _ in range(2):
        stage(disks, VolumeAccess("SINGLE_NODE_WRITER", fs_type=asked))
    work(disks).unstage(STAGING)
    stage(disks, VolumeAccess("SINGLE_NODE_WRITER", fs_type=asked))
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
        stage(disks, VolumeAccess("MULTI_NODE_READER_ONLY"))


def test_readers_on_several_nodes_replay_no_log() -> None:
    disks = FakeDisks()
    disks.attach(ID, content="ext4", fs_size=GIB // 2)
    stage(disks, VolumeAccess("MULTI_NODE_READER_ONLY"))
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
        stage(disks, VolumeAccess("SINGLE_NODE_WRITER", fs_type="ext4"))
    assert code(refused) == "FAILED_PRECONDITION"
    stage(disks)
    with pytest.raises(Refused) as mounted:
        stage(disks, VolumeAccess("SINGLE_NODE_WRITER", fs_type="ext4"))
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
    work(disks).stage("other", STAGING, access=WRITER, context={}, published={})
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
    assert work(disks).expand(ID, TARGET, staging="", required=3 * GIB) == 3 * GIB
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
    single = VolumeAccess("SINGLE_NODE_SINGLE_WRITER", block=block)
    stage(disks, single)
    publish(disks, access=single)
    publish(disks, access=single)
    with pytest.raises(Refused, match="for one pod") as refused:
        publish(disks, SECOND, access=single)
    assert code(refused) == "FAILED_PRECONDITION"
    work(disks).unpublish(TARGET)
    publish(disks, SECOND, access=single)


def test_a_raw_volume_for_one_pod_is_published_again_beside_the_kubelets_own_bind() -> None:
    disks = FakeDisks()
    disks.attach(ID)
    single = VolumeAccess("SINGLE_NODE_SINGLE_WRITER", block=True)
    publish(disks, access=single)
    disks.bind("/dev/vdb", "/var/lib/kubelet/plugins/kubernetes.io/csi/volumeDevices/pv/dev/pod", read_only=False)
    publish(disks, access=single)


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
