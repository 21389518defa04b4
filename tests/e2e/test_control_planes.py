"""Three control planes: the one that holds the API's address dies without a word, and another one goes on within seconds."""

from __future__ import annotations

import json
import time
from collections.abc import Generator

import pytest

from moyai.core.paths import default_paths
from moyai.kube.resources import NAMESPACES
from tests.e2e.disks import until
from tests.e2e.planes import ANSWERS_WITHIN, Client, Planes, gaps, holder, taken

SPACE = "control-planes"


@pytest.fixture(scope="module")
def planes(cloud_name: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[Planes]:
    made = Planes(tmp_path_factory.mktemp("planes"), cloud_name)
    with made.removed_at_end():
        began = time.monotonic()
        made.moyai("up", str(made.folder))
        print(f"\n`up` of three control planes: {time.monotonic() - began:.0f} s")
        made.api.create(NAMESPACES, {"metadata": {"name": SPACE}})
        yield made


def test_a_second_up_has_nothing_to_do(planes: Planes) -> None:
    assert json.loads(planes.moyai("plan", str(planes.folder), "--output", "json").stdout)["steps"] == []


def test_status_says_what_each_control_plane_is(planes: Planes) -> None:
    found = planes.status()
    assert found["problems"] == []
    assert sorted(one["member"] for one in found["control_planes"]) == ["leader", "voter", "voter"]
    assert [one["name"] for one in found["control_planes"] if one["holder"]] == [holder(planes.api)]


def test_the_api_and_every_acknowledged_write_outlive_the_machine_that_holds_the_address(planes: Planes) -> None:
    old = holder(planes.api)
    server = planes.server(old)
    client = Client(default_paths().clusters / planes.name / "kubeconfig", SPACE).start()
    try:
        until("a hundred writes", lambda: len(client.writes.acknowledged) >= 100, within=60)
        # a machine without power closes no connection
        planes.inside(server, "ip link set eth0 down")
        died = time.monotonic()
        planes.crash(server)
        until("writes go on", lambda: client.writes.since(died + ANSWERS_WITHIN) > 50, within=60)
    finally:
        client.stop()
    reads, writes = client.reads.gap(died), client.writes.gap(died)
    print(
        f"\n{len(client.writes.acknowledged)} writes acknowledged, {len(client.writes.unknown)} unknown; the longest time "
        f"without an answer: {reads:.2f} s of reads, {writes:.2f} s of writes; from {old} to {holder(planes.api)}"
    )
    assert client.lost(planes.api) == set()
    assert holder(planes.api) != old
    assert max(reads, writes) < ANSWERS_WITHIN


def test_up_brings_the_machine_back(planes: Planes) -> None:
    planes.moyai("up", str(planes.folder))
    # pods of a machine that was away are found out a moment after its node is Ready
    planes.settled()


def test_a_machine_that_is_gone_is_replaced_while_the_others_answer(planes: Planes) -> None:
    name = holder(planes.api)
    planes.provider.machines.delete_server(planes.server(name).id)
    client = Client(default_paths().clusters / planes.name / "kubeconfig", SPACE, first=1_000_000).start()
    began = time.monotonic()
    try:
        until("the cloud has deleted it", lambda: name not in planes.machines(), within=60)
        planes.moyai("up", str(planes.folder))
    finally:
        client.stop()
    longest = ", ".join(f"{seconds:.2f} s after {begin:.1f} s" for seconds, begin in client.reads.gaps(began)[:3])
    print(f"\n{name} replaced in {time.monotonic() - began:.0f} s; without an answer to reads: {longest}")
    assert client.reads.gap(began) < ANSWERS_WITHIN
    assert client.lost(planes.api) == set()
    assert sorted(one.member for one in planes.settled()) == ["leader", "voter", "voter"]


@pytest.mark.long
def test_a_control_plane_that_works_is_replaced_while_clients_go_on(planes: Planes) -> None:
    name = holder(planes.api)
    client = Client(default_paths().clusters / planes.name / "kubeconfig", SPACE, first=1_500_000).start()
    began = time.monotonic()
    try:
        said = planes.moyai("up", str(planes.folder), "--replace", name).stderr
    finally:
        client.stop()
    print(f"\n{name} replaced by another one in {time.monotonic() - began:.0f} s; {gaps(client, began)}\n{taken(said)}")
    assert client.lost(planes.api) == set()
    assert max(client.reads.gap(began), client.writes.gap(began)) < ANSWERS_WITHIN
    found = planes.settled()
    assert sorted(one.member for one in found) == ["leader", "voter", "voter"]
    assert name not in [one.name for one in found]


def test_three_become_one_while_clients_go_on(planes: Planes) -> None:
    before = sorted(one.name for one in planes.settled())
    planes.write(2, planes=1)
    client = Client(default_paths().clusters / planes.name / "kubeconfig", SPACE, first=2_000_000).start()
    began = time.monotonic()
    try:
        said = planes.moyai("up", str(planes.folder)).stderr
    finally:
        client.stop()
    print(f"\nfrom three control planes to one in {time.monotonic() - began:.0f} s; {gaps(client, began)}\n{taken(said)}")
    assert client.lost(planes.api) == set()
    assert max(client.reads.gap(began), client.writes.gap(began)) < ANSWERS_WITHIN
    assert [(one.name, one.member) for one in planes.settled()] == [(before[0], "leader")]
    assert json.loads(planes.moyai("plan", str(planes.folder), "--output", "json").stdout)["steps"] == []
