"""What the cloud in memory does on order, and that what it holds costs nothing; what all clouds do is in the contract."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from moyai.cloud.capabilities import ALTERNATIVES, Capability, CapabilityAbsent, Cloud
from moyai.cloud.memory import Delays, Killed, MemoryCloud
from moyai.cloud.memory.table import Table
from moyai.cloud.model import DiskState, Network, Volume
from moyai.core.errors import NotFound, QuotaExceeded, Retriable, Terminal


def volume(cloud: MemoryCloud, name: str = "one", size_gb: int = 1) -> Volume:
    return cloud.disks.create_volume(name=name, size_gb=size_gb, metadata={"k": "v"})


def test_it_is_an_adapter_like_any_other() -> None:
    cloud: Cloud = MemoryCloud()
    assert cloud.capabilities() == frozenset(Capability) - ALTERNATIVES
    assert [one.external for one in cloud.networks.networks()] == [True]


def test_a_capability_that_it_is_made_without_is_absent() -> None:
    cloud = MemoryCloud(capabilities=set(Capability) - {Capability.DISKS})
    assert Capability.DISKS not in cloud.capabilities()
    with pytest.raises(CapabilityAbsent, match="cloud memory has no volumes") as caught:
        cloud.disks.volumes()
    assert caught.value.capability is Capability.DISKS
    assert cloud.load_balancers.load_balancers() == []


def test_what_is_asked_for_is_done_when_its_time_has_come() -> None:
    cloud = MemoryCloud(delays=Delays(volume=5))
    made = volume(cloud)
    cloud.store.clock.sleep(4)
    assert cloud.disks.volume(made.id).state is DiskState.CREATING
    cloud.store.clock.sleep(1)
    assert cloud.disks.volume(made.id).state is DiskState.AVAILABLE
    cloud.disks.delete_volume(made.id)
    assert cloud.disks.volume(made.id).state is DiskState.DELETING
    cloud.store.settle()
    with pytest.raises(NotFound):
        cloud.disks.volume(made.id)


def test_calls_are_counted_with_what_they_answered() -> None:
    cloud = MemoryCloud()
    for name in ("one", "two"):
        volume(cloud, name)
    cloud.disks.volumes()
    cloud.disks.volumes(name="one")
    assert cloud.calls == {"disks.create_volume": 2, "disks.volumes": 2}
    assert cloud.answered["disks.volumes"] == 3


def test_a_call_fails_before_or_after_it_took_effect() -> None:
    cloud = MemoryCloud()
    cloud.faults.fail_next("disks.create_volume", Retriable("no answer"), times=2)
    cloud.faults.fail_next("disks.create_volume", Retriable("the answer is lost"), after=True)
    for left in (0, 0, 1):
        with pytest.raises(Retriable):
            volume(cloud)
        assert len(cloud.store.volumes) == left
    assert volume(cloud).id


def test_what_is_made_can_come_to_nothing_and_says_why() -> None:
    cloud = MemoryCloud()
    cloud.faults.break_next("disks.create_volume", "no backend", name="two")
    first, second = volume(cloud, "one"), volume(cloud, "two")
    assert cloud.disks.volume(first.id).state is DiskState.AVAILABLE
    assert cloud.disks.volume(second.id).state is DiskState.FAILED
    assert cloud.disks.faults(second.id) == ["no backend"]


def test_quotas_bind_and_are_free_again() -> None:
    cloud = MemoryCloud()
    cloud.store.limits.update(volumes=2, gigabytes=3)
    first = volume(cloud)
    with pytest.raises(QuotaExceeded, match="gigabytes"):
        volume(cloud, size_gb=3)
    volume(cloud)
    with pytest.raises(QuotaExceeded, match="volumes"):
        volume(cloud)
    cloud.disks.delete_volume(first.id)
    cloud.store.settle()
    assert volume(cloud).id
    assert {one.name: (one.limit, one.used) for one in cloud.disks.quotas()}["volumes"] == (2, 2)


@pytest.mark.parametrize(("after", "left"), [(False, []), (True, [()])], ids=["before", "after"])
def test_who_dies_between_making_and_tagging_leaves_it_untagged(after: bool, left: list[tuple[str, ...]]) -> None:
    cloud = MemoryCloud()
    cloud.mortal.kill_at(1, after=after)
    with pytest.raises(Killed):
        cloud.networks.create_network(name="net", tags=["mine"])
    with pytest.raises(Killed):
        cloud.networks.networks()
    cloud.mortal.revive()
    assert [one.tags for one in cloud.networks.networks(external=False)] == left
    cloud.networks.create_network(name="net", tags=["mine"])
    assert len(cloud.networks.networks(tag="mine")) == 1


def test_refused_changes_and_deleting_what_is_gone_are_no_changes() -> None:
    cloud = MemoryCloud()
    with pytest.raises(Terminal):
        cloud.disks.create_volume(name="x", size_gb=1, zone="nowhere", metadata={})
    cloud.disks.delete_volume("gone")
    assert cloud.mortal.changes == 0


def test_many_threads_lose_nothing() -> None:
    cloud = MemoryCloud()
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(volume, [cloud] * 200, [f"v{number}" for number in range(200)]))
    assert len({one.id for one in made}) == 200
    assert cloud.store.used["gigabytes"] == 200


def test_an_index_follows_every_change() -> None:
    table: Table[Network] = Table(tag=lambda one: one.tags)
    table.put(Network("1", "a", tags=("x",)))
    table.put(Network("2", "b", tags=("x", "y")))
    assert [one.id for one in table.by("tag", "x")] == ["1", "2"]
    table.put(Network("1", "a", tags=("y",)))
    assert [one.id for one in table.by("tag", "x")] == ["2"]
    assert table.count("tag", "y") == 2
    table.drop("2")
    assert table.by("tag", "x") == []
    assert table.ids() == ["1"]
