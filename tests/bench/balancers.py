"""Load balancers asked for at once: one, eight, fifty; from the first request until the last is ACTIVE, and until all are gone.

Each has what a Service of one port gets (listener, pool, two members, a health check) and is made with one call, by a thread of
its own. One look at the cloud serves all threads. The floor of several is one alone, measured before them on the same cloud.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from moyai.cloud.load_balancers import (
    BalancerState,
    BalancingAlgorithm,
    CheckType,
    Listener,
    LoadBalancer,
    Member,
    Monitor,
    Pool,
    TrafficProtocol,
)
from moyai.cloud.openstack import connect

#: How many are asked for at once.
COUNTS = (1, 8, 50)
_SECONDS = 600.0
_CIDR = "10.79.0.0/24"


def made(count: int) -> str:
    return "one made" if count == 1 else f"{count} made at once"


def deleted(count: int) -> str:
    return "one deleted" if count == 1 else f"{count} deleted at once"


#: The most that is wanted: seconds for one and for fifty, times one alone for eight.
GOALS = {made(1): 2.0, deleted(1): 2.0, made(8): 1.5, deleted(8): 1.5, made(50): 30.0, deleted(50): 30.0}


class BalancerBench:
    """``cloud``: an entry of clouds.yaml. What `measure` made is gone when it returns."""

    def __init__(self, cloud: str) -> None:
        self._cloud = connect(cloud)
        self._name = f"bench-{secrets.token_hex(3)}"
        self._undo = ExitStack()
        self._subnet = ""

    def __enter__(self) -> BalancerBench:
        networks = self._cloud.networks
        network = networks.create_network(name=self._name, tags=[self._name])
        self._undo.callback(networks.delete_network, network.id)
        subnet = networks.create_subnet(name=self._name, network_id=network.id, cidr=_CIDR, tags=[self._name])
        self._undo.callback(networks.delete_subnet, subnet.id)
        self._subnet = subnet.id
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def measure(self, count: int) -> dict[str, float]:
        """Phase → seconds, of ``count`` at once."""
        balancers = self._cloud.load_balancers
        every = 0.05 if count == 1 else 0.25
        with ThreadPoolExecutor(count) as threads:
            began = time.monotonic()
            ids = [one.id for one in threads.map(balancers.create, [self._tree(number) for number in range(count)])]
            _until(
                f"{count} load balancers to be ACTIVE", lambda: self._states().count(BalancerState.ACTIVE) == count, every=every
            )
            found = {made(count): time.monotonic() - began}
            began = time.monotonic()
            list(threads.map(balancers.delete, ids))
            _until(f"the end of {count} load balancers", lambda: not self._states(), every=every)
        return found | {deleted(count): time.monotonic() - began}

    def _states(self) -> list[BalancerState]:
        return [one.state for one in self._cloud.load_balancers.load_balancers(tag=self._name)]

    def _tree(self, number: int) -> LoadBalancer:
        members = tuple(Member(f"10.79.0.{250 + n}", 80, subnet_id=self._subnet, name=f"m{n}") for n in range(2))
        monitor = Monitor(CheckType.TCP, delay=5, timeout=3, max_retries=2, name="bench")
        pool = Pool("pool", TrafficProtocol.TCP, BalancingAlgorithm.ROUND_ROBIN, members=members, monitor=monitor)
        listener = Listener("listener", TrafficProtocol.TCP, 80, pool=pool)
        return LoadBalancer(f"{self._name}-{number}", vip_subnet_id=self._subnet, tags=(self._name,), listeners=(listener,))


def _until(what: str, holds: Callable[[], Any], *, every: float) -> None:
    end = time.monotonic() + _SECONDS
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {_SECONDS:.0f} s for {what}")
        time.sleep(every)


if __name__ == "__main__":
    import sys

    with BalancerBench(sys.argv[1]) as bench:
        for wanted in map(int, sys.argv[2:]):
            print(bench.measure(wanted), flush=True)
