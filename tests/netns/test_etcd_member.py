"""A control plane's program beside real etcds: machines join, one after the other, and one that was lost is replaced."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

import moyai.bootstrap
from moyai.core.paths import default_paths
from moyai.core.progress import Reporter
from moyai.toolchain import Toolchain
from tests.netns.lb_world import until

PROGRAM = Path(moyai.bootstrap.__file__).with_name("data") / "etcd_member.py"
#: Of this process alone, so that two runs on one machine do not meet.
ADDRESSES = [f"127.{1 + os.getpid() // 250 % 250}.{1 + os.getpid() % 250}.{number}" for number in (1, 2, 3)]
CONFIG = "kind: InitConfiguration\n---\nkind: ClusterConfiguration\netcd: {local: {imageTag: x}}\n"


@pytest.fixture(scope="session")
def etcd() -> str:
    return str(Toolchain(default_paths(), Reporter()).ensure(["etcd"])["etcd"].files["etcd"])


class Machine:
    """A folder for a machine's root, and its etcd. ``number`` is of its address."""

    def __init__(self, root: Path, number: int, *, etcd: str) -> None:
        self.root, self.address, self.name, self._etcd = root, ADDRESSES[number], f"plane-{number}", etcd
        self.process: subprocess.Popen[bytes] | None = None
        (root / "etc/moyai").mkdir(parents=True)
        place = {"name": self.name, "address": self.address, "peers": [one for one in ADDRESSES if one != self.address]}
        (root / "etc/moyai/place.json").write_text(json.dumps(place))
        (root / "etc/moyai/kubeadm.yaml").write_text(CONFIG)

    def begin(self, command: str) -> subprocess.Popen[str]:
        environment = {"MOYAI_ROOT": str(self.root), "MOYAI_ETCD_SCHEME": "http", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        return subprocess.Popen([sys.executable, str(PROGRAM), command], env=environment, stdout=subprocess.PIPE, text=True)

    def run(self, command: str, *, expect: int = 0) -> str:
        with self.begin(command) as process:
            said, _ = process.communicate(timeout=60)
        assert process.returncode == expect, said
        return said

    def start(self, *flags: str) -> None:
        client, peer = f"http://{self.address}:2379", f"http://{self.address}:2380"
        words = [
            *(self._etcd, "--name", self.name, "--data-dir", str(self.root / "var/lib/etcd")),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, *flags),
        ]
        with (self.root / "log").open("wb") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log)

    def answers(self) -> bool:
        try:
            return bool(members(self.address))
        except OSError:
            return False

    def joined(self) -> str:
        """Join as the machine's script does; what the program said."""
        said = self.run("join")
        own = (self.root / "etc/moyai/own.yaml").read_text()
        flags = [line.partition("value: ")[2].strip() for line in own.splitlines() if "value: " in line]
        self.start("--initial-cluster", flags[0], "--initial-cluster-state", flags[1])
        return said + self.run("promote")

    def die(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def ask(address: str, path: str, **body: Any) -> dict[str, Any]:
    request = urllib.request.Request(f"http://{address}:2379{path}", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=5) as answer:
        return json.loads(answer.read())


def members(address: str = ADDRESSES[0]) -> dict[str, str]:
    """Name → whether it votes."""
    listed = ask(address, "/v3/cluster/member/list", linearizable=True)["members"]
    return {one.get("name", ""): "learner" if one.get("isLearner") else "voter" for one in listed}


Make = Callable[[int], Machine]


@pytest.fixture
def make(tmp_path: Path, etcd: str) -> Generator[Make]:
    made: list[Machine] = []

    def new(number: int) -> Machine:
        machine = Machine(tmp_path / str(len(made)), number, etcd=etcd)
        made.append(machine)
        return machine

    yield new
    for machine in made:
        machine.die()


def first(make: Make) -> Machine:
    machine = make(0)
    machine.run("found", expect=1)
    machine.start("--initial-cluster", f"{machine.name}=http://{machine.address}:2380")
    until("the first etcd", machine.answers, within=60)
    return machine


def test_three_machines_become_one_etcd_and_a_lost_one_is_replaced_with_what_was_written(make: Make) -> None:
    zero, one, two = first(make), make(1), make(2)
    one.run("found")
    one.joined()
    two.joined()
    assert members() == {"plane-0": "voter", "plane-1": "voter", "plane-2": "voter"}
    ask(zero.address, "/v3/kv/put", key="YQ==", value="Yg==")
    one.die()
    blank = make(1)
    blank.run("found")
    said = blank.joined()
    assert "removed the member of the machine that was here before" in said
    assert members() == {"plane-0": "voter", "plane-1": "voter", "plane-2": "voter"}
    assert ask(blank.address, "/v3/kv/range", key="YQ==")["kvs"][0]["value"] == "Yg=="


def test_two_machines_that_join_at_once_wait_for_each_other(make: Make) -> None:
    first(make)
    one, two = make(1), make(2)
    one.run("join")
    late = two.begin("join")
    time.sleep(1.5)
    assert late.poll() is None, "the second one was added while the first is a learner"
    one.start("--initial-cluster", _flag(one), "--initial-cluster-state", "existing")
    one.run("promote")
    late.communicate(timeout=60)
    assert late.returncode == 0
    assert members()[""] == "learner"


def test_where_no_majority_is_healthy_nothing_is_removed(make: Make) -> None:
    first(make)
    one, two = make(1), make(2)
    one.joined()
    two.joined()
    one.die()
    two.die()
    blank = make(1)
    joining = blank.begin("join")
    time.sleep(3)
    assert joining.poll() is None
    joining.kill()
    joining.communicate()
    listed = ask(ADDRESSES[0], "/v3/cluster/member/list")["members"]
    assert len(listed) == 3


def _flag(machine: Machine) -> str:
    own = (machine.root / "etc/moyai/own.yaml").read_text()
    return next(line.partition("value: ")[2].strip() for line in own.splitlines() if "value: plane" in line)
