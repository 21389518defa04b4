"""Leader election: a leader stops before another may take over, also when the API answers late and then not at all."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from moyai.core.errors import Unreachable
from moyai.kube.leader import LeaderElection
from moyai.kube.resources import Json, Resource
from tests.fakes.clock import FakeClock
from tests.fakes.kubernetes import Kubernetes

pytestmark = pytest.mark.virtual_time


class BadWay(Kubernetes):
    """A client of ``kube`` whose first renewal is answered late, and nothing after it."""

    def __init__(self, kube: Kubernetes, late: float) -> None:
        super().__init__()
        self._real = kube
        self._late = late
        self._cut = False

    async def get(self, resource: Resource, name: str, *, namespace: str | None = None) -> Json:
        if self._cut:
            raise Unreachable("no way to the API")
        return await self._real.get(resource, name, namespace=namespace)

    async def create(self, resource: Resource, body: Json, *, namespace: str | None = None) -> Json:
        return await self._real.create(resource, body, namespace=namespace)

    async def replace(self, resource: Resource, name: str, **change: Any) -> Json:
        answer = await self._real.replace(resource, name, **change)
        self._cut = True
        await asyncio.sleep(self._late)
        return answer


@pytest.mark.parametrize("late", [0.0, 4.0, 6.0, 7.9])
async def test_a_leader_stops_before_another_can_take_over_however_late_its_last_renewal_was_answered(late: float) -> None:
    kube, clock = Kubernetes(), FakeClock()

    def election(through: Kubernetes, identity: str) -> LeaderElection:
        return LeaderElection(through, name="x", namespace="n", identity=identity, clock=clock)

    leader, rival = election(BadWay(kube, late), "leader"), election(kube, "rival")
    await leader.acquire()
    holding = asyncio.create_task(leader.hold())
    await asyncio.wait_for(rival.acquire(), 60)
    assert not leader.leading
    assert clock.monotonic() > leader.fenced_until
    await holding
