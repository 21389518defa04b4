"""A machine dies under a database: its disk is on another node within seconds, with every write that was acknowledged."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator

import pytest

from moyai.ccm.fencing import FENCED, OUT_OF_SERVICE
from moyai.cloud.model import Power, Server
from moyai.kube.objects import Node, parse_claim, parse_event, parse_node, parse_pod
from moyai.kube.quick import KubeApi
from moyai.kube.resources import CLAIMS, EVENTS, NODES, PODS
from tests.e2e import disks
from tests.e2e.disks import Writer, Zoned, until

SPACE = "failover"
#: The goal is 20 s for the disk; a busy machine gets more. Without fencing it would be more than 6 minutes.
ATTACHED_WITHIN, ANSWERS_WITHIN = 60.0, 180.0
STOP = "systemctl stop kubelet"


@pytest.fixture(scope="module")
def url(zoned: Zoned) -> Generator[str]:
    zoned.apply(zoned.namespace(SPACE), disks.database(SPACE), disks.service(SPACE))
    api = zoned.api
    try:
        found = until("an address", lambda: disks.address(api, SPACE), within=120)
        until("the database", lambda: disks.ask(f"http://{found}/check") == "ok", within=120)
        yield f"http://{found}"
    finally:
        zoned.kubectl("delete", "namespace", SPACE, "--timeout=180s")


def node(api: KubeApi, name: str) -> Node:
    return parse_node(api.get(NODES, name))


def place(api: KubeApi) -> tuple[str, str]:
    """(node, volume) of the database."""
    pod = parse_pod(api.get(PODS, "db-0", namespace=SPACE))
    return pod.node, parse_claim(api.get(CLAIMS, "data-db-0", namespace=SPACE)).volume


def told(api: KubeApi, name: str) -> list[str]:
    events = map(parse_event, api.list(EVENTS, fields=f"involvedObject.name={name}"))
    return [f"{one.reason}: {one.message}" for one in events]


#: What happens to the disk of a machine that died, in this order.
OFF, OUT, FREE, ATTACHED, READY = "the cloud says off", "out of service", "detached", "attached elsewhere", "database ready"


def follow(zoned: Zoned, old: str, *, volume: str, since: float, within: float) -> tuple[str, dict[str, float]]:
    """Look until the database is ready on another node: (that node, phase → seconds after ``since``)."""
    api, server, marks = zoned.api, zoned.server(old).id, dict[str, float]()

    def mark(phase: str, reached: Callable[[], object]) -> None:
        if phase not in marks and reached():
            marks[phase] = time.monotonic() - since

    def look() -> str:
        mark(OFF, lambda: zoned.provider.machines.server(server).power is Power.OFF)
        mark(OUT, lambda: OUT_OF_SERVICE in node(api, old).taints)
        holders = disks.attached_to(api, volume)
        mark(FREE, lambda: old not in holders)
        mark(ATTACHED, lambda: holders - {old})
        for pod in map(parse_pod, api.list(PODS, namespace=SPACE)):
            if pod.node not in ("", old) and pod.ready:
                mark(READY, lambda: True)
                return pod.node
        return ""

    new = until("the database is ready elsewhere", look, within=within)
    return new, marks


def moved(zoned: Zoned, url: str, *, writer: Writer, end: Callable[[Server], object]) -> tuple[str, str, dict[str, float]]:
    """``end`` ends the database's machine; another machine has all acknowledged rows. Returns (old, new, moments)."""
    api = zoned.api
    old, volume = place(api)
    server = zoned.server(old)
    until("a hundred writes", lambda: len(writer.acknowledged) >= 100, within=60)
    end(server)
    died = time.monotonic()
    new, marks = follow(zoned, old, volume=volume, since=died, within=ANSWERS_WITHIN)
    marks["next write"] = until("a write after the move", lambda: writer.since(died + marks[ATTACHED]), within=30) - died
    acknowledged = writer.stop()
    stored = set(json.loads(disks.ask(f"{url}/", timeout=10)))
    assert acknowledged - stored == set()
    assert disks.ask(f"{url}/check") == "ok"
    assert disks.attached_to(api, volume) == {new}
    phases = ", ".join(f"{phase} {seconds:.1f} s" for phase, seconds in marks.items())
    print(f"\n{len(acknowledged)} writes, from {old} to {new}: {phases}")
    return old, new, marks


def test_every_acknowledged_write_is_there_after_the_machine_died(zoned: Zoned, url: str) -> None:
    old, _, marks = moved(zoned, url, writer=Writer(url), end=zoned.crash)
    assert marks[ATTACHED] < ATTACHED_WITHIN
    events = told(zoned.api, old)
    print("\n".join(events))
    assert any(text.startswith("Fenced: ") and "the cloud says that its server is SHUTOFF" in text for text in events)


def test_the_fence_goes_when_the_machine_is_back(zoned: Zoned, url: str) -> None:
    api = zoned.api
    (old,) = [one.name for one in map(parse_node, api.list(NODES)) if FENCED in one.annotations]
    zoned.provider.machines.start_server(zoned.server(old).id)
    until("the fence is lifted", lambda: OUT_OF_SERVICE not in node(api, old).taints, within=60)
    until("the node is Ready", lambda: node(api, old).ready, within=120)
    assert FENCED not in node(api, old).annotations
    (said,) = until("it is told", lambda: [text for text in told(api, old) if text.startswith("FenceLifted: ")], within=10)
    print(f"\n{said}")
    assert disks.ask(f"{url}/check") == "ok"


def test_a_machine_that_runs_keeps_its_disk_however_silent_it_is(zoned: Zoned, url: str) -> None:
    """Its kubelet is stopped, so Kubernetes hears nothing; the database goes on writing to its disk."""
    api = zoned.api
    name, volume = place(api)
    server = zoned.server(name)
    before = len(json.loads(disks.ask(f"{url}/", timeout=10)))
    zoned.inside(server, STOP)
    try:
        (said,) = until(
            "the doubt is told", lambda: [text for text in told(api, name) if text.startswith("NotFenced: ")], within=90
        )
        print(f"\n{said}")
        assert OUT_OF_SERVICE not in node(api, name).taints
        assert disks.attached_to(api, volume) == {name}
        assert place(api) == (name, volume)
        assert len(json.loads(disks.ask(f"{url}/", timeout=10))) == before
    finally:
        zoned.inside(server, "systemctl start kubelet")
    until("the node is Ready", lambda: node(api, name).ready, within=120)


def test_where_the_spec_allows_it_a_silent_machine_is_powered_off_first(zoned: Zoned, url: str) -> None:
    """The same silence under the policy ``poweroff``."""
    api = zoned.api
    disks.use_policy(api, "poweroff")
    try:
        old, _, marks = moved(zoned, url, writer=Writer(url, first=1_000_000), end=lambda server: zoned.inside(server, STOP))
        events = told(api, old)
        print("\n".join(events))
        assert marks[OFF] <= marks[OUT]
        assert any(text.startswith("PoweringOff: ") and "ACTIVE" in text for text in events)
    finally:
        disks.use_policy(api, "verify")
