"""Ansible runs on a cluster's machines by nothing but ``moyai inventory``."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

from tests.e2e.conftest import SharedCluster
from tests.e2e.driver import MOYAI, said


def test_ansible_reaches_every_machine_and_knows_its_role(shared: SharedCluster, tmp_path: Path) -> None:
    script = tmp_path / "inventory"
    script.write_text(f'#!/bin/sh\nexec {shlex.join(MOYAI)} inventory {shared.name} "$@"\n')
    script.chmod(0o755)
    words = ["all", "-i", str(script), "-m", "command", "-a", "hostname", "-o"]
    environment = {**os.environ, "HOME": str(tmp_path), "LANG": "C.UTF-8", "ANSIBLE_HOST_KEY_CHECKING": "True"}
    program = Path(sys.executable).with_name("ansible")
    done = subprocess.run([str(program), *words], capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, said("ansible", words, done)
    nodes = {node["name"] for node in json.loads(shared.moyai("status", shared.name, "--output", "json"))["nodes"]}
    # one line a machine: `NAME | CHANGED | rc=0 | (stdout) HOSTNAME`
    answers = dict(line.split(" | ", 1) for line in done.stdout.splitlines() if "(stdout)" in line)
    assert {name: answer.rsplit(" ", 1)[1] for name, answer in answers.items()} == {name: name for name in nodes}
