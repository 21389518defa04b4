"""A volume that has grown: its file system follows, in use, between two pods or at the next mount."""

from __future__ import annotations

import pytest

from moyai.cloud.memory import Killed
from moyai.csi.errors import Refused
from tests.unit.csi_disks import GIB, FakeDisks
from tests.unit.csi_node import ID, SECOND, STAGING, TARGET, code, publish, stage, work

# grow


def test_a_file_system_grows_in_use_or_when_it_is_mounted_next() -> None:
    for kind, online in (("ext4", True), ("xfs", False)):
        disks = FakeDisks(online=online)
        disk = disks.attach(ID, content=kind)
        stage(disks)
        publish(disks)
        disk.size = 2 * GIB
        for _ in range(2):
            assert work(disks).expand(ID, TARGET, staging=STAGING, required=2 * GIB) == 2 * GIB
        assert disk.fs_size == 2 * GIB
        assert disks.done.count("grow mounted") == 1

    disks = FakeDisks(online=False)
    disk = disks.attach(ID, content="ext4")
    stage(disks)
    publish(disks)
    disk.size = 2 * GIB
    with pytest.raises(Refused, match="mounted next") as refused:
        work(disks).expand(ID, TARGET, staging=STAGING, required=2 * GIB)
    # the only code after which the kubelet writes the reason to the claim and waits for the next mount
    assert code(refused) == "FAILED_PRECONDITION"
    work(disks).unpublish(TARGET)
    work(disks).unstage(STAGING)
    stage(disks)
    publish(disks)
    assert work(disks).expand(ID, TARGET, staging=STAGING, required=2 * GIB) == 2 * GIB
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
    assert work(disks).expand(ID, SECOND, staging=STAGING, required=2 * GIB) == 2 * GIB
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
        assert disks.at(STAGING)
        assert disks.at(TARGET)
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
        work(disks, rescan=True).expand(ID, TARGET, staging=STAGING, required=2 * GIB)
    assert code(refused) == "UNAVAILABLE"
    assert disks.rescans > 0
    with pytest.raises(Refused) as nowhere:
        work(disks).expand(ID, "/nowhere", staging="", required=GIB)
    assert code(nowhere) == "NOT_FOUND"
