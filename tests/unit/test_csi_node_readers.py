"""Readers on several machines: what a writer synced before its disk was copied is there, and nobody writes beside a reader."""

from __future__ import annotations

import pytest

from moyai.cloud.memory import Killed
from moyai.csi.access_modes import VolumeAccess
from moyai.csi.driver_names import ALONE
from moyai.csi.errors import Refused
from moyai.linux.process import ProcessError
from tests.unit.csi_disks import FakeDisks
from tests.unit.csi_node import ID, STAGING, TARGET, code, publish, work

READERS = VolumeAccess("MULTI_NODE_READER_ONLY", flags=("noatime",))
CHOSEN = {ALONE: "true"}


def stage(disks: FakeDisks, published: dict[str, str], *, access: VolumeAccess = READERS) -> None:
    work(disks).stage(ID, STAGING, access=access, context={}, published=published)


def settled_options(kind: str) -> list[str]:
    return ["noatime", "ro", "noload"] if kind == "ext4" else ["noatime", "ro", "norecovery", "nouuid"]


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_the_chosen_machine_replays_once_and_then_only_reads(kind: str) -> None:
    disks = FakeDisks()
    disk = disks.attach(ID, content=kind, unsettled=True)
    for _ in range(2):
        stage(disks, CHOSEN)
    assert not disk.unsettled
    beside = f"{STAGING}.replaying"
    assert disks.done == [f"mount {beside}", f"unmount {beside}", f"mount {STAGING}"]
    assert disks.options[STAGING] == settled_options(kind)
    assert disks.options[beside][0] == "rw"
    assert beside not in disks.folders, "the kubelet could not remove the folder"


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_another_machine_waits_until_the_disk_itself_is_settled(kind: str) -> None:
    disks = FakeDisks()
    disk = disks.attach(ID, content=kind, unsettled=True)
    with pytest.raises(Refused, match=r"delete all pods that use the claim") as refused:
        stage(disks, {})
    assert code(refused) == "UNAVAILABLE"
    assert disks.done == []
    disk.unsettled = False
    stage(disks, {})
    assert disks.done == [f"mount {STAGING}"]


def test_a_journal_that_is_being_written_elsewhere_cannot_always_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    disks = FakeDisks()
    disks.attach(ID, content="xfs")
    answers = [ProcessError(["xfs_logprint"], "reports no state of the log"), False, True]

    def is_settled(*_: object) -> bool:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(disks, "is_settled", is_settled)
    stage(disks, {})
    assert disks.done == [f"mount {STAGING}"]
    answers[:] = [ProcessError(["xfs_logprint"], "cannot be read")] * 1000
    work(disks).unstage(STAGING)
    with pytest.raises(Refused, match=r"is not replayed yet \(xfs_logprint: cannot be read\)"):
        stage(disks, {})


def test_a_settled_disk_is_never_written() -> None:
    disks = FakeDisks()
    disks.attach(ID, content="ext4", read_only=True)
    for published in (CHOSEN, {}):
        stage(disks, published)
        assert disks.options[STAGING] == settled_options("ext4")
        work(disks).unstage(STAGING)


def test_a_disk_that_may_not_be_written_is_refused_with_what_would_help() -> None:
    disks = FakeDisks()
    disks.attach(ID, content="ext4", unsettled=True, read_only=True)
    with pytest.raises(Refused, match=r"attached read-only: use it with access mode ReadWriteOnce once") as refused:
        stage(disks, CHOSEN)
    assert code(refused) == "FAILED_PRECONDITION"
    assert disks.done == []


def test_a_crash_anywhere_while_a_journal_is_replayed() -> None:
    for die_after in range(1, 5):
        disks = FakeDisks(die_after=die_after)
        disk = disks.attach(ID, content="ext4", unsettled=True)
        try:
            stage(disks, CHOSEN)
        except Killed:
            disks.die_after = None
            if die_after == 1:
                # the kubelet may give up instead of trying again
                work(disks).unstage(STAGING)
                assert (disks.table, disks.folders) == ([], {STAGING})
            stage(disks, CHOSEN)
        disks.die_after = None
        publish(disks, access=READERS)
        assert not disk.unsettled
        assert [(one.point, one.read_only) for one in disks.table] == [(STAGING, True), (TARGET, True)]


def test_a_single_machine_s_reader_lets_the_kernel_replay() -> None:
    disks = FakeDisks()
    disk = disks.attach(ID, content="ext4", unsettled=True)
    stage(disks, {}, access=VolumeAccess("SINGLE_NODE_READER_ONLY"))
    assert not disk.unsettled
