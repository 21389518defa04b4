"""Faults that NIFCLOUD's own CSI driver has, each with a test that moyai's driver lacks it. Over the SDK's own wire."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import pytest

from moyai.cloud.factory import ADAPTERS
from moyai.cloud.nifcloud.nifcloud_adapter import NifcloudGuest
from moyai.cloud.nifcloud.nifcloud_kind import NifcloudKind
from moyai.core.backoff import Backoff
from moyai.core.errors import MoyaiError, NotFound, UsageError
from moyai.core.ids import CLUSTER_TAG
from moyai.csi.access_modes import VolumeAccess
from moyai.csi.controller.cloud_view import CloudView
from moyai.csi.controller.rpc import ControllerService
from moyai.csi.controller.snapshots import SnapshotWork
from moyai.csi.controller.volumes import VolumeWork
from moyai.csi.driver_names import DEVICE_PATH
from moyai.csi.errors import Refused
from moyai.csi.node.disk_places import DiskPlaces
from moyai.csi.node.disks import BusDevices
from moyai.csi.node.staging import NodeWork
from moyai.csi.proto import csi_pb2 as pb
from moyai.csi.volume_sizes import GIB
from moyai.runtime.metrics import Metrics
from tests.fakes.clock import FakeClock
from tests.fakes.nifcloud_wire import NifcloudWire
from tests.unit.csi_disks import Disk, FakeDisks, as_disks
from tests.unit.csi_world import capability

T = TypeVar("T")
UID = "0123456789"
PV = f"pvc-{uuid4()}"
OURS = f"moyai:{UID},demo-workers-"
KIND = NifcloudKind()
ZONE_KEY = KIND.volume_names.zone_key
QUICK = Backoff(base=0.001, ceiling=0.002)


class World:
    """``aforeign``, ``astopped`` and ``ayoung`` could be taken for a birth; the others are the cluster's, in two zones."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.wire = NifcloudWire()
        # the account's time passes with each call
        self.wire.trouble = lambda _: self.wire.clock.sleep(2) or ""
        self.account = self.wire.account
        self.account.server("aforeign")
        self.account.server("astopped", description=f"{OURS}7", state="stopped")
        self.account.server("ayoung", description=f"{OURS}8", state="pending")
        self.account.server("one", description=f"{OURS}0")
        self.account.server("two", description=f"{OURS}1", zone="east-12")
        self.account.server("three", description=f"{OURS}2")
        self.again()

    def again(self) -> None:
        """A new process."""
        cloud = CloudView(
            self.wire.cloud(zone=""),
            metrics=Metrics(),
            clock=self.wire.clock,
            cluster="demo",
            uid=UID,
            names=KIND.volume_names,
            poll=QUICK,
        )
        rules = KIND.volume_rules
        work = VolumeWork(cloud, limit=rules.per_machine, step_gb=rules.step_gb, again=QUICK)
        self.driver = ControllerService(
            cloud,
            work,
            snapshots=SnapshotWork(cloud),
            links=ADAPTERS.named("nifcloud").guest().disk_links,
            type_of=KIND.volume_type,
            has_snapshots=rules.snapshots,
        )

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(call)

    def id(self, name: str) -> str:
        return str(self.account.instances[name]["InstanceUniqueId"])

    async def create(self, name: str = PV, *, gib: int = 10, limit: int = 0, zone: str = "east-11", **more: str) -> pb.Volume:
        request = pb.CreateVolumeRequest(
            name=name,
            capacity_range=pb.CapacityRange(required_bytes=gib * GIB, limit_bytes=limit * GIB),
            volume_capabilities=[capability()],
            parameters=more,
        )
        request.accessibility_requirements.requisite.add(segments={ZONE_KEY: zone})
        return (await self.driver.CreateVolume(request)).volume

    async def publish(self, volume: str, server: str) -> dict[str, str]:
        request = pb.ControllerPublishVolumeRequest(volume_id=volume, node_id=self.id(server), volume_capability=capability())
        return dict((await self.driver.ControllerPublishVolume(request)).publish_context)

    async def expand(self, volume: str, gib: int, *, limit: int = 0) -> int:
        wanted = pb.CapacityRange(required_bytes=gib * GIB, limit_bytes=limit * GIB)
        request = pb.ControllerExpandVolumeRequest(volume_id=volume, capacity_range=wanted, volume_capability=capability())
        return (await self.driver.ControllerExpandVolume(request)).capacity_bytes // GIB


