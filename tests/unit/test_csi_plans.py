"""The CSI driver's pure parts: sizes, zones, ways of use, pages, names of devices, what to do given what is seen."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import get_args
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moyai.cloud.model import Attachment, DiskState, Server, Snapshot, Volume
from moyai.cloud.openstack import ADAPTER
from moyai.core.errors import Conflict, MoyaiError, NotFound, QuotaExceeded, Retriable, Terminal, UsageError
from moyai.csi.access_modes import Mode, VolumeAccess, wrong
from moyai.csi.controller import decide, zones
from moyai.csi.controller.paging import page
from moyai.csi.errors import Refused, refusal
from moyai.csi.grpc.server import socket_path
from moyai.csi.settings import read_csi_config, write_csi_config
from moyai.csi.volume_sizes import GIB, Range, choose_gb, quantity

START = datetime(2026, 1, 1, tzinfo=UTC)
VOLUME = Volume(
    "00000000-0000-4000-8000-000000000001",
    "pvc-1",
    "AVAILABLE",
    2,
    zone="az1",
    type_name="files",
    created=START,
    state=DiskState.AVAILABLE,
)


def code(refused: pytest.ExceptionInfo[Refused]) -> str:
    return refused.value.code


# sizes


@given(st.integers(0, 1 << 50), st.integers(1, 64))
def test_the_size_is_the_smallest_whole_gib_that_holds(required: int, least: int) -> None:
    chosen = choose_gb(Range(required), least_gb=least)
    assert chosen * GIB >= required
    assert chosen >= least
    assert chosen == least or (chosen - 1) * GIB < required


@pytest.mark.parametrize(
    ("required", "limit", "least", "says"),
    [
        (GIB + 1, GIB + 2, 1, "the claim's limit of 1073741826 is below 2Gi: .*spec.resources.limits.storage: 2Gi"),
        (0, 100 << 20, 1, "the claim's limit of 100Mi is below 1Gi: .*spec.resources.limits.storage: 1Gi"),
        (0, 2 * GIB, 3, "the source of the copy has 3Gi, more than the claim's limit of 2Gi: .*limits.storage: 3Gi"),
    ],
)
def test_no_size_between_the_bounds_says_what_the_claim_would_have_to_say(
    required: int, limit: int, least: int, says: str
) -> None:
    with pytest.raises(Refused, match=says) as refused:
        choose_gb(Range(required, limit), least_gb=least)
    assert code(refused) == "OUT_OF_RANGE"


@pytest.mark.parametrize(
    ("required", "limit", "says"),
    [
        (2 * GIB, 500 << 20, "asks for 2Gi in spec.resources.requests.storage, more than the 500Mi in its"),
        (-1, 0, "negative"),
        (0, -1, "negative"),
    ],
)
def test_a_range_that_is_none(required: int, limit: int, says: str) -> None:
    with pytest.raises(Refused, match=says) as refused:
        Range(required, limit)
    assert code(refused) == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (GIB, "1Gi"),
        (100 << 20, "100Mi"),
        (3 << 40, "3Ti"),
        (1536 << 20, "1536Mi"),
        (4096, "4Ki"),
        (GIB + 1, "1073741825"),
        (0, "0"),
    ],
)
def test_sizes_are_in_the_claim_s_own_unit(size: int, words: str) -> None:
    assert quantity(size) == words


# zones


def test_zones_of_the_same_name_belong_together() -> None:
    known = zones.learn(["az1", "az2"], ["az1", "az2", "az3"])
    assert known.for_machines("az1") == ("az1",)
    assert known.for_volumes("az3") == ()


@pytest.mark.parametrize(("machines", "volumes"), [(["a", "b"], ["nova"]), (["nova"], ["a", "b"]), (["a"], ["b"])])
def test_a_single_zone_serves_all(machines: list[str], volumes: list[str]) -> None:
    known = zones.learn(machines, volumes)
    assert all(set(known.for_machines(one)) == set(volumes) for one in machines)


def test_a_volume_in_use_proves_what_names_do_not() -> None:
    known = zones.learn(["rack1", "rack2", "az1"], ["west", "east", "az1"], seen=[("rack1", "west"), ("gone", "west")])
    assert known.for_machines("rack1") == ("west",)
    assert known.for_machines("rack2") == ()
    assert known.for_volumes("west") == ("rack1",)
    assert zones.learn(["rack1", "rack2"], ["west", "east"], ignore=True).for_machines("rack2") == ("east", "west")


KNOWN = zones.learn(["az1", "az2", "bare"], ["az1", "az2"])


def test_the_scheduler_s_choice_comes_first() -> None:
    assert zones.choose(KNOWN, preferred=["az2", "az1"], requisite=["az1", "az2"]) == zones.Place("az2", ("az2",))
    assert zones.choose(KNOWN, preferred=["bare"], requisite=["bare", "az1"]).zone == "az1"
    assert zones.choose(KNOWN) == zones.Place("", ())
    assert zones.choose(KNOWN, preferred=["az1"], requisite=["az1"], availability="az1").zone == "az1"


@pytest.mark.parametrize(
    ("demand", "expected"),
    [
        ({"requisite": ["bare"]}, "RESOURCE_EXHAUSTED"),
        ({"requisite": ["az1"], "availability": "az2"}, "RESOURCE_EXHAUSTED"),
        ({"requisite": ["az1"], "source": "az2"}, "RESOURCE_EXHAUSTED"),
        ({"availability": "az1", "source": "az2"}, "INVALID_ARGUMENT"),
    ],
)
def test_no_place(demand: dict[str, object], expected: str) -> None:
    with pytest.raises(Refused) as refused:
        zones.choose(KNOWN, **demand)  # pyright: ignore[reportArgumentType]
    assert code(refused) == expected


# ways of use


@pytest.mark.parametrize(
    ("access", "bad"),
    [
        (VolumeAccess("SINGLE_NODE_WRITER"), False),
        (VolumeAccess("SINGLE_NODE_WRITER", fs_type="xfs"), False),
        (VolumeAccess("SINGLE_NODE_WRITER", fs_type="btrfs"), True),
        (VolumeAccess("MULTI_NODE_MULTI_WRITER", block=True), False),
        (VolumeAccess("MULTI_NODE_MULTI_WRITER"), True),
        (VolumeAccess("MULTI_NODE_SINGLE_WRITER"), True),
        (VolumeAccess("MULTI_NODE_READER_ONLY"), False),
        (VolumeAccess("UNKNOWN", block=True), True),
    ],
)
def test_which_ways_of_use_there_are(access: VolumeAccess, bad: bool) -> None:
    assert bool(wrong(access)) is bad


# what to do


def attached(volume: Volume, *servers: str, state: DiskState = DiskState.IN_USE) -> Volume:
    return replace(
        volume, state=state, attached_server_ids=servers, attachments=tuple(Attachment(one, f"at-{one}") for one in servers)
    )


def attach(
    volume: Volume, *, several: bool = False, has: tuple[str, ...] = (), attaching: Collection[str] = (), limit: int = 256
) -> str:
    server = Server("s1", "one", "ACTIVE", "az1", "m1.small", volume_ids=has)
    return decide.attach(volume, server, several=several, attaching=attaching, limit=limit)


def test_attaching() -> None:
    assert attach(VOLUME) == "attach"
    assert attach(attached(VOLUME, "s1")) == "done"
    assert attach(attached(VOLUME, "s1", state=DiskState.DETACHING)) == "wait"
    assert attach(replace(VOLUME, state=DiskState.ATTACHING)) == "wait"
    assert attach(replace(attached(VOLUME, "s2"), multiattach=True), several=True) == "attach"
    for volume, several in ((attached(VOLUME, "s2"), True), (replace(attached(VOLUME, "s2"), multiattach=True), False)):
        with pytest.raises(Refused, match="attached to machine s2") as refused:
            attach(volume, several=several)
        assert code(refused) == "FAILED_PRECONDITION"
    with pytest.raises(Refused) as broken:
        attach(replace(VOLUME, state=DiskState.FAILED))
    assert code(broken) == "INTERNAL"


def test_a_machine_is_full_with_its_volumes_and_those_on_their_way() -> None:
    assert attach(VOLUME, has=("a",), attaching={"b", VOLUME.id}, limit=3) == "attach"
    with pytest.raises(Refused, match="machine one has its 2 volumes already") as full:
        attach(VOLUME, has=("a",), attaching={"b"}, limit=2)
    assert code(full) == "RESOURCE_EXHAUSTED"
    assert attach(attached(VOLUME, "s1"), has=("a", "b", VOLUME.id), limit=2) == "done"


def test_what_became_of_attaching() -> None:
    assert decide.attached(replace(VOLUME, state=DiskState.ATTACHING), "s1") is None
    assert decide.attached(attached(VOLUME, "s1"), "s1") == "done"
    assert decide.attached(VOLUME, "s1") == "failed"
    assert decide.attached(replace(attached(VOLUME, "s2"), multiattach=True), "s1") is None
    with pytest.raises(Refused):
        decide.attached(None, "s1")
    with pytest.raises(Refused):
        decide.attached(replace(VOLUME, state=DiskState.DEGRADED), "s1")


def test_detaching() -> None:
    assert decide.detach(None, "s1") == "done"
    assert decide.detach(VOLUME, "s1") == "done"
    assert decide.detach(attached(VOLUME, "s2"), "s1") == "done"
    assert decide.detach(attached(VOLUME, "s2"), "") == "detach"
    assert decide.detach(attached(VOLUME, "s1"), "s1") == "detach"
    assert decide.detach(attached(VOLUME, "s1", state=DiskState.DETACHING), "s1") == "wait"


def test_of_two_of_one_name_always_the_same_is_taken() -> None:
    later = replace(VOLUME, id="00000000-0000-4000-8000-000000000000", created=START + timedelta(seconds=1))
    going = replace(VOLUME, id="x", created=START - timedelta(seconds=1), state=DiskState.DELETING)
    assert decide.oldest([later, VOLUME, going]) == decide.oldest([VOLUME, going, later]) == VOLUME
    assert decide.oldest([going]) is None


@pytest.mark.parametrize(
    "other",
    [{"size": Range(3 * GIB)}, {"size": Range(0, GIB)}, {"type_name": "ssd"}, {"snapshot_id": "s"}, {"source_volume_id": "v"}],
)
def test_another_volume_of_the_same_name(other: dict[str, object]) -> None:
    same: dict[str, object] = {"size": Range(GIB, 2 * GIB), "type_name": "", "snapshot_id": "", "source_volume_id": ""}
    decide.adopt(VOLUME, **same)  # pyright: ignore[reportArgumentType]
    with pytest.raises(Refused) as refused:
        decide.adopt(VOLUME, **{**same, **other})  # pyright: ignore[reportArgumentType]
    assert code(refused) == "ALREADY_EXISTS"


def test_what_depends_on_a_volume_is_named() -> None:
    many = [Snapshot(f"i{number}", f"snap-{number}", "AVAILABLE", VOLUME.id, 1) for number in range(7)]
    why = decide.deletion_refusal(VOLUME, many)
    assert why is not None
    assert why.code == "FAILED_PRECONDITION"
    assert "7 snapshots depend" in why.message
    assert "snap-0" in why.message
    assert "2 more" in why.message
    assert decide.deletion_refusal(VOLUME, []) is None


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (NotFound("x"), "NOT_FOUND"),
        (QuotaExceeded("x"), "RESOURCE_EXHAUSTED"),
        (Conflict("x"), "ABORTED"),
        (Retriable("x"), "UNAVAILABLE"),
        (Terminal("x"), "INTERNAL"),
        (UsageError("x"), "INVALID_ARGUMENT"),
        (ValueError("x"), "INTERNAL"),
        (Refused("OUT_OF_RANGE", "x"), "OUT_OF_RANGE"),
    ],
)
def test_each_error_has_its_code(error: MoyaiError | Exception, expected: str) -> None:
    assert refusal(error).code == expected


# pages


@given(st.sets(st.uuids(), max_size=30), st.integers(1, 7))
def test_pages_tell_everything_once(ids: set[UUID], most: int) -> None:
    things, token, told = [str(one) for one in ids], "", list[str]()
    for _ in range(40):
        shown, token = page(things, str, token=token, most=most)
        told += shown
        if not token:
            break
        things.remove(shown[0])  # what was told may go meanwhile
    assert sorted(told) == sorted(str(one) for one in ids)


@pytest.mark.parametrize(("token", "most", "expected"), [("nonsense", 0, "ABORTED"), ("", -1, "INVALID_ARGUMENT")])
def test_wrong_pages(token: str, most: int, expected: str) -> None:
    with pytest.raises(Refused) as refused:
        page([], str, token=token, most=most)
    assert code(refused) == expected


# configuration, identity


def test_the_configuration_is_read_as_it_is_written() -> None:
    text = """[Global]
