"""A cluster's machines for others: for Ansible by ``moyai inventory``, for colleagues by ``moyai clusters``."""

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


def test_a_colleague_without_a_record_sees_the_cluster_with_its_machines(shared: SharedCluster, tmp_path: Path) -> None:
    words = ["clusters", "--cloud", shared.cloud.name, "--output", "json"]
    environment = {**os.environ, "MOYAI_STATE_DIR": str(tmp_path)}
    done = subprocess.run([*MOYAI, *words], capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert done.returncode == 0, said("moyai", words, done)
    (found,) = (one for one in json.loads(done.stdout)["clusters"] if one["uid"] == shared.uid)
    assert (found["name"], found["recorded"]) == (shared.name, False)
    nodes = json.loads(shared.moyai("status", shared.name, "--output", "json"))["nodes"]
    assert found["control_planes"] + found["workers"] == found["running"] == len(nodes)