@pytest.fixture
def world() -> Generator[World]:
    made = World()
    yield made
    for task in asyncio.all_tasks(made.loop):
        task.cancel()
    made.loop.close()


def test_fault_a_no_foreign_stopped_or_pending_server_is_used_for_a_birth(world: World) -> None:
    world.run(world.create())
    assert [call["InstanceId"] for call in world.wire.sent("CreateVolume")] == ["one"]


def test_fault_b_a_disk_whose_birth_died_is_not_reported_while_it_is_attached(world: World) -> None:
    world.wire.refuse("DetachVolume", "Client.Died.Here")
    with pytest.raises(Exception, match="Died"):
        world.run(world.create())
    world.again()
    made = world.run(world.create())
    assert world.account.volumes[made.volume_id]["server"] == ""
    assert len(world.account.volumes) == 1


def test_fault_c_the_zone_that_is_reported_is_the_disks_own(world: World) -> None:
    made = world.run(world.create(zone="east-12"))
    assert {one.segments[ZONE_KEY] for one in made.accessible_topology} == {"east-12"}
    assert [call["InstanceId"] for call in world.wire.sent("CreateVolume")] == ["two"]


def test_fault_d_of_several_disks_with_one_description_the_own_one_is_taken(world: World) -> None:
    made = world.run(world.create())
    theirs = {**world.account.volumes[made.volume_id], "VolumeId": "zzzz9999", "VolumeUniqueId": "vol-zzzz9999"}
    world.account.volumes["zzzz9999"] = theirs
    world.again()
    assert world.run(world.create()).volume_id == made.volume_id


def test_fault_e_growing_within_a_step_costs_nothing(world: World) -> None:
    made = world.run(world.create())
    world.run(world.publish(made.volume_id, "one"))
    for gib in (50, 99, 100):
        assert world.run(world.expand(made.volume_id, gib)) == 100
    assert world.wire.count["ExtendVolumeSize"] == 0
    assert world.run(world.expand(made.volume_id, 101)) == 200
    assert world.wire.count["ExtendVolumeSize"] == 1


def test_fault_f_a_disk_that_hangs_ends_in_minutes_and_holds_up_no_other(world: World) -> None:
    world.wire.refuse("DetachVolume", "Server.ResourceIncorrectState.Volume.Processing", times=10_000)
    before = world.wire.clock.monotonic()
    with pytest.raises(Exception, match=r"."):
        world.run(world.create())
    assert world.wire.clock.monotonic() - before < 1200


def test_fault_g_a_disk_at_another_node_is_no_success(world: World) -> None:
    made = world.run(world.create())
    world.run(world.publish(made.volume_id, "one"))
    with pytest.raises(Refused) as caught:
        world.run(world.publish(made.volume_id, "three"))
    assert caught.value.code == "FAILED_PRECONDITION"
    # to the node that has it, it is one
    assert world.run(world.publish(made.volume_id, "one"))[DEVICE_PATH].startswith("SCSI (0:")


def test_fault_h_an_error_of_the_api_does_not_mean_that_a_node_is_gone(world: World) -> None:
    made = world.run(world.create())
    for code in ("Client.AuthFailurePermission.AccessKey", "Client.Something.Else"):
        world.wire.refuse("DescribeInstances", code)
        with pytest.raises((MoyaiError, Refused)) as caught:
            world.run(world.publish(made.volume_id, "one"))
        assert not isinstance(caught.value, NotFound)
        assert not (isinstance(caught.value, Refused) and caught.value.code == "NOT_FOUND")


