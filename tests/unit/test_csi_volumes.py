"""The CSI controller against a cloud in memory: what is made, adopted, refused, and what a crash between two calls leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

import pytest

from moyai.cloud.model import Attachment, VolumeType
from moyai.core.errors import Retriable
from moyai.core.ids import CLUSTER_TAG
from moyai.csi.access_modes import Access
from moyai.csi.errors import Refused
from moyai.csi.names import CLUSTER_KEY
from moyai.csi.proto import csi_pb2 as pb
from moyai.csi.sizes import GIB, Range
from tests.unit.csi_cloud import CsiCloud, Killed
from tests.unit.csi_world import UID, World, capability, wanted

pytestmark = pytest.mark.virtual_time


async def refused(call: Awaitable[Any]) -> Refused:
    with pytest.raises(Refused) as found:
        await call
    return found.value


# make


async def test_a_volume_is_made_once_and_found_again() -> None:
    world = World()
    first = await world.volumes.create(wanted(size=Range(GIB + 1), preferred=["az2"], requisite=["az1", "az2"]))
    again = await world.again().volumes.create(wanted(size=Range(GIB + 1), preferred=["az1"], requisite=["az1", "az2"]))
    assert first.volume.id == again.volume.id
    assert (first.volume.size_gb, first.volume.zone, first.machine_zones) == (2, "az2", ("az2",))
    assert first.volume.metadata == {CLUSTER_KEY: "demo", CLUSTER_TAG: UID}
    assert list(world.raw.all) == [first.volume.id]


async def test_another_cluster_s_volume_of_the_same_name_is_left_alone() -> None:
    world = World()
    other = world.raw.add_volume("pvc-1", metadata={CLUSTER_TAG: "other"})
    made = await world.volumes.create(wanted())
    assert made.volume.id != other.id
    why = await refused(world.volumes.delete(other.id))
    assert why.code == "FAILED_PRECONDITION"
    assert other.id in world.raw.all


async def test_fifty_at_once_ask_the_cloud_once() -> None:
    world = World(CsiCloud(polls=4))
    made = await asyncio.gather(*(world.volumes.create(wanted(f"pvc-{number}")) for number in range(50)))
    assert len({one.volume.id for one in made}) == len(world.raw.all) == 50
    looks = [call for call in world.raw.calls if call in ("volumes", "volume")]
    assert len(looks) < 30, "a look for each of fifty"


async def test_what_the_cloud_could_not_make_is_told_and_taken_away() -> None:
    world = World(CsiCloud(fail_create=1))
    why = await refused(world.volumes.create(wanted()))
    assert why.code == "RESOURCE_EXHAUSTED"
    assert "weighted backend" in why.message
    assert not world.raw.all
    assert (await world.volumes.create(wanted())).volume.status == "AVAILABLE"


async def test_a_broken_volume_of_an_earlier_process_is_made_anew() -> None:
    world = World()
    broken = world.raw.add_volume("pvc-1", status="ERROR", metadata={CLUSTER_TAG: UID})
    made = await world.volumes.create(wanted())
    assert made.volume.id != broken.id
    assert list(world.raw.all) == [made.volume.id]


async def test_an_exhausted_quota_has_its_code() -> None:
    world = World(CsiCloud(quota=0))
    with pytest.raises(Exception, match="quota"):
        await world.volumes.create(wanted())


async def test_copies_lie_beside_their_source_and_are_no_smaller() -> None:
    world = World()
    source = world.raw.add_volume("db", zone="az2", size_gb=3)
    snapshot = await world.snapshots.create("snap", source.id, {})
    made = await world.volumes.create(wanted("a", snapshot_id=snapshot.id))
    clone = await world.volumes.create(wanted("b", source_volume_id=source.id, size=Range(4 * GIB)))
    assert (made.volume.zone, made.volume.size_gb) == ("az2", 3)
    assert (clone.volume.zone, clone.volume.size_gb) == ("az2", 4)
    why = await refused(world.volumes.create(wanted("c", source_volume_id=source.id, preferred=["az1"], requisite=["az1"])))
    assert why.code == "RESOURCE_EXHAUSTED"
    assert (await refused(world.volumes.create(wanted("d", snapshot_id="none")))).code == "NOT_FOUND"
    assert (await refused(world.volumes.create(wanted("e", source_volume_id="none")))).code == "NOT_FOUND"


async def test_several_nodes_need_a_type_for_several() -> None:
    world = World()
    several = (Access("MULTI_NODE_MULTI_WRITER", block=True),)
    why = await refused(world.volumes.create(wanted(accesses=several)))
    assert why.code == "INVALID_ARGUMENT"
    assert "files-multiattach" in why.message
    made = await world.volumes.create(wanted(accesses=several, type_name="t2"))
    assert (made.volume.multiattach, made.volume.type_name) == (True, "files-multiattach")
    assert (await refused(world.volumes.create(wanted("x", type_name="ssd")))).code == "INVALID_ARGUMENT"


async def test_a_cloud_that_hides_its_types_is_believed() -> None:
    world = World(CsiCloud(type_list=(VolumeType("t", "t"), VolumeType("m", "m"))))
    made = await world.volumes.create(wanted(accesses=(Access("MULTI_NODE_READER_ONLY"),), type_name="m"))
    assert made.volume.type_name == "m"


# attach, detach


async def test_attach_is_idempotent_and_moves_only_when_free() -> None:
    world = World()
    one, two = world.raw.add_server("one"), world.raw.add_server("two")
    volume = world.raw.add_volume("data")
    for _ in range(2):
        await world.volumes.attach(volume.id, one.id)
    assert world.raw.calls.count("attach_volume") == 1
    why = await refused(world.volumes.attach(volume.id, two.id))
    assert why.code == "FAILED_PRECONDITION"
    assert one.id in why.message
    await world.volumes.detach(volume.id, two.id)
    assert world.raw.all[volume.id].attached_server_ids == (one.id,)
    for _ in range(2):
        await world.volumes.detach(volume.id, one.id)
    await world.volumes.attach(volume.id, two.id)
    assert world.raw.all[volume.id].attached_server_ids == (two.id,)


async def test_a_volume_for_several_goes_to_several() -> None:
    world = World()
    one, two = world.raw.add_server("one"), world.raw.add_server("two")
    volume = world.raw.add_volume("shared", multiattach=True)
    await asyncio.gather(world.volumes.attach(volume.id, one.id), world.volumes.attach(volume.id, two.id))
    assert set(world.raw.all[volume.id].attached_server_ids) == {one.id, two.id}
    await world.volumes.detach(volume.id, "")
    assert world.raw.all[volume.id].status == "AVAILABLE"


async def test_an_attach_that_fails_in_the_cloud_is_told() -> None:
    world = World(CsiCloud(fail_attach=1))
    server, volume = world.raw.add_server("one"), world.raw.add_volume("data")
    assert (await refused(world.volumes.attach(volume.id, server.id))).code == "INTERNAL"
    await world.volumes.attach(volume.id, server.id)


async def test_a_machine_is_not_given_more_than_it_may_have() -> None:
    world = World(limit=2)
    server = world.raw.add_server("one")
    volumes = [world.raw.add_volume(f"v{number}") for number in range(3)]
    results = await asyncio.gather(*(world.volumes.attach(one.id, server.id) for one in volumes), return_exceptions=True)
    assert [one.code for one in results if isinstance(one, Refused)] == ["RESOURCE_EXHAUSTED"]


async def test_who_is_not_there() -> None:
    world = World()
    server, volume = world.raw.add_server("one"), world.raw.add_volume("data")
    assert (await refused(world.volumes.attach("none", server.id))).code == "NOT_FOUND"
    assert (await refused(world.volumes.attach(volume.id, "none"))).code == "NOT_FOUND"
    await world.volumes.detach("none", server.id)
    await world.volumes.detach(volume.id, "none")
    await world.volumes.delete("none")
    await world.snapshots.delete("none")


async def test_a_volume_comes_free_of_a_machine_that_vanished() -> None:
    world = World()
    volume = world.raw.add_volume(
        "data", status="IN-USE", attached_server_ids=("gone",), attachments=(Attachment("gone", "a1", "/dev/vdb"),)
    )
    await world.volumes.detach(volume.id, "gone")
    assert world.raw.all[volume.id].status == "AVAILABLE"
    assert "forget_attachment" in world.raw.calls


async def test_a_machine_that_is_busy_is_asked_again() -> None:
    world = World()
    server, volume = world.raw.add_server("one"), world.raw.add_volume("data")
    await world.volumes.attach(volume.id, server.id)
    plain, failures = world.raw.detach_volume, [Retriable("busy"), Retriable("busy")]

    def busy(server_id: str, volume_id: str) -> None:
        if failures:
            raise failures.pop()
        plain(server_id, volume_id)

    world.raw.detach_volume = busy
    await world.volumes.detach(volume.id, server.id)
    assert world.raw.all[volume.id].status == "AVAILABLE"


# delete, extend


async def test_a_volume_with_snapshots_stays_and_says_why() -> None:
    world = World()
    volume = world.raw.add_volume("data", metadata={CLUSTER_TAG: UID})
    snapshot = await world.snapshots.create("snap-7", volume.id, {})
    why = await refused(world.volumes.delete(volume.id))
    assert why.code == "FAILED_PRECONDITION"
    assert "snap-7" in why.message
    await world.snapshots.delete(snapshot.id)
    await world.volumes.delete(volume.id)
    assert not world.raw.all


async def test_a_volume_in_use_stays() -> None:
    world = World()
    server, volume = world.raw.add_server("one"), world.raw.add_volume("data")
    await world.volumes.attach(volume.id, server.id)
    assert (await refused(world.volumes.delete(volume.id))).code == "FAILED_PRECONDITION"


async def test_extending() -> None:
    world = World()
    volume = world.raw.add_volume("data")
    assert (await world.volumes.extend(volume.id, Range(GIB))).size_gb == 1
    assert (await world.volumes.extend(volume.id, Range(2 * GIB + 1))).size_gb == 3
    assert (await world.volumes.extend(volume.id, Range(2 * GIB))).size_gb == 3
    assert world.raw.calls.count("extend_volume") == 1
    assert (await refused(world.volumes.extend(volume.id, Range(3 * GIB + 1, 4 * GIB - 1)))).code == "OUT_OF_RANGE"


async def test_snapshots_are_made_once() -> None:
    world = World()
    one, two = world.raw.add_volume("a"), world.raw.add_volume("b")
    made = await world.snapshots.create("snap", one.id, {})
    assert (await world.again().snapshots.create("snap", one.id, {})).id == made.id
    assert made.metadata[CLUSTER_TAG] == UID
    assert (await refused(world.snapshots.create("snap", two.id, {}))).code == "ALREADY_EXISTS"
    assert (await refused(world.snapshots.create("other", "none", {}))).code == "NOT_FOUND"


async def test_patience_ends() -> None:
    world = World(CsiCloud(polls=1_000_000), patience=0.05)
    why = await refused(world.volumes.create(wanted()))
    assert why.code == "DEADLINE_EXCEEDED"
    world.raw.settle()
    assert (await world.volumes.create(wanted())).volume.status == "AVAILABLE"
    assert len(world.raw.all) == 1


# crashes


@dataclass
class Claim:
    """What Kubernetes would know: ids once a call was answered, and how far it has come."""

    server: str
    volume: str = ""
    snapshot: str = ""
    clone: str = ""
    done: int = 0

    async def live(self, world: World) -> None:
        """Go on where the last process stood: a call that was not answered comes again."""
        steps = (
            self.make, self.attach, self.extend, self.snap, self.copy, self.detach, self.unsnap, self.delete, self.delete_clone,
        )  # fmt: skip
        for step in steps[self.done :]:
            await step(world)
            self.done += 1

    async def make(self, world: World) -> None:
        self.volume = (await world.volumes.create(wanted())).volume.id

    async def attach(self, world: World) -> None:
        await world.volumes.attach(self.volume, self.server)

    async def extend(self, world: World) -> None:
        assert (await world.volumes.extend(self.volume, Range(2 * GIB))).size_gb == 2

    async def snap(self, world: World) -> None:
        self.snapshot = (await world.snapshots.create("snap", self.volume, {})).id

    async def copy(self, world: World) -> None:
        self.clone = (await world.volumes.create(wanted("clone", snapshot_id=self.snapshot))).volume.id
        assert (set(world.raw.all), set(world.raw.snaps)) == ({self.volume, self.clone}, {self.snapshot})

    async def detach(self, world: World) -> None:
        await world.volumes.detach(self.volume, self.server)
        assert world.raw.all[self.volume].status == "AVAILABLE"

    async def unsnap(self, world: World) -> None:
        await world.snapshots.delete(self.snapshot)

    async def delete(self, world: World) -> None:
        await world.volumes.delete(self.volume)

    async def delete_clone(self, world: World) -> None:
        await world.volumes.delete(self.clone)


@pytest.mark.parametrize("polls", [0, 1, 3])
async def test_a_crash_after_any_change_leaves_nothing_double(polls: int) -> None:
    whole = World(CsiCloud(polls=polls))
    await Claim(whole.raw.add_server("one").id).live(whole)
    changes = whole.raw.changes
    assert changes == 9
    for number in range(1, changes + 1):
        world = World(CsiCloud(polls=polls))
        claim = Claim(world.raw.add_server("one").id)
        world.raw.die_after = number
        with pytest.raises(Killed):
            await claim.live(world)
        world.raw.die_after = None
        await claim.live(world.again())
        assert world.raw.changes == changes, "something was asked for twice"
        assert not world.raw.all
        assert not world.raw.snaps


async def test_who_gives_up_does_not_make_a_second_one() -> None:
    """The side-car's time is up while the cloud is asked; its next try waits for the first."""
    world = World()
    gate = asyncio.Event()
    plain = world.cloud.call
    loop = asyncio.get_running_loop()

    async def slow(function: Any, *args: Any, **kwargs: Any) -> Any:
        if getattr(function, "__name__", "") == "create_volume":
            await gate.wait()
        return await plain(function, *args, **kwargs)

    world.cloud.call = slow  # pyright: ignore[reportAttributeAccessIssue]
    first = asyncio.create_task(world.volumes.create(wanted()))
    await asyncio.sleep(0.05)
    first.cancel()
    second = asyncio.create_task(world.volumes.create(wanted()))
    loop.call_later(0.05, gate.set)
    made = await second
    assert list(world.raw.all) == [made.volume.id]
    assert len(world.volumes.serial) == 0


