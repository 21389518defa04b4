"""The CSI controller against a cloud in memory: what is made, adopted, refused, and what a crash between two calls leaves."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Any

import pytest

from moyai.cloud.memory import Killed
from moyai.cloud.model import DiskState, VolumeType
from moyai.core.errors import SizeRefused
from moyai.core.ids import CLUSTER_TAG
from moyai.csi.access_modes import VolumeAccess
from moyai.csi.volume_sizes import GIB, Range
from tests.fakes.cloud import add_server, add_volume, memory
from tests.unit.csi_world import UID, WRITER, World, refused, wanted

pytestmark = pytest.mark.virtual_time


# make


async def test_a_volume_is_made_once_and_found_again() -> None:
    world = World()
    first = await world.volumes.create(wanted(size=Range(GIB + 1), preferred=["az2"], requisite=["az1", "az2"]))
    again = await world.again().volumes.create(wanted(size=Range(GIB + 1), preferred=["az1"], requisite=["az1", "az2"]))
    assert first.volume.id == again.volume.id
    assert (first.volume.size_gb, first.volume.zone, first.machine_zones) == (2, "az2", ("az2",))
    assert first.volume.metadata == {"disks.memory.test/cluster": "demo", CLUSTER_TAG: UID}
    assert world.raw.store.volumes.ids() == [first.volume.id]


async def test_another_cluster_s_volume_of_the_same_name_is_left_alone() -> None:
    world = World()
    other = add_volume(world.raw, "pvc-1", metadata={CLUSTER_TAG: "other"})
    made = await world.volumes.create(wanted())
    assert made.volume.id != other.id
    why = await refused(world.volumes.delete(other.id))
    assert why.code == "FAILED_PRECONDITION"
    assert other.id in world.raw.store.volumes


async def test_fifty_at_once_ask_the_cloud_once() -> None:
    world = World(memory(looks=4))
    made = await asyncio.gather(*(world.volumes.create(wanted(f"pvc-{number}")) for number in range(50)))
    assert len({one.volume.id for one in made}) == len(world.raw.store.volumes) == 50
    looks = world.raw.calls["disks.volumes"] + world.raw.calls["disks.volume"]
    assert looks < 30, "a look for each of fifty"


async def test_what_the_cloud_could_not_make_is_told_and_taken_away() -> None:
    world = World()
    world.raw.faults.break_next("disks.create_volume", "Could not find any available weighted backend.")
    why = await refused(world.volumes.create(wanted()))
    assert why.code == "RESOURCE_EXHAUSTED"
    assert "weighted backend" in why.message
    assert not world.raw.store.volumes
    assert (await world.volumes.create(wanted())).volume.state is DiskState.AVAILABLE


async def test_a_broken_volume_of_an_earlier_process_is_recreated() -> None:
    world = World()
    broken = add_volume(world.raw, "pvc-1", state=DiskState.FAILED, metadata={CLUSTER_TAG: UID})
    made = await world.volumes.create(wanted())
    assert made.volume.id != broken.id
    assert world.raw.store.volumes.ids() == [made.volume.id]


async def test_an_exhausted_quota_has_its_code() -> None:
    world = World()
    world.raw.store.limits["volumes"] = 0
    with pytest.raises(Exception, match="quota"):
        await world.volumes.create(wanted())


async def test_copies_lie_beside_their_source_and_are_no_smaller() -> None:
    world = World()
    source = add_volume(world.raw, "db", zone="az2", size_gb=3)
    snapshot = await world.snapshots.create("snap", source.id, metadata={})
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
    several = (VolumeAccess("MULTI_NODE_MULTI_WRITER", block=True),)
    why = await refused(world.volumes.create(wanted(accesses=several)))
    assert why.code == "INVALID_ARGUMENT"
    assert "files-multiattach" in why.message
    made = await world.volumes.create(wanted(accesses=several, type_name="t2"))
    assert (made.volume.multiattach, made.volume.type_name) == (True, "files-multiattach")
    assert (await refused(world.volumes.create(wanted("x", type_name="ssd")))).code == "INVALID_ARGUMENT"


async def test_a_cloud_that_hides_its_types_is_believed() -> None:
    world = World()
    world.raw.store.volume_types = (VolumeType("t", "t"), VolumeType("m", "m"))
    made = await world.volumes.create(wanted(accesses=(VolumeAccess("MULTI_NODE_READER_ONLY"),), type_name="m"))
    assert made.volume.type_name == "m"


# delete, extend


async def test_a_volume_with_snapshots_stays_and_says_why() -> None:
    world = World()
    volume = add_volume(world.raw, "data", metadata={CLUSTER_TAG: UID})
    snapshot = await world.snapshots.create("snap-7", volume.id, metadata={})
    why = await refused(world.volumes.delete(volume.id))
    assert why.code == "FAILED_PRECONDITION"
    assert "snap-7" in why.message
    await world.snapshots.delete(snapshot.id)
    await world.volumes.delete(volume.id)
    assert not world.raw.store.volumes


async def test_a_volume_in_use_stays() -> None:
    world = World()
    server, volume = add_server(world.raw, "one"), add_volume(world.raw, "data")
    await world.volumes.attach(volume.id, server.id, access=WRITER)
    assert (await refused(world.volumes.delete(volume.id))).code == "FAILED_PRECONDITION"


async def test_extending() -> None:
    world = World()
    volume = add_volume(world.raw, "data")
    assert (await world.volumes.extend(volume.id, Range(GIB))).size_gb == 1
    assert (await world.volumes.extend(volume.id, Range(2 * GIB + 1))).size_gb == 3
    assert (await world.volumes.extend(volume.id, Range(2 * GIB))).size_gb == 3
    assert world.raw.calls["disks.extend_volume"] == 1
    assert (await refused(world.volumes.extend(volume.id, Range(3 * GIB + 1, 4 * GIB - 1)))).code == "OUT_OF_RANGE"


@pytest.mark.parametrize(
    ("bounds", "says"),
    [
        ({"least_gb": 8}, "have at least 8Gi, and the claim asks for 2Gi: .*spec.resources.requests.storage: 8Gi or more"),
        ({"most_gb": 1}, "have at most 1Gi, and the claim asks for 2Gi: .*spec.resources.requests.storage: 1Gi or less"),
    ],
)
async def test_a_size_that_the_type_refuses_is_answered_with_the_size_to_ask_for(bounds: dict[str, int], says: str) -> None:
    world = World()
    volume = add_volume(world.raw, "data")
    for call in ("disks.create_volume", "disks.extend_volume"):
        error = SizeRefused("Cinder: Specified volume size …")
        for name, value in bounds.items():
            setattr(error, name, value)
        world.raw.faults.fail_next(call, error)
    size = Range(2 * GIB)
    for asks in (world.volumes.create(wanted(type_name="files", size=size)), world.volumes.extend(volume.id, size)):
        why = await refused(asks)
        assert why.code == "OUT_OF_RANGE"
        assert re.search(says, why.message), why.message
    assert len(world.raw.store.volumes) == 1


async def test_snapshots_are_made_once() -> None:
    world = World()
    one, two = add_volume(world.raw, "a"), add_volume(world.raw, "b")
    made = await world.snapshots.create("snap", one.id, metadata={})
    assert (await world.again().snapshots.create("snap", one.id, metadata={})).id == made.id
    assert made.metadata[CLUSTER_TAG] == UID
    assert (await refused(world.snapshots.create("snap", two.id, metadata={}))).code == "ALREADY_EXISTS"
    assert (await refused(world.snapshots.create("other", "none", metadata={}))).code == "NOT_FOUND"


async def test_patience_ends() -> None:
    world = World(memory(looks=1_000_000), patience=0.05)
    why = await refused(world.volumes.create(wanted()))
    assert why.code == "DEADLINE_EXCEEDED"
    world.raw.store.settle()
    assert (await world.volumes.create(wanted())).volume.state is DiskState.AVAILABLE
    assert len(world.raw.store.volumes) == 1


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
        await world.volumes.attach(self.volume, self.server, access=WRITER)

    async def extend(self, world: World) -> None:
        assert (await world.volumes.extend(self.volume, Range(2 * GIB))).size_gb == 2

    async def snap(self, world: World) -> None:
        self.snapshot = (await world.snapshots.create("snap", self.volume, metadata={})).id

    async def copy(self, world: World) -> None:
        self.clone = (await world.volumes.create(wanted("clone", snapshot_id=self.snapshot))).volume.id
        assert (set(world.raw.store.volumes.ids()), set(world.raw.store.snapshots.ids())) == (
            {self.volume, self.clone},
            {self.snapshot},
        )

    async def detach(self, world: World) -> None:
        await world.volumes.detach(self.volume, self.server)
        assert world.raw.store.volumes[self.volume].state is DiskState.AVAILABLE

    async def unsnap(self, world: World) -> None:
        await world.snapshots.delete(self.snapshot)

    async def delete(self, world: World) -> None:
        await world.volumes.delete(self.volume)

    async def delete_clone(self, world: World) -> None:
        await world.volumes.delete(self.clone)


@pytest.mark.parametrize("polls", [0, 1, 3])
async def test_a_crash_after_any_change_leaves_nothing_double(polls: int) -> None:
    whole = World(memory(looks=polls))
    await Claim(add_server(whole.raw, "one").id).live(whole)
    changes = whole.raw.mortal.changes
    assert changes == 9
    for number in range(1, changes + 1):
        world = World(memory(looks=polls))
        claim = Claim(add_server(world.raw, "one").id)
        world.raw.mortal.kill_at(number)
        with pytest.raises(Killed):
            await claim.live(world)
        world.raw.mortal.revive()
        await claim.live(world.again())
        assert world.raw.mortal.changes == changes, "something was asked for twice"
        assert not world.raw.store.volumes
        assert not world.raw.store.snapshots


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
    assert world.raw.store.volumes.ids() == [made.volume.id]
    assert len(world.volumes.serial) == 0
