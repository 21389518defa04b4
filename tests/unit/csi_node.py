"""What tests of the CSI node plug-in share: a node over disks in memory, and a volume's way to its pod."""

from __future__ import annotations

import pytest

from moyai.cloud.openstack import ADAPTER
from moyai.cloud.openstack.guest import disk_links
from moyai.csi.access_modes import VolumeAccess
from moyai.csi.errors import Refused
from moyai.csi.node.staging import NodeWork
from tests.fakes.clock import FakeClock
from tests.unit.csi_disks import FakeDisks, as_disks

ID = "0a1b2c3d-4e5f-6789-abcd-ef0123456789"
STAGING, TARGET, SECOND = "/k/globalmount", "/k/pods/p1/mount", "/k/pods/p2/mount"
NAMES = ADAPTER.volume_names
WRITER = VolumeAccess("SINGLE_NODE_WRITER")
BLOCK = VolumeAccess("SINGLE_NODE_WRITER", block=True)


def work(disks: FakeDisks, *, rescan: bool = False) -> NodeWork:
    return NodeWork(as_disks(disks), names=NAMES, links=disk_links, rescan=rescan, clock=FakeClock())


def stage(disks: FakeDisks, access: VolumeAccess = WRITER, *, blank: bool = True) -> None:
    work(disks).stage(ID, STAGING, access=access, context={NAMES.blank_key: "true"} if blank else {}, published={})


def publish(disks: FakeDisks, target: str = TARGET, *, access: VolumeAccess = WRITER, read_only: bool = False) -> None:
    work(disks).publish(ID, STAGING, target=target, access=access, read_only=read_only)


def code(refused: pytest.ExceptionInfo[Refused]) -> str:
    return refused.value.code
