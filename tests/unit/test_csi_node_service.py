"""The CSI node service: its answers, its measures of volumes in use, and the table of mounts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from moyai.cloud.model import Instance
from moyai.csi.errors import Refused
from moyai.csi.node.registration import refusal
from moyai.csi.node.rpc import NodeService
from moyai.csi.proto import csi_pb2 as pb
from moyai.linux import mounts
from tests.unit.csi_disks import GIB, FakeDisks
from tests.unit.csi_node import ID, NAMES, STAGING, TARGET, code, publish, stage, work
from tests.unit.csi_world import capability

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


# the service itself


@pytest.mark.parametrize(
    ("why", "kept"),
    [
        (
            'detected topology value collision: driver reported "topology.kubernetes.io/zone":"az1" but existing label is …',
            False,
        ),
        ('detected topology value collision: driver reported "rack":"r1" but existing label is "rack":"r2"', True),
        ("cannot patch the label topology.kubernetes.io/zone: the API server does not answer", True),
    ],
)
async def test_a_node_whose_standard_label_says_another_zone_keeps_the_driver_s_own_key(why: str, kept: bool) -> None:
    node = NodeService(work(FakeDisks()), names=NAMES, instance=lambda: Instance("server-1", "az1"), limit=7)
    node.refused_by_kubelet(refusal(why))
    keys = set((await node.NodeGetInfo(pb.NodeGetInfoRequest())).accessible_topology.segments)
    assert keys == {NAMES.zone_key, *(["topology.kubernetes.io/zone"] if kept else [])}


async def test_the_service_speaks_csi() -> None:
    disks = FakeDisks()
    disks.attach(ID)
    node = NodeService(work(disks), names=NAMES, instance=lambda: Instance("server-1", "az1"), limit=7)
    info = await node.NodeGetInfo(pb.NodeGetInfoRequest())
    assert (info.node_id, info.max_volumes_per_node) == ("server-1", 7)
    own, standard = "topology.cinder.csi.openstack.org/zone", "topology.kubernetes.io/zone"
    assert info.accessible_topology.segments == {own: "az1", standard: "az1"}
    for _ in range(2):
        await asyncio.gather(
            *(
                node.NodeStageVolume(
                    pb.NodeStageVolumeRequest(
                        volume_id=ID,
                        staging_target_path=STAGING,
                        volume_capability=capability(),
                        volume_context={NAMES.blank_key: "true"},
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
    node = NodeService(work(FakeDisks()), names=NAMES, instance=lambda: None, limit=7)
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
