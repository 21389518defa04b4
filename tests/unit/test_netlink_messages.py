"""Requests to the kernel as bytes: pyroute2, which reads the kernel's own messages, understands them as they are meant."""

from __future__ import annotations

import struct
from typing import Any, cast

import pytest
from pyroute2.netlink.rtnl.marshal import MarshalRtnl  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

from moyai.linux.netlink_messages import Answer, EntryChange, KernelNeighbour, KernelRoute, answers, request

ROUTE = KernelRoute("10.244.2.0/24", 77, gateway="10.244.2.0", index=7)
NEIGHBOUR = KernelNeighbour(7, "10.244.2.0", "0a:58:0a:00:00:02", forwarding=False)
FORWARDING = KernelNeighbour(7, "10.8.0.12", "0a:58:0a:00:00:02", forwarding=True)


def read(change: EntryChange) -> Any:
    (message,) = cast("Any", MarshalRtnl)().parse(request(change, 5))
    return message


def test_a_route_over_a_neighbour() -> None:
    message = read(EntryChange(ROUTE, onlink=True))
    assert (message["event"], message["dst_len"], message["proto"], message["table"]) == ("RTM_NEWROUTE", 24, 77, 254)
    assert message["flags"] == 4
    assert (message.get_attr("RTA_DST"), message.get_attr("RTA_GATEWAY"), message.get_attr("RTA_OIF")) == (
        "10.244.2.0",
        "10.244.2.0",
        7,
    )
    assert message["header"]["sequence_number"] == 5


def test_a_route_that_leads_nowhere() -> None:
    message = read(EntryChange(KernelRoute("10.244.0.0/16", 77, metric=9999, unreachable=True)))
    assert (message["type"], message.get_attr("RTA_PRIORITY"), message.get_attr("RTA_OIF")) == (7, 9999, None)


@pytest.mark.parametrize(
    ("entry", "family", "state"), [(NEIGHBOUR, 2, 0x80), (FORWARDING, 7, 0xC0)], ids=["neighbour", "forwarding"]
)
def test_entries(entry: KernelNeighbour, family: int, state: int) -> None:
    message = read(EntryChange(entry))
    assert (message["event"], message["family"], message["ifindex"], message["state"]) == ("RTM_NEWNEIGH", family, 7, state)
    assert (message.get_attr("NDA_DST"), message.get_attr("NDA_LLADDR")) == (entry.address, entry.mac)


@pytest.mark.parametrize(("entry", "event"), [(ROUTE, "RTM_DELROUTE"), (FORWARDING, "RTM_DELNEIGH")])
def test_an_entry_goes(entry: KernelRoute | KernelNeighbour, event: str) -> None:
    message = read(EntryChange(entry, gone=True))
    assert message["event"] == event
    # create and replace
    assert not message["header"]["flags"] & 0x500


def test_the_kernels_answers_name_the_request_and_the_error() -> None:
    def answer(sequence: int, error: int) -> bytes:
        return struct.pack("=IHHIIi", 36, 2, 0, sequence, 99, -error) + bytes(16)

    assert list(answers(answer(1, 0) + answer(2, 17))) == [Answer(1, 0), Answer(2, 17)]
    assert list(answers(b"\x03\x00\x00\x00")) == []
