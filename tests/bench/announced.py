"""``python -m tests.bench.announced``: how long an announced address is away when its owner dies or leaves. Needs root.

Three machines and a client are network namespaces on one switch; the agents are real, the API is Kubernetes in memory. The
pauses of the measuring process itself are shown too: a machine that stands still takes over late.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Callable

import click

from tests.netns.announce_world import Announcers
from tests.netns.pod_world import Machine, machines

_TICK = 0.02


class Pauses:
    """The longest time for which the process did nothing, beyond what it slept."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def watch(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(_TICK)
            self.longest = max(self.longest, time.monotonic() - began - _TICK)


async def _away(world: Announcers, leave: Callable[[Machine], None]) -> tuple[float, float]:
    """Seconds until another node answers ARP, and until a new connection is answered. Fails when two answer."""
    owner = world.holder
    mac = world.mac(owner)
    began = time.monotonic()
    leave(owner)
    await world.until(lambda answers: bool(answers) and mac not in answers)
    answered = time.monotonic() - began
    while not await world.client.connects(1.0):
        pass
    return answered, time.monotonic() - began


async def _once(leave: Callable[[Announcers], Callable[[Machine], None]]) -> tuple[float, float, float]:
    with machines(4, pods=False) as made:
        world = Announcers(made, f"pn{os.getpid()}-sw")
        pauses = Pauses()
        watching = asyncio.create_task(pauses.watch())
        async with world.running():
            # after the announcements of the first owner
            await asyncio.sleep(5)
            await world.client.connects()
            found = await _away(world, leave(world))
        watching.cancel()
        return (*found, pauses.longest)


async def _measure(what: str, leave: Callable[[Announcers], Callable[[Machine], None]], *, times: int) -> None:
    rows = [await _once(leave) for _ in range(times)]
    for name, values in zip(
        ("another node answers", "a connection is answered", "own pause"), zip(*rows, strict=True), strict=True
    ):
        click.echo(f"{what:14} {name:26} median {statistics.median(values):5.2f} s   most {max(values):5.2f} s")


@click.command()
@click.option("--times", default=10, show_default=True)
def main(times: int) -> None:
    """Measure silent deaths and orderly ends of an owner."""
    click.echo(f"{times} times each; load {os.getloadavg()[0]:.1f}, {os.cpu_count()} processors")
    asyncio.run(_measure("silent death", lambda world: world.die, times=times))
    asyncio.run(_measure("orderly end", lambda world: world.stop, times=times))


if __name__ == "__main__":
    main()
