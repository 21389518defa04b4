"""Errors of mounting and formatting are in the words of whoever wrote the StorageClass: which option, which file system."""

from __future__ import annotations

import pytest

from moyai.csi.access_modes import VolumeAccess
from moyai.csi.errors import Refused
from moyai.linux.process import ProcessError
from tests.unit.csi_disks import FakeDisks
from tests.unit.csi_node import ID, code, stage


def refusal(disks: FakeDisks, access: VolumeAccess) -> pytest.ExceptionInfo[Refused]:
    with pytest.raises(Refused) as refused:
        stage(disks, access)
    return refused


def test_wrong_mount_options_are_named_with_the_place_that_they_come_from() -> None:
    disks = FakeDisks(wrong_options={"notaime": "Unknown parameter 'notaime'", "data=x": "Bad value for 'data'"})
    disks.attach(ID)
    one = refusal(disks, VolumeAccess("SINGLE_NODE_WRITER", flags=("noatime", "notaime")))
    assert code(one) == "INVALID_ARGUMENT"
    named = "ext4 refuses a mount option: 'notaime' (Unknown parameter 'notaime'); "
    assert f"volume {ID} was not mounted: {named}" in str(one.value)
    assert "mountOptions of the PersistentVolume, which has them from its StorageClass" in str(one.value)
    two = refusal(disks, VolumeAccess("SINGLE_NODE_WRITER", flags=("notaime", "data=x")))
    assert "mount options: 'notaime' (Unknown parameter 'notaime'), 'data=x' (Bad value for 'data')" in str(two.value)
    assert disks.table == []
    stage(disks, VolumeAccess("SINGLE_NODE_WRITER", flags=("noatime",)))


def test_a_file_system_that_the_kernel_does_not_have() -> None:
    disks = FakeDisks(known=("ext4",))
    disks.attach(ID)
    refused = refusal(disks, VolumeAccess("SINGLE_NODE_WRITER", fs_type="xfs"))
    assert code(refused) == "FAILED_PRECONDITION"
    assert "the kernel of this machine has no xfs" in str(refused.value)
    assert "csi.storage.k8s.io/fstype" in str(refused.value)


def test_what_the_kernel_does_not_explain_keeps_the_tool_s_words_and_names_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    disks = FakeDisks()
    disks.attach(ID, content="ext4")

    def fails(*_: object, **__: object) -> None:
        raise ProcessError(["mount"], "ended with 32", output="mount point\nis busy")

    monkeypatch.setattr(disks, "mount", fails)
    plain = str(refusal(disks, VolumeAccess("SINGLE_NODE_WRITER")).value)
    assert plain == f"volume {ID} was not mounted as ext4: mount: ended with 32: mount point / is busy"
    with_options = str(refusal(disks, VolumeAccess("SINGLE_NODE_WRITER", flags=("commit=5", "noatime"))).value)
    assert with_options.startswith(f"volume {ID} was not mounted as ext4 with commit=5,noatime: mount: ended with 32")
    assert "mountOptions" in with_options


def test_what_cannot_be_formatted(monkeypatch: pytest.MonkeyPatch) -> None:
    disks = FakeDisks()
    disks.attach(ID)

    def fails(*_: object, **__: object) -> None:
        raise ProcessError(["mkfs.xfs"], "ended with 1", output="size 1 too small")

    monkeypatch.setattr(disks, "make", fails)
    words = str(refusal(disks, VolumeAccess("SINGLE_NODE_WRITER", fs_type="xfs")).value)
    assert words == f"volume {ID} could not be formatted as xfs: mkfs.xfs: ended with 1: size 1 too small"
