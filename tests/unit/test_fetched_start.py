"""A machine's start that is fetched by a small script: in a real shell, from a real server on loopback."""

from __future__ import annotations

import base64
import subprocess
import threading
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from moyai.bootstrap.fetched_start import fetched_start
from moyai.cloud.nifcloud.nifcloud_limits import USER_DATA_BYTES
from moyai.core.errors import UsageError

CONTENT = b'#!/bin/sh\necho ran >>"$RESULT"\n'


class Served:
    """Path → what is answered there."""

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.address = ""


@pytest.fixture
def served() -> Generator[Served]:
    made = Served()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append(self.path)
            body = made.content.get(self.path)
            self.send_response(404 if body is None else 200)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


def run(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": "/usr/bin:/bin",
        "RESULT": str(folder / "result"),
        "MOYAI_START_FOLDER": str(folder / "run"),
        "MOYAI_START_DONE": str(folder / "lib"),
        "MOYAI_START_PAUSE": "0.05",
    }
    (folder / "user-data").write_text(script)
    return subprocess.run(["sh", str(folder / "user-data")], env=environment, capture_output=True, text=True, timeout=60)


def later(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def result(folder: Path) -> str:
    file = folder / "result"
    return file.read_text() if file.exists() else ""


def test_the_content_runs_once_and_is_not_left_behind(served: Served, tmp_path: Path) -> None:
    served.content["/t0k3n"] = CONTENT
    script = fetched_start(CONTENT, [f"{served.address}/gone", f"{served.address}/t0k3n"], until=later(30))
    assert len(base64.b64encode(script.encode())) < USER_DATA_BYTES / 2
    assert run(tmp_path, script).returncode == 0
    assert run(tmp_path, script).returncode == 0
    assert result(tmp_path) == "ran\n"
    assert list((tmp_path / "run").iterdir()) == []
    assert served.asked == ["/gone", "/t0k3n"]


def test_other_content_is_never_run(served: Served, tmp_path: Path) -> None:
    served.content["/x"] = CONTENT + b"echo more\n"
    done = run(tmp_path, fetched_start(CONTENT, [f"{served.address}/x"], until=later(2)))
    assert done.returncode == 1
    assert "in time" in done.stderr
    assert result(tmp_path) == ""


def test_a_place_that_has_it_later_is_asked_again(served: Served, tmp_path: Path) -> None:
    threading.Timer(0.3, lambda: served.content.update({"/x": CONTENT})).start()
    assert run(tmp_path, fetched_start(CONTENT, [f"{served.address}/x"], until=later(30))).returncode == 0
    assert result(tmp_path) == "ran\n"


def test_after_the_end_nothing_is_asked(served: Served, tmp_path: Path) -> None:
    served.content["/x"] = CONTENT
    assert run(tmp_path, fetched_start(CONTENT, [f"{served.address}/x"], until=later(-1))).returncode == 1
    assert served.asked == []


def test_a_start_that_failed_is_tried_by_the_next_boot(served: Served, tmp_path: Path) -> None:
    content = b'#!/bin/sh\necho try >>"$RESULT"\n[ "$(wc -l <"$RESULT")" -ge 2 ]\n'
    served.content["/x"] = content
    script = fetched_start(content, [f"{served.address}/x"], until=later(30))
    assert run(tmp_path, script).returncode == 1
    assert run(tmp_path, script).returncode == 0
    assert run(tmp_path, script).returncode == 0
    assert result(tmp_path) == "try\ntry\n"


@pytest.mark.parametrize("address", ["", "ftp://x/y", "http://x/'; rm -rf /", "http://x/$(id)", "http://x/ y"])
def test_an_address_that_the_shell_would_read_is_refused(address: str) -> None:
    with pytest.raises(UsageError):
        fetched_start(CONTENT, [address], until=later(1))


def test_no_address_is_refused() -> None:
    with pytest.raises(UsageError, match="at least one address"):
        fetched_start(CONTENT, [], until=later(1))
