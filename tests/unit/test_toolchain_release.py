"""Release files: hosts are asked once and in the background; only what has the pinned checksum is unpacked."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from moyai.core.errors import MoyaiError, Retriable
from moyai.core.progress import Event, Progress
from moyai.toolchain.pins import Pin, Release
from moyai.toolchain.release import ChecksumMismatch, Hosts, answers, fetch

PIN = Pin("tool", "1.0", ("a", "b"), "abc")


def _archive(files: dict[str, bytes], link: str | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        if link:
            member = tarfile.TarInfo(link)
            member.type = tarfile.SYMTYPE
            member.linkname = "/etc/passwd"
            tar.addfile(member)
    return buffer.getvalue()


class _Server:
    """A web server on this host that serves ``files`` by path; ``cut`` sends only half of them."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cut = False
        self.requests: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self._answer(body=False)

            def do_GET(self) -> None:
                self._answer(body=True)

            def _answer(self, *, body: bool) -> None:
                outer.requests.append(f"{self.command} {self.path}")
                content = outer.files.get(self.path)
                self.send_response(200 if content is not None else 404)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                if body and content:
                    self.wfile.write(content[: len(content) // 2] if outer.cut else content)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Generator[_Server]:
    made = _Server()
    yield made
    made.close()


def _release(server: _Server, content: bytes, *, folder: str = "x/bin") -> Release:
    server.files["/tool.tgz"] = content
    return Release(f"{server.url}/tool.tgz", hashlib.sha256(content).hexdigest(), folder)


def _step(events: list[Event]) -> Progress:
    return Progress("tool", events.append, elapsed=lambda: 0.0)


@pytest.mark.parametrize(("folder", "prefix"), [("x/bin", "x/bin/"), ("", "./"), ("", "")])
def test_the_pinned_programs_and_nothing_else(server: _Server, tmp_path: Path, folder: str, prefix: str) -> None:
    content = _archive({f"{prefix}a": b"A", f"{prefix}b": b"B", f"{prefix}c": b"C", "../evil": b"!", "y/a": b"other"})
    events: list[Event] = []
    assert fetch(PIN, _release(server, content, folder=folder), target=tmp_path, step=_step(events)).startswith(
        "release file from 127.0.0.1"
    )
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"A", "b": b"B"}
    assert max(event.fraction or 0 for event in events) == 1


def test_a_wrong_checksum_says_what_was_expected_and_what_came(server: _Server, tmp_path: Path) -> None:
    release = _release(server, _archive({"x/bin/a": b"A", "x/bin/b": b"B"}))
    server.files["/tool.tgz"] = other = _archive({"x/bin/a": b"evil", "x/bin/b": b"B"})
    with pytest.raises(ChecksumMismatch) as caught:
        fetch(PIN, release, target=tmp_path, step=_step([]))
    assert f"expected {release.sha256}, got {hashlib.sha256(other).hexdigest()}" in str(caught.value)
    assert not (tmp_path / "a").exists()


def test_a_download_that_breaks_off_is_never_taken(server: _Server, tmp_path: Path) -> None:
    release = _release(server, _archive({"x/bin/a": bytes(range(256)) * 64, "x/bin/b": b"B"}))
    server.cut = True
    with pytest.raises((Retriable, ChecksumMismatch)):
        fetch(PIN, release, target=tmp_path, step=_step([]))
    assert not (tmp_path / "a").exists()


def test_a_host_that_is_gone_is_retriable(server: _Server, tmp_path: Path) -> None:
    release = _release(server, b"")
    server.close()
    with pytest.raises(Retriable, match=r"tool cannot be fetched from 127\.0\.0\.1"):
        fetch(PIN, release, target=tmp_path, step=_step([]))


@pytest.mark.parametrize("link", [None, "x/bin/b"])
def test_a_program_that_is_missing_or_no_file_is_named(server: _Server, tmp_path: Path, link: str | None) -> None:
    with pytest.raises(MoyaiError, match="not in the release file: b"):
        fetch(PIN, _release(server, _archive({"x/bin/a": b"A"}, link)), target=tmp_path, step=_step([]))


def test_whether_a_host_answers(server: _Server) -> None:
    server.files["/there"] = b"x"
    assert answers(f"{server.url}/there")
    assert not answers(f"{server.url}/not-there")
    assert server.requests == ["HEAD /there", "HEAD /not-there"]
    server.close()
    assert not answers(f"{server.url}/there")


def test_each_host_is_asked_once_and_all_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=5)
    asked: list[str] = []

    def ask(url: str) -> bool:
        asked.append(url)
        both.wait()  # passes only if the other host is being asked meanwhile
        return "good" in url

    hosts = Hosts(ask, patience=5)
    hosts.start(["https://good/1", "https://bad/1", "https://good/2"])
    assert (hosts.answer("https://good/2"), hosts.answer("https://bad/3"), hosts.answer("https://good/9")) == (
        True,
        False,
        True,
    )
    assert sorted(asked) == ["https://bad/1", "https://good/1"]


def test_a_host_that_is_silent_counts_as_out_of_reach_for_good() -> None:
    late = threading.Event()
    told = threading.Event()

    def ask(url: str) -> bool:
        late.wait(5)
        told.set()
        return True

    hosts = Hosts(ask, patience=0.01)
    assert hosts.answer("https://slow/1") is False
    late.set()
    assert told.wait(5)
    assert hosts.answer("https://slow/1") is False


def test_an_error_while_asking_counts_as_no() -> None:
    def ask(url: str) -> bool:
        raise RuntimeError("no such thing")

    assert Hosts(ask).answer("https://odd/1") is False