@pytest.mark.parametrize("block", [False, True])
def test_fault_i_the_guest_lets_go_of_a_disk_before_it_is_unstaged(block: bool, tmp_path: Path) -> None:
    disks = FakeDisks()
    disks.disks["/dev/sdd"] = Disk((8, 48), 100 * GIB)
    disks.links["/dev/disk/by-path/pci-0000:03:00.0-scsi-0:0:3:0"] = "/dev/sdd"
    places = DiskPlaces(ADAPTERS.named("nifcloud").guest().disk_links, tmp_path)
    node = NodeWork(as_disks(disks), names=KIND.volume_names, links=places, clock=FakeClock())
    access = VolumeAccess("SINGLE_NODE_WRITER", block=block)
    node.stage(
        "disk", "/staging", access=access, context={KIND.volume_names.blank_key: "true"}, published={DEVICE_PATH: "SCSI (0:3)"}
    )
    node.publish("disk", "/staging", target="/pod", access=access, read_only=False)
    node.unpublish("/pod")
    node.unstage("/staging", "disk")
    assert disks.let_gone == ["/dev/sdd"]
    # what comes to this place later is not taken for the disk
    assert places.links("disk") == ()


def test_fault_j_addresses_on_the_bus_are_hexadecimal() -> None:
    links = ADAPTERS.named("nifcloud").guest().disk_links("disk", "SCSI (0:12)")
    assert "/dev/disk/by-path/pci-0000:0b:00.0-scsi-0:0:12:0" in links


def test_fault_k_a_detached_disk_is_listed_without_nodes(world: World) -> None:
    world.run(world.create())
    (listed,) = world.run(world.driver.ListVolumes(pb.ListVolumesRequest())).entries
    assert list(listed.status.published_node_ids) == []


def test_fault_l_every_capability_in_a_list_says_something(world: World) -> None:
    answer = world.run(world.driver.ControllerGetCapabilities(pb.ControllerGetCapabilitiesRequest()))
    kinds = [one.rpc.type for one in answer.capabilities]
    rpc = pb.ControllerServiceCapability.RPC
    assert rpc.UNKNOWN not in kinds
    assert not {rpc.CREATE_DELETE_SNAPSHOT, rpc.LIST_SNAPSHOTS, rpc.CLONE_VOLUME} & set(kinds)
    assert {rpc.CREATE_DELETE_VOLUME, rpc.PUBLISH_UNPUBLISH_VOLUME, rpc.EXPAND_VOLUME} <= set(kinds)


def test_fault_m_a_limit_is_compared_with_the_size_that_the_disk_would_have(world: World) -> None:
    for gib, limit in ((10, 50), (101, 150)):
        with pytest.raises(Refused) as caught:
            world.run(world.create(gib=gib, limit=limit))
        assert caught.value.code == "OUT_OF_RANGE"
        assert "steps of 100Gi" in caught.value.message
    assert world.account.volumes == {}
    made = world.run(world.create(gib=10, limit=100))
    world.run(world.publish(made.volume_id, "one"))
    with pytest.raises(Refused, match="150Gi"):
        world.run(world.expand(made.volume_id, 120, limit=150))
    assert world.wire.count["ExtendVolumeSize"] == 0


def test_fault_n_two_that_grow_a_disk_at_once_grow_it_once(world: World) -> None:
    made = world.run(world.create())
    world.run(world.publish(made.volume_id, "one"))

    async def both() -> list[int]:
        return list(await asyncio.gather(world.expand(made.volume_id, 150), world.expand(made.volume_id, 200)))

    assert world.run(both()) == [200, 200]
    assert world.wire.count["ExtendVolumeSize"] == 1


def test_fault_o_a_disk_in_use_is_not_deleted_and_the_reason_is_said(world: World) -> None:
    made = world.run(world.create())
    world.run(world.publish(made.volume_id, "one"))
    with pytest.raises(Refused) as caught:
        world.run(world.driver.DeleteVolume(pb.DeleteVolumeRequest(volume_id=made.volume_id)))
    assert caught.value.code == "FAILED_PRECONDITION"
    assert "still attached" in caught.value.message
    assert world.wire.count["DeleteVolume"] == 0


def test_fault_p_a_server_that_is_gone_gives_its_disk_back(world: World) -> None:
    made, gone = world.run(world.create()), world.id("one")
    world.run(world.publish(made.volume_id, "one"))
    del world.account.instances["one"]
    request = pb.ControllerUnpublishVolumeRequest(volume_id=made.volume_id, node_id=gone)
    world.run(world.driver.ControllerUnpublishVolume(request))


