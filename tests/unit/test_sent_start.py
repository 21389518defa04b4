"""What a machine does with the start that is sent to it: the scripts, run by a real shell."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from moyai.bootstrap.sent_start import SentStart, StartVerdict, as_script, sent_start, verdict_of

PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAA moyai"
CONTENT = '#!/bin/sh\necho run >>"$MOYAI_RUNS"\n'


class Machine:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.take = root / "lib/take-start"
        self.keys = root / "home/.ssh/authorized_keys"
        self.runs = root / "runs"
        self.environment = {
            **os.environ,
            "MOYAI_START_FOLDER": str(root / "run"),
            "MOYAI_START_DONE": str(root / "var"),
            "MOYAI_START_HOME": str(root / "home"),
            "MOYAI_START_PROGRAM": str(self.take),
            "MOYAI_RUNS": str(self.runs),
        }

    def boot(self, start: SentStart) -> int:
        return subprocess.run(["/bin/sh", "-c", start.script], env=self.environment, check=False).returncode

    def send(self, sealed: str) -> str:
        done = subprocess.run([self.take], input=sealed, capture_output=True, text=True, env=self.environment, check=False)
        return done.stdout

    @property
    def ran(self) -> int:
        return self.runs.read_text().count("run") if self.runs.exists() else 0


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_start_is_run_once_however_often_it_is_sent(machine: Machine) -> None:
    start = sent_start(CONTENT, PUBLIC)
    assert machine.boot(start) == 0
    assert verdict_of(machine.send(start.sealed)) is StartVerdict.STARTED
    assert verdict_of(machine.send(start.sealed)) is StartVerdict.STARTED
    assert machine.ran == 1


def test_the_key_that_opens_it_is_gone_once_it_has_served(machine: Machine) -> None:
    start = sent_start(CONTENT, PUBLIC)
    machine.boot(start)
    key = next(line for line in start.script.splitlines() if line.startswith("key=")).removeprefix("key=")
    assert key in machine.take.read_text()
    machine.send(start.sealed)
    kept = [file for file in machine.root.rglob("*") if file.is_file() and key in file.read_text(errors="replace")]
    assert kept == []
    # a boot afterwards does not bring it back
    machine.boot(start)
    assert key not in machine.take.read_text()


@pytest.mark.parametrize("change", ["", "x", "another"])
def test_nothing_is_run_but_what_the_digest_names(machine: Machine, change: str) -> None:
    start = sent_start(CONTENT, PUBLIC)
    machine.boot(start)
    wrong = sent_start(CONTENT, PUBLIC).sealed if change == "another" else start.sealed[:-9] + change
    assert verdict_of(machine.send(wrong)) is StartVerdict.OTHER
    assert machine.ran == 0
    assert verdict_of(machine.send(start.sealed)) is StartVerdict.STARTED


def test_a_start_that_fails_can_be_sent_again(machine: Machine) -> None:
    start = sent_start('#!/bin/sh\n[ -e "$MOYAI_RUNS" ] || { echo no disk; exit 1; }\n' + CONTENT, PUBLIC)
    machine.boot(start)
    said = machine.send(start.sealed)
    assert verdict_of(said) is StartVerdict.FAILED
    assert "no disk" in said
    machine.runs.touch()
    assert verdict_of(machine.send(start.sealed)) is StartVerdict.STARTED


def test_one_key_may_log_in_and_do_nothing_else(machine: Machine) -> None:
    machine.keys.parent.mkdir(parents=True)
    machine.keys.write_text("ssh-rsa AAAA of the account")
    start = sent_start(CONTENT, PUBLIC)
    machine.boot(start)
    machine.boot(start)
    lines = [line for line in machine.keys.read_text().splitlines() if line]
    assert lines == [
        "ssh-rsa AAAA of the account",
        f'restrict,command="{machine.take}" {PUBLIC.removesuffix(" moyai")} moyai-start',
    ]
    assert stat.S_IMODE(machine.take.stat().st_mode) == 0o700


def test_what_is_sent_cannot_be_read_without_the_script() -> None:
    start = sent_start(CONTENT, PUBLIC)
    assert "echo run" not in start.sealed
    assert "echo run" not in start.script


def test_a_boothook_becomes_a_script_that_brings_the_key_along(tmp_path: Path) -> None:
    text = as_script("#cloud-boothook\n#!/bin/sh\necho done\n", unsealing_key="k3y")
    assert text.startswith("#!/bin/sh\n")
    assert text.endswith("echo done\n")
    there = text.replace("/var/lib/moyai", str(tmp_path / "moyai"))
    assert subprocess.run(["/bin/sh", "-c", there], capture_output=True, text=True, check=True).stdout == "done\n"
    assert (tmp_path / "moyai/unsealing-key").read_text() == "k3y"
    assert stat.S_IMODE((tmp_path / "moyai/unsealing-key").stat().st_mode) == 0o600
    with pytest.raises(ValueError, match="no boothook"):
        as_script("#!/bin/sh\n")
