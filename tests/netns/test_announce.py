"""Announced addresses on real kernels: who answers ARP, whom a client's kernel believes, and that never two answer."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest

from moyai.kube.resources import L2_ADVERTISEMENTS, NODES
from moyai.plan.announce.metallb_words import NAMESPACE
from tests.netns.announce_world import Announcers
from tests.netns.pod_world import Machine, ip, machines


@pytest.fixture
def world() -> Iterator[Announcers]:
    with machines(4, pods=False) as made:
        yield Announcers(made, f"pn{os.getpid()}-sw")


def others(world: Announcers, but: Machine) -> set[bytes]:
    return {world.mac(one) for one in world.nodes if one is not but}


async def test_the_owner_answers_and_a_client_reaches_it_by_the_kernels_own_question(world: Announcers) -> None:
    async with world.running():
        owner = world.holder
        assert await world.until(bool) == {world.mac(owner)}
        assert await world.client.connects() == owner.name
        assert world.client.known().replace(":", "") == world.mac(owner).hex()
        # of no other address
        assert await world.client.who_has("172.17.0.201") == set()
        # and no interface has it
        assert "172.17.0.200" not in "".join(ip(one.net, "address show") for one in world.nodes)


async def test_another_takes_over_after_a_silent_death_and_clients_follow_without_asking(world: Announcers) -> None:
    async with world.running():
        dead = world.holder
        assert await world.client.connects() == dead.name
        world.die(dead)
        # the questions of ``until`` are raw packets: the client's kernel hears of the new owner by gratuitous ARP alone
        (answer,) = await world.until(lambda answers: bool(answers & others(world, dead)))
        owner = world.holder
        assert world.mac(owner) == answer
        assert await world.client.connects() == owner.name
        world.revive(dead)
        for _ in range(20):
            await world.until(lambda answers: answers == {answer})
        assert world.holder is owner


async def test_a_planned_move_hands_the_address_over(world: Announcers) -> None:
    async with world.running():
        former = world.holder
        assert await world.client.connects() == former.name
        body = world.kube.find(NODES, former.name)
        world.kube.put(NODES, {**body, "status": {**body["status"], "conditions": [{"type": "Ready", "status": "False"}]}})
        # the former owner forwards what comes to it meanwhile
        assert await world.client.connects() != ""
        await world.until(lambda answers: bool(answers & others(world, former)))
        assert await world.client.connects() == world.holder.name != former.name


async def test_an_agent_that_ends_hands_the_address_over(world: Announcers) -> None:
    async with world.running():
        former = world.holder
        world.stop(former)
        await world.until(lambda answers: bool(answers & others(world, former)))
        assert await world.client.connects() == world.holder.name


async def test_the_owner_wins_a_claim_of_another_machine_back(world: Announcers) -> None:
    async with world.running():
        owner = world.holder
        # the announcements of the take-over are through
        await asyncio.sleep(6)
        await world.until(bool)
        world.client.claim()
        for _ in range(50):
            await asyncio.sleep(0.1)
            if claims := world.client.heard_claims():
                break
        else:
            raise AssertionError("the owner did not say it again")
        assert claims == {world.mac(owner)}


async def test_an_interface_that_comes_back_is_listened_on_again(world: Announcers) -> None:
    world.kube.put(
        L2_ADVERTISEMENTS,
        {"metadata": {"name": "all", "namespace": NAMESPACE}, "spec": {"nodeSelectors": [{"matchLabels": {"a": "1"}}]}},
    )
    only = world.nodes[0]
    body = world.kube.find(NODES, only.name)
    world.kube.put(NODES, {**body, "metadata": {**body["metadata"], "labels": {"a": "1"}}})
    async with world.running():
        assert world.holder is only
        ip(only.net, "link set eth0 down", "link set eth0 up")
        await world.until(bool)
        ip(only.net, "link delete eth0")
        assert await world.client.who_has() == set()
        ip(f"pn{os.getpid()}-sw", f"link add s1 type veth peer name eth0 netns {only.net}", "link set s1 master br0 up")
        ip(only.net, f"address add {only.address}/24 dev eth0", "link set eth0 up")
        assert await world.until(bool) == {world.mac(only)}
