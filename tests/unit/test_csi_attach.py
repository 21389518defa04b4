"""Attaching and detaching by the CSI controller: once, to one machine, up to its limit, and off machines that vanished."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from moyai.cloud.model import Attachment, DiskState, Server
from moyai.core.errors import Retriable
from moyai.csi.access_modes import VolumeAccess
from moyai.csi.errors import Refused
from tests.fakes.cloud import add_server, add_volume, memory
from tests.unit.csi_world import WRITER, World, refused

pytestmark = pytest.mark.virtual_time

SHARED = VolumeAccess("MULTI_NODE_MULTI_WRITER", block=True)
READERS = VolumeAccess("MULTI_NODE_READER_ONLY")


async def test_attach_is_idempotent_and_moves_only_when_free() -> None:
    world = World()
    one, two = add_server(world.raw, "one"), add_server(world.raw, "two")
    volume = add_volume(world.raw, "data")
    for _ in range(2):
        await world.volumes.attach(volume.id, one.id, access=WRITER)
    assert world.raw.calls["machines.attach_volume"] == 1
    why = await refused(world.volumes.attach(volume.id, two.id, access=WRITER))
    assert why.code == "FAILED_PRECONDITION"
    assert one.id in why.message
    await world.volumes.detach(volume.id, two.id)
    assert world.raw.store.volumes[volume.id].attached_server_ids == (one.id,)
    for _ in range(2):
        await world.volumes.detach(volume.id, one.id)
    await world.volumes.attach(volume.id, two.id, access=WRITER)
    assert world.raw.store.volumes[volume.id].attached_server_ids == (two.id,)


async def test_a_volume_for_several_goes_to_several() -> None:
    world = World()
    one, two = add_server(world.raw, "one"), add_server(world.raw, "two")
    volume = add_volume(world.raw, "shared", multiattach=True)
    await asyncio.gather(*(world.volumes.attach(volume.id, server.id, access=SHARED) for server in (one, two)))
    assert set(world.raw.store.volumes[volume.id].attached_server_ids) == {one.id, two.id}
    await world.volumes.detach(volume.id, "")
    assert world.raw.store.volumes[volume.id].state is DiskState.AVAILABLE


async def test_a_volume_that_may_be_shared_is_for_one_machine_where_its_access_says_so() -> None:
    world = World()
    one, two = add_server(world.raw, "one"), add_server(world.raw, "two")
    volume = add_volume(world.raw, "shared", multiattach=True)
    await world.volumes.attach(volume.id, one.id, access=WRITER)
    assert (await refused(world.volumes.attach(volume.id, two.id, access=WRITER))).code == "FAILED_PRECONDITION"


async def test_of_several_readers_machines_one_at_most_may_replay_the_journal() -> None:
    """Whichever comes first, whoever asks again, and whatever process answers: never two at a time."""
    world = World()
    one, two = add_server(world.raw, "one"), add_server(world.raw, "two")
    volume = add_volume(world.raw, "copy", multiattach=True)

    async def alone(server: Server) -> bool:
        return await world.volumes.attach(volume.id, server.id, access=READERS)

    assert sorted(await asyncio.gather(alone(one), alone(two))) == [False, True]
    # an answer that was lost is asked for again, by a new process
    world.again()
    assert [await alone(one), await alone(two)] == [False, False]
    await world.volumes.detach(volume.id, one.id)
    assert await alone(two)
    assert not await alone(one)
    await world.volumes.detach(volume.id, "")
    assert not await world.volumes.attach(volume.id, one.id, access=SHARED), "it does not only read"


async def test_two_processes_that_attach_at_once_choose_no_two_machines() -> None:
    for looks in (0, 1, 3):
        world = World(memory(looks=looks))
        one, two = add_server(world.raw, "one"), add_server(world.raw, "two")
        volume = add_volume(world.raw, "copy", multiattach=True)
        first = world.volumes
        second = world.again().volumes
        chosen = await asyncio.gather(
            first.attach(volume.id, one.id, access=READERS),
            second.attach(volume.id, two.id, access=READERS),
            return_exceptions=True,
        )
        assert [one for one in chosen if one is True] in ([], [True])


async def test_an_attach_that_fails_in_the_cloud_is_told() -> None:
    world = World()
    world.raw.faults.break_next("machines.attach_volume", "no such host")
    server, volume = add_server(world.raw, "one"), add_volume(world.raw, "data")
    assert (await refused(world.volumes.attach(volume.id, server.id, access=WRITER))).code == "INTERNAL"
    await world.volumes.attach(volume.id, server.id, access=WRITER)


async def test_a_machine_is_not_given_more_than_it_may_have() -> None:
    world = World(limit=2)
    server = add_server(world.raw, "one")
    volumes = [add_volume(world.raw, f"v{number}") for number in range(3)]
    calls = [world.volumes.attach(one.id, server.id, access=WRITER) for one in volumes]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [one.code for one in results if isinstance(one, Refused)] == ["RESOURCE_EXHAUSTED"]


async def test_who_is_not_there() -> None:
    world = World()
    server, volume = add_server(world.raw, "one"), add_volume(world.raw, "data")
    assert (await refused(world.volumes.attach("none", server.id, access=WRITER))).code == "NOT_FOUND"
    assert (await refused(world.volumes.attach(volume.id, "none", access=WRITER))).code == "NOT_FOUND"
    await world.volumes.detach("none", server.id)
    await world.volumes.detach(volume.id, "none")
    await world.volumes.delete("none")
    await world.snapshots.delete("none")


async def test_a_volume_comes_free_of_a_machine_that_vanished() -> None:
    world = World()
    gone: dict[str, Any] = {"attached_server_ids": ("gone",), "attachments": (Attachment("gone", "a1", "/dev/vdb"),)}
    volume = add_volume(world.raw, "data", state=DiskState.IN_USE, **gone)
    await world.volumes.detach(volume.id, "gone")
    assert world.raw.store.volumes[volume.id].state is DiskState.AVAILABLE
    assert "disks.forget_attachment" in world.raw.calls


async def test_a_machine_that_is_busy_is_asked_again() -> None:
    world = World()
    server, volume = add_server(world.raw, "one"), add_volume(world.raw, "data")
    await world.volumes.attach(volume.id, server.id, access=WRITER)
    world.raw.faults.fail_next("machines.detach_volume", Retriable("busy"), times=2)
    await world.volumes.detach(volume.id, server.id)
    assert world.raw.store.volumes[volume.id].state is DiskState.AVAILABLE
