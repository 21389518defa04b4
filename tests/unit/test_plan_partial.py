"""Every state in which an interrupted run can leave a cluster has a plan: no steps wait for each other in a circle."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest

from moyai.bootstrap.addons import addons
from moyai.cloud.model import FloatingIP, Network, Port, Power, Router, SecurityGroup, Server, Subnet
from moyai.core.errors import Terminal
from moyai.plan import keys
from moyai.plan import steps as s
from moyai.plan.cluster import plan_up
from moyai.plan.nodes import wanted_nodes
from moyai.plan.observed import KubeFacts, KubeNode, NodeAllocation, Observed, Recorded
from moyai.spec.load import parse
from tests.unit.test_plan_cluster import EMPTY, NAMES, TAG

CLUSTER = parse("spec: {nodePools: [{replicas: 1}]}")
NODES = wanted_nodes(CLUSTER, zones=("az1", "az2"), allocations={})
PLANE, WORKER, LEAVING = NODES[0].name, NODES[1].name, "quickstart-workers-1"
API_ADDRESS = keys.api_address_description("0123456789")
POWERS = (None, Power.RUNNING, Power.OFF, Power.SUSPENDED, Power.FAILED)


def server(name: str, power: Power) -> Server:
    return Server(f"id of {name}", name, power.upper(), "az1", "", metadata={"moyai.cluster": "0123456789"}, power=power)


def observed(
    *, plane: Power | None, worker: Power | None, leaving: bool, gateway: bool, kube: tuple[str, ...] | None
) -> Observed:
    there = {PLANE: plane, WORKER: worker, LEAVING: Power.RUNNING if leaving else None}
    ports = [
        Port(f"port of {name}", name, "n", "ACTIVE", device_id=f"id of {name}", tags=TAG)
        for name, power in there.items()
        if power
    ]
    router = Router("r", "quickstart-router", external_network_id="ext" if gateway else "", tags=TAG)
    return replace(
        EMPTY,
        networks=(*EMPTY.networks, Network("n", "quickstart-network", tags=TAG)),
        subnets=(Subnet("s", "quickstart-subnet", "n", "10.8.0.0/24", tags=TAG),),
        routers=(router,),
        groups=tuple(SecurityGroup(role, f"quickstart-{role}", tags=TAG) for role in ("control-plane", "worker")),
        ports=tuple(ports),
        floating_ips=(
            FloatingIP("f", "203.0.113.9", "DOWN", description=keys.api_address_description("0123456789"), tags=TAG),
        ),
        servers=tuple(server(name, power) for name, power in there.items() if power),
        kube=None if kube is None else KubeFacts(tuple(KubeNode(name) for name in kube)),
    )


def states() -> Iterator[tuple[Observed, Recorded]]:
    answers = (None, (), (PLANE,), (PLANE, WORKER), (PLANE, WORKER, LEAVING))
    flags = (False, True)
    for plane, worker, leaving, gateway, kube, fresh, ready in itertools.product(
        POWERS, POWERS, flags, flags, answers, flags, flags
    ):
        allocations = {PLANE: NodeAllocation(0, "az1"), WORKER: NodeAllocation(1, "az1"), LEAVING: NodeAllocation(2, "az1")}
        past = Recorded(
            "quickstart",
            "0123456789",
            allocations,
            frozenset({keys.NETWORK, keys.FLOATING_IP}),
            ready=ready,
            api_address="203.0.113.9" if ready else "",
            token_fresh=fresh,
        )
        yield observed(plane=plane, worker=worker, leaving=leaving, gateway=gateway, kube=kube), past


@pytest.mark.exhaustive
def test_no_state_has_a_plan_that_waits_for_itself() -> None:
    planned = 0
    for seen, past in states():
        try:
            plan = plan_up(CLUSTER, seen, recorded=past, addons=addons(NAMES, spec=CLUSTER.spec))
        except Terminal:
            # a control plane that held the cluster's state and is lost
            assert past.ready
            continue
        planned += 1
        known = {step.id for step in plan.steps}
        assert all(one in known for step in plan.steps for one in step.after)
    assert planned > 400


@pytest.mark.parametrize("fresh", [True, False])
def test_a_first_build_is_carried_on_however_late(fresh: bool) -> None:
    """A worker could not be started, so the router's gateway was never set; meanwhile the bootstrap token has grown old."""
    seen = observed(plane=Power.RUNNING, worker=Power.FAILED, leaving=False, gateway=False, kube=None)
    past = Recorded("quickstart", "0123456789", token_fresh=fresh, intended=frozenset({keys.NETWORK}))
    steps = [step.id for step in plan_up(CLUSTER, seen, recorded=past, addons=addons(NAMES, spec=CLUSTER.spec)).steps]
    created = s.created(keys.server(WORKER))
    assert created in steps
    assert (s.created(keys.TOKEN) in steps) is not fresh
    if not fresh:
        assert steps.index(s.created(keys.GATEWAY)) < steps.index(s.reached(s.API)) < steps.index(created)
