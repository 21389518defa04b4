"""Floating IPs of egress addresses: a port has the address, the floating IP is on it, and both go with the object."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from moyai.ccm.app import CcmOptions
from moyai.ccm.egress_ips import FINALIZER
from moyai.ccm.settings import AnnounceConfig
from moyai.cloud.model import FloatingIP, Port
from moyai.core.ids import cluster_tag
from moyai.kube.resources import EGRESS_ADDRESSES, Json
from tests.unit.ccm_world import SUBNET, UID, World, external, run_until_dead

pytestmark = pytest.mark.virtual_time

ADDRESS = "10.0.0.50"


class Leaving(World):
    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        self.config = replace(self.config, announce=AnnounceConfig(("10.0.0.48/28",)))

    def manager(self, *controllers: str, clock: Any = None) -> Any:
        return super().manager(*(controllers or ("egress-ips",)), clock=clock)

    def egress(self, name: str = "shop", **spec: str) -> None:
        meta: Json = {"name": name, "namespace": "shop", "uid": f"uid-{name}", "creationTimestamp": "2026-01-01T00:00:00Z"}
        if ("egressaddresses", "shop", name) in self.kube.objects:
            meta = self.found(name)["metadata"]
        self.kube.put(EGRESS_ADDRESSES, {"metadata": meta, "spec": {"address": ADDRESS, **spec}})

    def found(self, name: str = "shop") -> Json:
        return self.kube.find(EGRESS_ADDRESSES, name, namespace="shop")

    def public(self, name: str = "shop") -> str:
        return self.found(name).get("status", {}).get("floatingIP") or ""

    def ports(self) -> list[Port]:
        return [one for one in self.store.ports if ADDRESS in one.fixed_ips]

    async def delete(self, name: str = "shop") -> None:
        await self.kube.delete(EGRESS_ADDRESSES, name, namespace="shop")

    def gone(self, name: str = "shop") -> bool:
        return ("egressaddresses", "shop", name) not in self.kube.objects


def user_address(world: Leaving, address: str = "198.51.100.77") -> FloatingIP:
    return world.store.floating_ips.put(FloatingIP("mine", address, "DOWN", network_id=external(world.cloud).id))


async def test_a_floating_ip_is_made_on_a_port_with_the_address_and_goes_with_the_object() -> None:
    world = Leaving()
    world.egress(floatingIP="auto")
    async with world.run():
        await world.until(world.public)
        (port,), (floating,) = world.ports(), world.floating()
        assert (floating.port_id, floating.address, floating.tags) == (port.id, world.public(), (cluster_tag(UID),))
        assert (port.name, port.subnet_ids, port.device_id) == (f"demo-egress-{ADDRESS}", (SUBNET,), "")
        assert FINALIZER in world.found()["metadata"]["finalizers"]
        await world.until(lambda: f"FloatingIP: {ADDRESS} is {floating.address} outside" in world.events())
        calls = len(world.cloud.calls)
        # another node takes over: nothing changes in the cloud
        await world.kube.patch(
            EGRESS_ADDRESSES, "shop", body={"status": {"node": "demo-2"}}, namespace="shop", subresource="status"
        )
        await world.clock.asleep(0.1)
        assert len(world.cloud.calls) == calls
        await world.delete()
        await world.until(world.gone)
        # the next object with the address has the same port
        assert (world.ports(), world.floating()) == ([port], [])
        world.egress("next", floatingIP="auto")
        await world.until(lambda: world.public("next"))
        assert world.floating()[0].port_id == port.id


async def test_one_of_the_users_is_used_and_let_go() -> None:
    world = Leaving()
    mine = user_address(world)
    given = world.store.ports.put(Port("given", "egress-by-hand", "net", "DOWN", (ADDRESS,), (SUBNET,)))
    world.egress(floatingIP=mine.address)
    async with world.run():
        await world.until(lambda: world.public() == mine.address)
        assert world.ports() == [given]
        assert world.floating()[0].port_id == "given"
        await world.delete()
        await world.until(world.gone)
        assert (world.ports(), [one.address for one in world.floating()]) == ([given], [mine.address])


async def test_on_a_port_of_ours_the_users_floating_ip_becomes_free() -> None:
    world = Leaving()
    mine = user_address(world)
    world.egress(floatingIP=mine.address)
    async with world.run():
        await world.until(lambda: world.public() == mine.address)
        # no floating IP any more, and the address stays
        world.egress()
        await world.until(lambda: not world.public())
        await world.until(lambda: not world.found()["metadata"]["finalizers"])
        assert [(one.address, one.port_id) for one in world.floating()] == [(mine.address, "")]


async def test_another_address_takes_the_floating_ip_along() -> None:
    world = Leaving()
    world.egress(floatingIP="auto")
    async with world.run():
        await world.until(world.public)
        before = world.public()
        world.egress(floatingIP="auto", address="10.0.0.51")
        await world.until(lambda: [one.fixed_ip for one in world.floating()] == ["10.0.0.51"])
        assert world.public() == before


async def test_of_two_objects_with_one_address_the_older_counts_and_the_younger_waits() -> None:
    world = Leaving()
    world.egress("a", floatingIP="auto")
    world.egress("b", floatingIP="auto")
    async with world.run():
        await world.until(lambda: world.public("a"))
        await world.until(lambda: any(f"{ADDRESS} is that of shop/a, which is older" in one for one in world.events()))
        assert not world.public("b")
        await world.delete("a")
        await world.until(lambda: world.public("b"))
        assert len(world.floating()) == 1


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"address": "10.0.0.9", "floatingIP": "auto"}, "10.0.0.9 is in none of the cluster's services.announce.ranges"),
        ({"floatingIP": "198.51.100.77"}, "floating IP 198.51.100.77 is in use by port p"),
        ({"address": "10.0.0.49", "floatingIP": "auto"}, "10.0.0.49 is that of a machine or router"),
    ],
)
async def test_what_cannot_be_is_said(spec: dict[str, str], why: str) -> None:
    world = Leaving()
    world.store.ports.put(Port("p", "p", "net", "ACTIVE", ("10.0.0.49",), (SUBNET,), device_id="a-machine"))
    world.store.floating_ips.put(replace(user_address(world), port_id="p"))
    world.egress(**spec)
    async with world.run():
        await world.until(lambda: any("FloatingIPFailed" in one and why in one for one in world.events()))
        assert not world.public()


@pytest.mark.parametrize("after", [True, False])
@pytest.mark.parametrize("steps", range(1, 5))
async def test_killed_at_any_change_the_next_run_finishes_and_nothing_is_left(steps: int, after: bool) -> None:
    """Finalizer, port, floating IP, status."""
    world = Leaving()
    world.egress(floatingIP="auto")
    world.die_with_kubernetes()
    world.mortal.kill_at(steps, after=after)
    await run_until_dead(world)
    world.mortal.revive()
    async with world.run():
        await world.until(lambda: world.public() and len(world.ports()) == 1 and len(world.floating()) == 1)
        await world.delete()
        await world.until(world.gone)
    assert world.floating() == []


@pytest.mark.parametrize("steps", range(1, 4))
async def test_killed_while_it_lets_go_the_next_run_finishes(steps: int) -> None:
    """Floating IP, status, finalizer."""
    world = Leaving()
    world.egress(floatingIP="auto")
    async with world.run():
        await world.until(world.public)
    await world.delete()
    world.die_with_kubernetes()
    world.mortal.kill_at(steps)
    await run_until_dead(world)
    world.mortal.revive()
    async with world.run():
        await world.until(world.gone)
    assert world.floating() == []


def test_the_options_know_it() -> None:
    assert "egress-ips" in CcmOptions.__dataclass_fields__["controllers"].default
