"""Marked packets are recognised wherever they pass, and their sightings become one way."""

from __future__ import annotations

import socket
import struct
from typing import Any

import pytest

from moyai.diagnose.network.live import joined
from moyai.kube.resources import Json
from moyai.linux import packet_watch
from moyai.linux.packet_watch import recognise

MARK, OTHER = b"\x01\x02\x03\x04", b"\x09\x09\x09\x09"
MARKS, PORT = frozenset({MARK}), 8472


def ip(protocol: int, body: bytes, *, source: str = "10.244.1.5", destination: str = "10.244.2.5", ttl: int = 64) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, ttl, protocol, 0)
    return head + socket.inet_aton(source) + socket.inet_aton(destination) + body


def tcp(*, sequence: bytes = b"\0\0\0\0", acknowledged: int = 0, flags: int) -> bytes:
    return ip(6, struct.pack("!HH4sIBBHHH", 5, 80, sequence, acknowledged, 80, flags, 0, 0, 0))


def udp(data: bytes, port: int = 9) -> bytes:
    return ip(17, struct.pack("!HHHH", 5, port, 8 + len(data), 0) + data)


def vxlan(inner: bytes, vni: int = 77) -> bytes:
    header = struct.pack("!B3x", 8) + vni.to_bytes(3, "big") + b"\0"
    data = header + bytes(12) + b"\x08\x00" + inner
    body = struct.pack("!HHHH", 5, PORT, 8 + len(data), 0) + data
    return ip(17, body, source="10.8.0.11", destination="10.8.0.12")


def says(packet: bytes) -> str | None:
    found = recognise(packet, MARKS, port=PORT)
    return None if found is None else found["says"]


def test_each_kind_of_marked_packet_is_recognised_and_no_other() -> None:
    assert says(tcp(sequence=MARK, flags=2)) == ""
    assert says(tcp(sequence=OTHER, acknowledged=0x01020305, flags=0x12)) == "accepted (SYN, ACK)"
    assert says(tcp(acknowledged=0x01020305, flags=0x14)) == "refused (RST)"
    assert says(udp(MARK + b"more")) == ""
    assert says(ip(1, b"\x08\0\0\0\0\0\0\0" + MARK)) == ""
    assert says(ip(1, b"\0\0\0\0\0\0\0\0" + MARK)) == "echo reply"
    assert says(ip(1, b"\x03\x0d\0\0\0\0\0\0" + tcp(sequence=MARK, flags=2)[:28])) == "ICMP: unreachable (code 13)"
    for packet in (tcp(sequence=OTHER, flags=2), tcp(sequence=MARK, flags=0x10), udp(OTHER), ip(1, b"\x03" + bytes(7))):
        assert says(packet) is None


@pytest.mark.parametrize("length", range(0, 70, 3))
def test_a_packet_that_is_cut_short_is_no_error(length: int) -> None:
    for packet in (vxlan(tcp(sequence=MARK, flags=2)), ip(1, b"\x03\x0d" + bytes(6) + udp(MARK)), udp(b"")):
        recognise(packet[:length], MARKS, port=PORT)


def test_vxlan_is_opened() -> None:
    found = recognise(vxlan(tcp(sequence=MARK, flags=2)), MARKS, port=PORT)
    assert found == {
        "mark": MARK.hex(),
        "source": "10.244.1.5",
        "destination": "10.244.2.5",
        "ttl": 64,
        "says": "",
        "vni": 77,
        "outer": ["10.8.0.11", "10.8.0.12"],
    }


def test_what_is_sent_is_recognised_and_its_checksums_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    syn = packet_watch._syn("10.0.0.1", "10.0.0.2", port=80, mark=MARK)  # pyright: ignore[reportPrivateUsage]
    assert says(ip(6, syn)) == ""
    pseudo = socket.inet_aton("10.0.0.1") + socket.inet_aton("10.0.0.2") + struct.pack("!BBH", 0, 6, len(syn))
    assert packet_watch._checksum(pseudo + syn) == 0  # pyright: ignore[reportPrivateUsage]
    echo = packet_watch._echo(MARK)  # pyright: ignore[reportPrivateUsage]
    assert says(ip(1, echo)) == ""
    assert packet_watch._checksum(echo) == 0  # pyright: ignore[reportPrivateUsage]


def seen(at: float, link: str, *, direction: str = "in", **more: Any) -> Json:
    plain = {"mark": "01", "source": "10.244.1.5", "destination": "10.244.2.5", "ttl": 64, "says": ""}
    return {"time": at, "link": link, "direction": direction, **plain, **more}


def test_sightings_become_the_way_of_the_packet_that_was_seen_most_often() -> None:
    outer = ["10.8.0.11", "10.8.0.12"]
    found = {
        "n1": [
            seen(1.0, "veth5", mark="00"),
            seen(2.0, "veth5"),
            seen(2.0001, "ens3", direction="out", vni=1, outer=outer),
            seen(2.0005, "veth5", direction="out", says="accepted (SYN, ACK)", source="10.244.2.5", destination="10.244.1.5"),
        ],
        "n2": [seen(2.0002, "ens3", vni=1, outer=outer)],
    }
    made = joined(found, source="n1", sent=6)
    assert [(one.node, one.link, one.direction) for one in made.sightings] == [
        ("n1", "veth5", "in"),
        ("n1", "ens3", "out"),
        ("n2", "ens3", "in"),
        ("n1", "veth5", "out"),
    ]
    assert made.answer == "accepted (SYN, ACK)"
    assert made.last is not None
    assert made.last.node == "n2"
    assert (
        made.sightings[1].text.strip()
        == "100 µs  ens3 out: 10.244.1.5 → 10.244.2.5, ttl 64 in VXLAN, VNI 1, 10.8.0.11 → 10.8.0.12"
    )


def test_nobody_who_has_seen_anything_is_an_answer_too() -> None:
    made = joined({"n1": [], "n2": []}, source="n1", sent=6)
    assert (made.sightings, made.last, made.answer) == ((), None, "")