# the service itself


async def test_the_service_speaks_csi() -> None:
    world = World()
    controller, server = world.controller, world.raw.add_server("one", zone="az2")
    zone = pb.Topology(segments={"topology.cinder.csi.openstack.org/zone": "az2"})
    made = await controller.CreateVolume(
        pb.CreateVolumeRequest(
            name="pvc-1",
            capacity_range=pb.CapacityRange(required_bytes=GIB),
            volume_capabilities=[capability()],
            parameters={"csi.storage.k8s.io/pvc/name": "data", "type": "files"},
            accessibility_requirements=pb.TopologyRequirement(requisite=[zone], preferred=[zone]),
        )
    )
    volume_id = made.volume.volume_id
    assert made.volume.accessible_topology[0].segments == zone.segments
    assert world.raw.all[volume_id].metadata["csi.storage.k8s.io/pvc/name"] == "data"
    told = await controller.ControllerPublishVolume(
        pb.ControllerPublishVolumeRequest(volume_id=volume_id, node_id=server.id, volume_capability=capability())
    )
    assert told.publish_context["DevicePath"].endswith(volume_id[:20])
    listed = await controller.ListVolumes(pb.ListVolumesRequest())
    assert [list(one.status.published_node_ids) for one in listed.entries] == [[server.id]]
    grown = await controller.ControllerExpandVolume(
        pb.ControllerExpandVolumeRequest(volume_id=volume_id, capacity_range=pb.CapacityRange(required_bytes=2 * GIB))
    )
    assert (grown.capacity_bytes, grown.node_expansion_required) == (2 * GIB, True)
    snapshot = await controller.CreateSnapshot(pb.CreateSnapshotRequest(name="s", source_volume_id=volume_id))
    found = await controller.ListSnapshots(pb.ListSnapshotsRequest(snapshot_id=snapshot.snapshot.snapshot_id))
    assert [one.snapshot.ready_to_use for one in found.entries] == [True]
    confirmed = await controller.ValidateVolumeCapabilities(
        pb.ValidateVolumeCapabilitiesRequest(volume_id=volume_id, volume_capabilities=[capability()])
    )
    assert confirmed.HasField("confirmed")
    denied = await controller.ValidateVolumeCapabilities(
        pb.ValidateVolumeCapabilitiesRequest(
            volume_id=volume_id, volume_capabilities=[capability("MULTI_NODE_MULTI_WRITER", block=True)]
        )
    )
    assert not denied.HasField("confirmed")
    assert "one node at a time" in denied.message
    capacity = await controller.GetCapacity(pb.GetCapacityRequest())
    assert capacity.available_capacity == 998 * GIB
    elsewhere = pb.Topology(segments={"topology.cinder.csi.openstack.org/zone": "nowhere"})
    assert (await controller.GetCapacity(pb.GetCapacityRequest(accessible_topology=elsewhere))).available_capacity == 0


async def test_a_broken_volume_is_ill() -> None:
    world = World()
    well = world.raw.add_volume("a", metadata={CLUSTER_TAG: UID})
    ill = world.raw.add_volume("b", metadata={CLUSTER_TAG: UID}, status="ERROR")
    listed = await world.controller.ControllerListVolumeHealth(pb.ControllerListVolumeHealthRequest())
    assert [one.volume_id for one in listed.entries] == [ill.id]
    health = await world.controller.ControllerGetVolumeHealth(pb.ControllerGetVolumeHealthRequest(volume_id=well.id))
    assert not health.volume_health.health_statuses
