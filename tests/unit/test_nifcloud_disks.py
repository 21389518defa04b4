"""Additional disks of NIFCLOUD, over the SDK's own wire: births, steps of 100 GiB, and owners without tags."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from moyai.cloud.capabilities import CapabilityAbsent
from moyai.cloud.model import DiskState, Volume
from moyai.cloud.nifcloud.disk_names import disk_name
from moyai.cloud.nifcloud.disks import steps
from moyai.core.errors import Conflict, MoyaiError, NotFound, SizeRefused, Terminal, UsageError
from moyai.core.ids import CLUSTER_TAG
from tests.fakes.nifcloud_wire import NifcloudWire

UID = "0123456789"
PV = f"pvc-{uuid4()}"
OURS = f"moyai:{UID},demo-workers-0"


@pytest.fixture
def wire() -> NifcloudWire:
    made = NifcloudWire()
    made.account.server("foreign")
    made.account.server("stopped", description=OURS, state="stopped")
    made.account.server("elsewhere", description=OURS, zone="east-12")
    made.account.server("ours", description=OURS)
    return made


def create(wire: NifcloudWire, **other: Any) -> Volume:
    wanted: dict[str, Any] = {"size_gb": 10, "zone": "east-11", "metadata": {CLUSTER_TAG: UID, "other": "x"}}
    return wire.cloud().disks.create_volume(name=PV, **(wanted | other))


def test_a_disk_is_born_on_a_server_of_its_cluster_and_taken_off(wire: NifcloudWire) -> None:
    made = create(wire)
    assert (made.state, made.size_gb, made.zone, made.attached_server_ids) == (DiskState.AVAILABLE, 100, "east-11", ())
    assert (made.name, made.metadata, made.type_name) == (PV, {CLUSTER_TAG: UID}, "standard-flash-a")
    (sent,) = wire.sent("CreateVolume")
    assert (sent["InstanceId"], sent["Size"], sent["DiskType"]) == ("ours", "100", "6")
    assert sent["VolumeId"].isalnum()
    assert len(sent["VolumeId"]) == 32
    assert wire.account.volumes[made.id]["Description"] == PV, "the vendor's driver finds it by this"
    disks = wire.cloud().disks
    assert [one.id for one in disks.volumes(metadata={CLUSTER_TAG: UID})] == [made.id]
    assert [one.id for one in disks.volumes(name=PV)] == [made.id]
    assert disks.volumes(metadata={CLUSTER_TAG: "abcdef0123"}) == []


def test_without_a_running_server_of_the_cluster_in_the_zone_nothing_is_made(wire: NifcloudWire) -> None:
    with pytest.raises(Conflict, match="zone east-13"):
        create(wire, zone="east-13")
    assert wire.account.volumes == {}


@pytest.mark.parametrize("operation", ["CreateVolume", "DetachVolume", "ModifyVolumeAttribute"])
@pytest.mark.parametrize("done", [True, False], ids=["done", "not done"])
def test_a_lost_reply_at_any_step_of_a_birth_doubles_nothing(wire: NifcloudWire, operation: str, done: bool) -> None:
    wire.lose(operation, done=done)
    made = create(wire)
    assert (made.name, made.attached_server_ids, len(wire.account.volumes)) == (PV, (), 1)


@pytest.mark.parametrize("operation", ["DescribeVolumes", "DetachVolume", "ModifyVolumeAttribute"])
@pytest.mark.parametrize("after", range(6))
def test_a_birth_that_died_is_carried_on(wire: NifcloudWire, operation: str, after: int) -> None:
    # a process ends where a call of its is refused for good
    for _ in range(after if operation == "DescribeVolumes" else 0):
        wire.let(operation)
    wire.refuse(operation, "Client.Died.Here")
    try:
        create(wire)
    except MoyaiError:
        shown = wire.cloud().disks.volumes()
        assert [one.state for one in shown] in ([], [DiskState.CREATING]), "nobody takes it for a disk that is ready"
        assert [one.attached_server_ids for one in shown] in ([], [()])
    made = create(wire)
    assert (made.name, made.attached_server_ids, wire.account.volumes[made.id]["server"]) == (PV, (), "")
    assert (len(wire.account.volumes), wire.count["CreateVolume"]) == (1, 1)


def test_a_disk_in_use_is_not_taken_for_one_that_is_being_born(wire: NifcloudWire) -> None:
    made, cloud = create(wire), wire.cloud()
    ours = wire.account.instances["ours"]["InstanceUniqueId"]
    cloud.machines.attach_volume(ours, made.id)
    wire.clock.sleep(10)
    again = create(wire)
    assert again.attached_server_ids == (ours,)
    assert wire.count["DetachVolume"] == 1, "the birth's own"


def test_a_server_sees_a_disk_at_its_place_on_the_bus(wire: NifcloudWire) -> None:
    made, cloud = create(wire), wire.cloud()
    ours = wire.account.instances["ours"]["InstanceUniqueId"]
    cloud.machines.attach_volume(ours, made.id)
    assert cloud.disks.volume(made.id).state is DiskState.ATTACHING
    wire.clock.sleep(10)
    (attachment,) = cloud.disks.volume(made.id).attachments
    assert (attachment.server_id, attachment.device) == (ours, "SCSI (0:1)")
    with pytest.raises(Terminal, match="at server ours"):
        cloud.disks.delete_volume(made.id)
    with pytest.raises(Terminal, match="already"):
        cloud.machines.attach_volume(ours, made.id)
    cloud.machines.detach_volume(ours, made.id)
    wire.clock.sleep(10)
    cloud.machines.detach_volume(ours, made.id)
    cloud.machines.detach_volume("i-gone", made.id)
    assert wire.sent("DetachVolume")[-1]["Agreement"] == "true"
    cloud.disks.delete_volume(made.id)
    cloud.disks.delete_volume(made.id)
    assert wire.account.volumes == {}


@pytest.mark.parametrize("done", [True, False], ids=["done", "not done"])
def test_a_lost_reply_attaches_a_disk_once(wire: NifcloudWire, done: bool) -> None:
    made = create(wire)
    wire.lose("AttachVolume", done=done)
    wire.cloud().machines.attach_volume(wire.account.instances["ours"]["InstanceUniqueId"], made.id)
    assert wire.account.volumes[made.id]["server"] == "ours"
    assert wire.count["AttachVolume"] == (1 if done else 2)


def attached(wire: NifcloudWire) -> Volume:
    made = create(wire)
    wire.cloud().machines.attach_volume(wire.account.instances["ours"]["InstanceUniqueId"], made.id)
    wire.clock.sleep(10)
    return made


def test_growing_within_a_step_costs_nothing(wire: NifcloudWire) -> None:
    made = attached(wire)
    wire.cloud().disks.extend_volume(made.id, 100)
    assert wire.count["ExtendVolumeSize"] == 0
    wire.cloud().disks.extend_volume(made.id, 250)
    assert (wire.count["ExtendVolumeSize"], wire.account.volumes[made.id]["Size"]) == (2, "300")


@pytest.mark.parametrize("times", [1, 2])
def test_a_lost_reply_adds_no_second_step(wire: NifcloudWire, times: int) -> None:
    made = attached(wire)
    wire.lose("ExtendVolumeSize", times=times)
    wire.cloud().disks.extend_volume(made.id, 300)
    assert wire.account.volumes[made.id]["Size"] == "300"


def test_a_disk_at_no_server_does_not_grow(wire: NifcloudWire) -> None:
    made = create(wire)
    with pytest.raises(Conflict, match="at no server"):
        wire.cloud().disks.extend_volume(made.id, 200)
    assert wire.count["ExtendVolumeSize"] == 0


def test_disks_of_the_vendors_driver_are_seen_and_are_nobodys(wire: NifcloudWire) -> None:
    wire.account.volume("a1b2c3d4", description=PV)
    wire.account.volume("x" * 32, description="")
    seen = wire.cloud().disks.volume("a1b2c3d4")
    assert (seen.name, seen.metadata, seen.state) == (PV, {}, DiskState.AVAILABLE)
    # our name for it, and another description: somebody else's
    wire.account.volume(disk_name(UID, PV), description="changed by hand")
    assert wire.cloud().disks.volumes(metadata={CLUSTER_TAG: UID}) == []
    with pytest.raises(Conflict, match="somebody else's"):
        create(wire)


def test_an_attachment_to_a_server_that_is_gone_can_be_forgotten(wire: NifcloudWire) -> None:
    made = attached(wire)
    (attachment,) = wire.cloud().disks.volume(made.id).attachments
    with pytest.raises(Conflict, match="which exists"):
        wire.cloud().disks.forget_attachment(attachment.id)
    wire.account.volumes[made.id]["server"] = "vanished"
    wire.cloud().disks.forget_attachment(f"{made.id}@i-gone")
    assert wire.account.volumes[made.id]["server"] == ""


@pytest.mark.parametrize(("wish", "size"), [(0, 100), (1, 100), (100, 100), (101, 200), (4000, 4000)])
def test_sizes_are_whole_steps(wish: int, size: int) -> None:
    assert steps(wish) == size


def test_what_cannot_be_is_refused_before_it_is_asked_for(wire: NifcloudWire) -> None:
    with pytest.raises(SizeRefused) as caught:
        create(wire, size_gb=4001)
    assert caught.value.most_gb == 4000
    with pytest.raises(NotFound, match="no disk type 'gold'"):
        create(wire, type_name="gold")
    with pytest.raises(UsageError, match="UID"):
        create(wire, metadata={})
    with pytest.raises(CapabilityAbsent, match="snapshots of volumes"):
        create(wire, snapshot_id="s")
    disks = wire.cloud().disks
    with pytest.raises(CapabilityAbsent, match="snapshots of volumes"):
        disks.create_snapshot(name="s", volume_id="v", metadata={})
    with pytest.raises(NotFound):
        disks.snapshot("s")
    with pytest.raises(Terminal):
        disks.change_volume_type("v", "flash")
    assert (disks.snapshots(), disks.faults("v"), disks.quotas()) == ([], [], [])
    assert "flash" in {one.name for one in disks.types()}
    assert "CreateVolume" not in wire.count
