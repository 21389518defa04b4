"""A controller on NIFCLOUD that dies at any of its changes, before or after the change has its effect: the next one ends the
work, with nothing double and nothing left."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest

from moyai.cloud.nifcloud.service_orders import PREFIX
from moyai.cloud.service_balancers import BackendNode, BalancerChanging, ServiceToServe, WantedPort
from moyai.core.errors import Terminal
from moyai.core.ids import cluster_tag
from tests.fakes.nifcloud_calls import Call
from tests.fakes.nifcloud_wire import NifcloudWire

NAME = "a" * 15
L4 = ServiceToServe(
    "default/web", "a" * 32, (WantedPort("TCP", 80, 30080), WantedPort("TCP", 443, 30443)), source_ranges=("192.0.2.0/24",)
)
ELB = replace(L4, annotations={f"{PREFIX}type": "elb"}, source_ranges=())
#: What a Service goes through; None: it is removed.
LIVES: dict[str, tuple[ServiceToServe | None, ...]] = {
    "lb": (L4, replace(L4, ports=(WantedPort("TCP", 80, 31000),), source_ranges=()), None),
    "elb": (ELB, replace(ELB, ports=(WantedPort("TCP", 8080, 31000),)), None),
    "type": (replace(L4, ports=L4.ports[:1]), replace(ELB, ports=L4.ports[:1]), replace(L4, ports=L4.ports[:1]), None),
}


class Dying:
    """``trouble`` of a wire: at the n-th change the process ends; ``after``: its effect is there."""

    def __init__(self, wire: NifcloudWire, at: int, *, after: bool) -> None:
        self._wire, self._at, self._after = wire, at, after
        self.died = False
        self._seen = 0

    def __call__(self, call: Call) -> str:
        if "Describe" in call.operation:
            return ""
        self._seen += 1
        if self._seen != self._at:
            return ""
        self.died = True
        if self._after:
            self._wire.account.do(call)
        return "died"


def patiently(wire: NifcloudWire, act: Callable[[], object]) -> None:
    for _ in range(100):
        try:
            act()
        except BalancerChanging:
            wire.clock.sleep(5)
        else:
            return
    raise AssertionError("does not come to an end")


def live(wire: NifcloudWire, wanted: ServiceToServe | None) -> None:
    """As a process that has just started."""
    balancers = wire.cloud().service_balancers
    if wanted is None:
        patiently(wire, lambda: balancers.remove_balancer(NAME))
        return
    nodes = [
        BackendNode(name, f"nifcloud:///east-11/{one['InstanceUniqueId']}") for name, one in wire.account.instances.items()
    ]
    patiently(wire, lambda: balancers.ensure_balancer(wanted, nodes))


def state(wire: NifcloudWire) -> tuple[object, ...]:
    wire.clock.sleep(60)
    wire.cloud().firewall.security_groups()
    rules = [(name, sorted(map(str, one["IpPermissions"]))) for name, one in sorted(wire.account.groups.items())]
    elastic = {name: str(one) for name, one in wire.account.elbs.items()}
    return ({name: sorted(map(str, one)) for name, one in wire.account.balancers.items()}, elastic, rules)


def prepared() -> NifcloudWire:
    wire = NifcloudWire()
    group = wire.cloud().firewall.create_security_group(name="workers", tags=[cluster_tag("abcdef0123")])
    for name in ("node1", "node2"):
        wire.account.server(name)["group"] = group.id
    return wire


@pytest.mark.exhaustive
@pytest.mark.parametrize("after", [False, True], ids=["before its effect", "after its effect"])
@pytest.mark.parametrize("life", LIVES)
def test_killed_at_any_change(life: str, after: bool) -> None:
    calm = prepared()
    expected: list[tuple[object, ...]] = []
    for wanted in LIVES[life]:
        live(calm, wanted)
        expected.append(state(calm))
    for at in itertools.count(1):
        wire = prepared()
        wire.trouble = dying = Dying(wire, at, after=after)
        for wanted, goal in zip(LIVES[life], expected, strict=True):
            was = dying.died
            try:
                live(wire, wanted)
            except Terminal:
                assert dying.died > was
                live(wire, wanted)
            assert state(wire) == goal, f"died at change {at}"
        if not dying.died:
            assert at > 10
            break
