"""A server that ends in the middle of its answer: each client of ours says so in its own words, or does without."""

from __future__ import annotations

import socket
import threading
from collections.abc import Generator
from pathlib import Path

import pytest

from moyai.cloud.openstack import guest
from moyai.core.errors import Retriable
from moyai.core.progress import Progress
from moyai.toolchain import release
from moyai.toolchain.pins import Pin, Release
from tests.machine_programs import load

#: A body that is shorter than it says, and an answer that is none.
SHORT, GARBLED = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", b"\x00\x01 nothing\r\n\r\n"


@pytest.fixture(params=[SHORT, GARBLED], ids=["short", "garbled"])
def server(request: pytest.FixtureRequest) -> Generator[str]:
    """HOST:PORT of a server that gives half an answer to each request."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    stream, _ = listening.accept()
                except OSError:
                    return
                with stream:
                    stream.recv(65536)
                    stream.sendall(request.param)
                    stream.shutdown(socket.SHUT_WR)
                    # What is left of the request must be read: closing before it has come resets the connection.
                    while stream.recv(65536):
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        host, port = listening.getsockname()
        yield f"{host}:{port}"
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_the_program_that_joins_etcd_asks_the_next_member(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    etcd = load("etcd_member")
    monkeypatch.setattr(etcd, "SCHEME", "http")
    with pytest.raises(OSError, match="no etcd answers: half an answer: "):
        etcd.members_at([server, server])


def test_the_program_that_takes_the_key_goes_on_without_the_metadata_service(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = load("unsealing_key")
    monkeypatch.setattr(key, "URL", f"http://{server}/")
    assert key.from_service() is None


def test_a_node_plugin_asks_again_where_it_is(server: str) -> None:
    assert guest.find(notes=(), get=lambda: guest.fetch(f"http://{server}/")) is None


def test_a_release_file_is_refused_in_one_line(server: str, tmp_path: Path) -> None:
    wanted = Release(f"http://{server}/file", "0" * 64, "")
    with pytest.raises((Retriable, release.ChecksumMismatch), match="tool"):
        release.fetch(
            Pin("tool", "1.0", ("a",), "abc"),
            wanted,
            target=tmp_path,
            step=Progress("tool", lambda _: None, elapsed=lambda: 0.0),
        )
