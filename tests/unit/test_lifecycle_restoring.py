"""The step that sends etcd's data: what the machine answers, and when the step gives up."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from moyai.cloud.memory import MemoryCloud
from moyai.core.errors import Retriable, Terminal
from moyai.core.progress import Progress
from moyai.kube.quick import KubeApi
from moyai.lifecycle.etcd_data import EtcdData
from moyai.lifecycle.execute import Context, Restoring
from moyai.plan import keys
from moyai.plan import steps as s
from tests.fakes.clock import FakeClock

STEP = s.SendEtcdData(key=keys.server("p-0"), node="p-0", address="10.8.0.10")


@dataclass
class Machine:
    """Answers each sending with the next of ``answers``; the last one for ever. ``serves``: its API server is ready."""

    answers: list[tuple[int, str] | Exception]
    serves: bool = False
    got: list[bytes] = field(default_factory=list[bytes])
    server = "https://192.0.2.1:6443"

    def ready(self) -> bool:
        return self.serves

    def send(self, path: str, content: BinaryIO, *, size: int, headers: dict[str, str], timeout: float) -> tuple[int, str]:
        data = content.read()
        assert (path, len(data), hashlib.sha256(data).hexdigest()) == ("/moyai/etcd", size, headers["X-Sha256"])
        self.got.append(data)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def run(machine: Machine, folder: Path) -> list[str]:
    said: list[str] = []
    clock = FakeClock()
    context = Context(MemoryCloud(), None, uid="u", clock=clock, open_api=lambda: cast("KubeApi", machine))
    context.use(keys.server("p-0"), "id")

    def data(node: str, address: str) -> EtcdData:
        file = folder / "etcd.tar.gz"
        file.write_text(f"{node} {address}")
        return EtcdData(file, file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest())

    progress = Progress("send", lambda event: said.append(event.detail), elapsed=clock.monotonic)
    Restoring(context, data=data).handlers()[s.SendEtcdData](STEP, progress)
    return said


def test_the_machine_boots_is_busy_and_takes_the_data(tmp_path: Path) -> None:
    machine = Machine([Retriable("no answer"), (409, '{"said": "somebody sends them already"}'), (200, "{}")])
    assert run(machine, tmp_path) == ["no answer", "server p-0 does not take etcd's data yet: somebody sends them already"]
    assert machine.got == [b"p-0 10.8.0.10"] * 3


def test_an_answer_that_was_lost_is_no_harm(tmp_path: Path) -> None:
    """The machine has the data, and its API server begins: it knows no such path."""

    class Begins(Machine):
        def send(self, *words: object, **more: object) -> tuple[int, str]:
            self.serves = True
            return 404, "404 page not found"

    run(Begins([]), tmp_path)
    machine = Machine([], serves=True)
    run(machine, tmp_path)
    assert machine.got == []


def test_data_that_the_machine_cannot_use_are_not_sent_again(tmp_path: Path) -> None:
    machine = Machine([(400, '{"said": "it has no data of etcd"}')])
    with pytest.raises(Terminal, match="server p-0 does not take etcd's data: it has no data of etcd"):
        run(machine, tmp_path)
    assert len(machine.got) == 1


def test_a_machine_that_never_listens_is_named(tmp_path: Path) -> None:
    why = r"waited 300 s for server p-0 to take etcd's data: no answer; .*the same command goes on"
    with pytest.raises(Terminal, match=why):
        run(Machine([Retriable("no answer")]), tmp_path)
