"""What a program in a pod prints comes over Kubernetes' channels, whole, or with the reason why not."""

from __future__ import annotations

import io
import json
import struct

import pytest

from moyai.kube import websocket
from moyai.kube.websocket import Broken, Printed, read

SUCCESS = b'{"status": "Success"}'


def frame(data: bytes, opcode: int = 2, *, final: bool = True) -> bytes:
    head = bytes([(0x80 if final else 0) | opcode])
    if len(data) < 126:
        return head + bytes([len(data)]) + data
    if len(data) < 65536:
        return head + bytes([126]) + struct.pack("!H", len(data)) + data
    return head + bytes([127]) + struct.pack("!Q", len(data)) + data


class Sent:
    def __init__(self) -> None:
        self.data = b""

    def sendall(self, data: bytes, /) -> None:
        self.data += data


def come(*frames: bytes) -> Printed:
    return read(io.BytesIO(b"".join(frames)), Sent())


def test_output_errors_and_the_status_are_kept_apart() -> None:
    found = come(frame(b"\1he"), frame(b"\2oops"), frame(b"\1llo"), frame(b"\1"), frame(b"\3" + SUCCESS), frame(b"", 8))
    assert (found.output, found.errors, found.succeeded) == ("hello", "oops", True)


@pytest.mark.parametrize("size", [125, 126, 65535, 65536, 200_000])
def test_frames_of_each_form_of_length_are_whole(size: int) -> None:
    assert len(come(frame(b"\1" + b"x" * (size - 1)), frame(b"", 8)).output) == size - 1


def test_a_message_in_parts_has_its_channel_once() -> None:
    assert come(frame(b"\1a", final=False), frame(b"b", 0, final=False), frame(b"\1c", 0), frame(b"", 8)).output == "ab\1c"


def test_a_ping_is_answered_masked() -> None:
    sent = Sent()
    read(io.BytesIO(frame(b"yo", 9) + frame(b"", 8)), sent)
    mask, data = sent.data[2:6], sent.data[6:]
    assert sent.data[:2] == b"\x8a\x82"
    assert bytes(one ^ mask[at % 4] for at, one in enumerate(data)) == b"yo"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "ended early"),
        (frame(b"\1abc")[:-1], "ended early"),
        (b"\x82\x81\0\0\0\0\1", "masked"),
        (b"\x82\x7f" + struct.pack("!Q", websocket.LIMIT + 1), "more than"),
    ],
)
def test_a_connection_that_breaks_the_protocol_is_no_answer(data: bytes, why: str) -> None:
    with pytest.raises(Broken, match=why):
        read(io.BytesIO(data), Sent())


def test_a_status_that_is_none_is_no_success() -> None:
    assert not come(frame(b"\3nonsense"), frame(b"", 8)).succeeded
    assert come(frame(b"\3" + json.dumps({"status": "Failure", "message": "exit 3"}).encode()), frame(b"", 8)).status["message"]


def test_what_is_passed_on_may_be_longer_than_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "LIMIT", 5)
    frames = io.BytesIO(frame(b"\1abcd") * 3 + frame(b"\3{}") + frame(b"", 8))
    passed = websocket.Passed(frames, Sent())
    assert (list(passed), passed.printed) == ([b"abcd"] * 3, Printed("", "", {}))
    with pytest.raises(Broken, match="more than 5 bytes"):
        list(websocket.Passed(io.BytesIO(frame(b"\1abcde")), Sent()))


@pytest.mark.parametrize("size", [1, 125, 126, 20_000])
def test_what_the_program_reads_goes_in_masked_frames(size: int) -> None:
    sent = Sent()
    given = bytes(number % 251 for number in range(size))
    websocket.write(sent, given)
    stream, read_back = io.BytesIO(sent.data), b""
    while head := stream.read(2):
        assert head[0] == 0x82
        length = head[1] & 0x7F
        assert head[1] & 0x80, "a client masks"
        if length == 126:
            (length,) = struct.unpack("!H", stream.read(2))
            assert length > 125
        mask = stream.read(4)
        piece = bytes(one ^ mask[at % 4] for at, one in enumerate(stream.read(length)))
        assert piece[0] == 0, "standard input"
        read_back += piece[1:]
    assert read_back == given
