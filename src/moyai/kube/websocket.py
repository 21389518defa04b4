"""What a program in a pod prints, over a WebSocket (RFC 6455) with Kubernetes' channels (``v4.channel.k8s.io``).

Standard library only, and this side alone of the protocol: it sends what the program reads first, and answers to pings. The
protocol cannot say that nothing more comes, so the program must know where its input ends. Always holds: what is kept in memory
is at most ``LIMIT`` bytes.
"""

from __future__ import annotations

import base64
import json
import secrets
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Protocol, cast

from moyai.kube.resources import Json

PROTOCOL = "v4.channel.k8s.io"
#: Bytes of what a program prints that are kept; of one frame, where what comes is passed on.
LIMIT = 1 << 26
_INPUT, _OUTPUT, _ERRORS, _STATUS = 0, 1, 2, 3
_FINAL, _OPCODE, _MASKED, _LENGTH = 0x80, 0x0F, 0x80, 0x7F
_CONTINUATION, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x2, 0x8, 0x9, 0xA
#: Bytes of input in one frame.
_PIECE = 1 << 14


class Broken(Exception):
    """The other side does not keep to the protocol, or ended the connection early. Its text: what happened."""


class Sender(Protocol):
    def sendall(self, data: bytes, /) -> object: ...


@dataclass(frozen=True)
class Printed:
    """``status``: what Kubernetes says of the end (meta/v1 Status); ``{}`` where it says nothing."""

    output: str
    errors: str
    status: Json

    @property
    def succeeded(self) -> bool:
        return self.status.get("status") == "Success"


def headers() -> Mapping[str, str]:
    """What the request that opens the connection says beside its path."""
    return {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": _key(),
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Protocol": PROTOCOL,
    }


def write(sender: Sender, data: bytes) -> None:
    """Give the program something to read. Raises OSError of the connection."""
    for at in range(0, len(data), _PIECE):
        sender.sendall(_frame(_BINARY, bytes((_INPUT,)) + data[at : at + _PIECE]))


def read(stream: BinaryIO, sender: Sender) -> Printed:
    """All that comes until the other side closes. Raises Broken, and OSError of the connection."""
    channels = {number: bytearray() for number in (_OUTPUT, _ERRORS, _STATUS)}
    size = 0
    for channel, data in _pieces(stream, sender):
        size += len(data)
        if size > LIMIT:
            raise Broken(f"more than {LIMIT} bytes")
        channels[channel] += data
    output, errors = (channels[one].decode(errors="replace") for one in (_OUTPUT, _ERRORS))
    return Printed(output, errors, _status(bytes(channels[_STATUS])))


class Passed:
    """What a program prints, piece by piece, however much it is; once all has been iterated over, ``printed`` has the rest.

    Iterating raises Broken, and OSError of the connection.
    """

    def __init__(self, stream: BinaryIO, sender: Sender) -> None:
        self._stream, self._sender = stream, sender
        self.printed = Printed("", "", {})

    def __iter__(self) -> Iterator[bytes]:
        kept = {number: bytearray() for number in (_ERRORS, _STATUS)}
        for channel, data in _pieces(self._stream, self._sender):
            if channel == _OUTPUT:
                yield data
            else:
                kept[channel] += data
        self.printed = Printed("", kept[_ERRORS].decode(errors="replace"), _status(bytes(kept[_STATUS])))


def _pieces(stream: BinaryIO, sender: Sender) -> Iterator[tuple[int, bytes]]:
    """(channel, data) of the known channels, as they come."""
    channel: int | None = None
    while True:
        first, second = _exactly(stream, 2)
        if second & _MASKED:
            raise Broken("a masked frame")
        length = second & _LENGTH
        if length == 126:
            (length,) = struct.unpack("!H", _exactly(stream, 2))
        elif length == 127:
            (length,) = struct.unpack("!Q", _exactly(stream, 8))
        if length > LIMIT:
            raise Broken(f"more than {LIMIT} bytes")
        data, opcode = _exactly(stream, length), first & _OPCODE
        if opcode == _CLOSE:
            return
        if opcode == _PING:
            sender.sendall(_frame(_PONG, data[:125]))
        elif opcode != _PONG:
            if opcode != _CONTINUATION and data:
                # each message begins with the number of its channel
                channel, data = data[0], data[1:]
            if channel in (_OUTPUT, _ERRORS, _STATUS) and data:
                yield channel, data
            if first & _FINAL:
                channel = None


def _key() -> str:
    return base64.b64encode(secrets.token_bytes(16)).decode()


def _frame(opcode: int, data: bytes) -> bytes:
    mask = secrets.token_bytes(4)
    masked = bytes(one ^ mask[at % 4] for at, one in enumerate(data))
    size = len(data)
    head = bytes((_FINAL | opcode, _MASKED | min(size, 126))) + (struct.pack("!H", size) if size > 125 else b"")
    return head + mask + masked


def _exactly(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count) if count else b""
    if len(data) != count:
        raise Broken("the connection ended early")
    return data


def _status(data: bytes) -> Json:
    try:
        found: object = json.loads(data) if data else {}
    except ValueError:
        return {}
    return cast("Json", found) if isinstance(found, dict) else {}