# ---- parameters of classes


@pytest.mark.parametrize(
    ("parameters", "kind"),
    [
        ({}, ""),
        ({"type": "flash"}, "flash"),
        ({"Type": "high-speed"}, "high-speed-a"),
        ({"TYPE": "standard", "AccountingType": "monthly"}, "standard monthly"),
        ({"accountingType": "hourly"}, ""),
        ({"accountingtype": "monthly"}, "standard-flash-a monthly"),
        ({"csi.storage.k8s.io/fstype": "xfs", "csi.storage.k8s.io/pv/name": "pvc-1"}, ""),
    ],
)
def test_classes_of_the_vendors_driver_are_read_as_it_reads_them(parameters: dict[str, str], kind: str) -> None:
    assert KIND.volume_type(parameters) == kind


@pytest.mark.parametrize(
    "parameters", [{"type": "ssd"}, {"accountingType": "yearly"}, {"availability": "east-11"}, {"typ": "flash"}]
)
def test_what_the_vendors_driver_refuses_is_refused(world: World, parameters: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        KIND.volume_type(parameters)
    with pytest.raises(Refused) as caught:
        world.run(world.create(**parameters))
    assert caught.value.code == "INVALID_ARGUMENT"
    assert world.account.volumes == {}


def test_a_disk_by_the_month_is_ordered_so_and_found_again(world: World) -> None:
    made = world.run(world.create(type="flash", accountingType="monthly"))
    (sent,) = world.wire.sent("CreateVolume")
    assert (sent["DiskType"], sent["AccountingType"]) == ("5", "1")
    assert world.run(world.create(type="flash", accountingType="monthly")).volume_id == made.volume_id
    with pytest.raises(Refused) as caught:
        world.run(world.create(type="flash"))
    assert caught.value.code == "ALREADY_EXISTS"


def test_a_machine_takes_fourteen_disks(world: World) -> None:
    made = [world.run(world.create(f"pvc-{number}")).volume_id for number in range(15)]
    for volume in made[:14]:
        world.run(world.publish(volume, "one"))
    with pytest.raises(Refused) as caught:
        world.run(world.publish(made[14], "one"))
    assert caught.value.code == "RESOURCE_EXHAUSTED"


def test_a_disk_of_the_vendors_driver_is_carried_on(world: World) -> None:
    made = world.run(world.create())
    theirs = {**world.account.volumes[made.volume_id], "VolumeId": "abcd1234", "Description": f"pvc-{uuid4()}"}
    world.account.volumes["abcd1234"] = theirs
    assert world.run(world.publish("abcd1234", "one"))[DEVICE_PATH].startswith("SCSI")
    assert world.run(world.expand("abcd1234", 150)) == 200
    assert world.wire.cloud().disks.volume("abcd1234").metadata.get(CLUSTER_TAG) is None


# ---- nodes


def test_a_machine_knows_which_one_it_is_from_its_start(tmp_path: Path) -> None:
    guest = NifcloudGuest(str(tmp_path))
    assert guest.instance() is None
    (tmp_path / "instance").write_text("i-1234abcd east-11\n")
    found = guest.instance()
    assert found is not None
    assert (found.id, found.zone) == ("i-1234abcd", "east-11")


def test_the_bus_is_scanned_for_a_disk_that_does_not_show(tmp_path: Path) -> None:
    for host in ("host0", "host1"):
        (tmp_path / f"class/scsi_host/{host}").mkdir(parents=True)
        (tmp_path / f"class/scsi_host/{host}/scan").write_text("")
    (tmp_path / "class/block/sdb/device").mkdir(parents=True)
    (tmp_path / "class/block/sdb/device/delete").write_text("")
    devices = BusDevices(sys=str(tmp_path))
    assert devices.find([str(tmp_path / "no-such-disk")]) is None
    assert [(tmp_path / f"class/scsi_host/{host}/scan").read_text() for host in ("host0", "host1")] == ["- - -", "- - -"]
    devices.let_go("/dev/sdb")
    assert (tmp_path / "class/block/sdb/device/delete").read_text() == "1"
    devices.let_go("/dev/sdz")
