"""What a caller sees of a supervisor that is absent, or that ends while it is asked."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from moyai.core.errors import MoyaiError, Retriable
from moyai.localcloud.control import Control

ANSWER = json.dumps({"services": []}).encode() + b"\n"


class Supervisor:
    """Answers one request as ``answer`` does, and ends."""

    def __init__(self, file: Path, answer: Callable[[socket.socket], None]) -> None:
        self.control = Control(file)
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(file))
        self._server.listen()
        self._answer = answer
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        channel, _ = self._server.accept()
        with channel:
            self._answer(channel)

    def __enter__(self) -> Control:
        self._thread.start()
        return self.control

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._server.close()


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # a socket's path may have only about 100 characters
    monkeypatch.chdir(tmp_path)
    return Path("sock")


def _ends_before_it_reads(channel: socket.socket) -> None:
    # closed with a request that nobody has read, the connection is reset
    channel.recv(1, socket.MSG_PEEK)


def _ends_after_it_read(channel: socket.socket) -> None:
    channel.recv(4096)


def _wait(control: Control) -> None:
    control.wait_ready(["one"], 60)


def _restart(control: Control) -> None:
    control.restart(["one"])


def test_without_a_supervisor_there_is_one_line(file: Path) -> None:
    for ask in (Control.status, Control.reload, _wait):
        with pytest.raises(Retriable, match="does not answer"):
            ask(Control(file))


@pytest.mark.parametrize("answer", [_ends_before_it_reads, _ends_after_it_read])
@pytest.mark.parametrize("ask", [Control.status, Control.reload, _wait])
def test_a_supervisor_that_ends_before_it_answers_may_be_asked_again(
    file: Path, answer: Callable[[socket.socket], None], ask: Callable[[Control], object]
) -> None:
    with Supervisor(file, answer) as control, pytest.raises(Retriable, match="went away"):
        ask(control)


def test_a_reload_returns_once_the_old_supervisor_has_ended(file: Path) -> None:
    still_asked: list[bool] = []

    def answer(channel: socket.socket) -> None:
        channel.recv(4096)
        channel.sendall(ANSWER)
        channel.settimeout(0.05)
        try:
            still_asked.append(channel.recv(1) != b"")
        except TimeoutError:
            still_asked.append(True)

    with Supervisor(file, answer) as control:
        control.reload()
    assert still_asked == [True]


@pytest.mark.parametrize("ask", [Control.status, Control.reload, _restart])
def test_a_supervisor_that_stays_silent_does_not_answer(
    file: Path, monkeypatch: pytest.MonkeyPatch, ask: Callable[[Control], object]
) -> None:
    monkeypatch.setattr("moyai.localcloud.control.ANSWER_SECONDS", 0.01)
    done = threading.Event()

    def silent(_: socket.socket) -> None:
        done.wait()

    with Supervisor(file, silent) as control:
        with pytest.raises(Retriable, match="does not answer"):
            ask(control)
        done.set()


def test_a_wait_that_runs_out_names_the_services_that_are_missing(file: Path) -> None:
    done = threading.Event()

    def silent(_: socket.socket) -> None:
        done.wait()

    with Supervisor(file, silent) as control:
        with pytest.raises(MoyaiError, match="not ready after 0 s: one"):
            control.wait_ready(["one"], 0.01)
        done.set()