auth-url = "http://10.0.0.1:5000/v3"
application-credential-secret = "s\\"x"
[BlockStorage]
ignore-volume-az = true
node-volume-attach-limit = 12
trust-device-path = false
[Moyai]
cluster-uid = abc
[LoadBalancer]
enabled = false
"""
    config = read_csi_config(text, ADAPTER)
    assert config.storage.node_volume_attach_limit == 12
    assert config.storage.ignore_volume_az
    assert read_csi_config(write_csi_config(config), ADAPTER) == config
    assert read_csi_config("", ADAPTER).storage.node_volume_attach_limit == 256
    with pytest.raises(UsageError, match="between 1 and 256"):
        read_csi_config("[BlockStorage]\nnode-volume-attach-limit = 0", ADAPTER)


@pytest.mark.parametrize("text", ["unix:///csi/csi.sock", "unix:/csi/csi.sock", "/csi/csi.sock"])
def test_sockets(text: str) -> None:
    assert str(socket_path(text)) == "/csi/csi.sock"
    with pytest.raises(ValueError, match="unix"):
        socket_path("tcp://0.0.0.0:1")


def test_all_modes_of_csi_are_known() -> None:
    from moyai.csi.proto import csi_pb2 as pb

    assert set(get_args(Mode)) == set(pb.VolumeCapability.AccessMode.Mode.keys())


@pytest.mark.parametrize("mode", get_args(Mode))
def test_what_a_mode_permits_follows_from_its_name_in_csi(mode: Mode) -> None:
    access = VolumeAccess(mode)
    assert (access.several, access.read_only) == (mode.startswith("MULTI_NODE_"), mode.endswith("_READER_ONLY"))
