"""The command line of `moyai ssh`: what a user names is never an option, and paths may hold any character."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from moyai.core.errors import UsageError
from moyai.core.paths import Paths
from moyai.lifecycle.record import Record
from moyai.lifecycle.ssh import ssh_command
from moyai.plan.observed import NodeAllocation
from moyai.spec.load import dump, parse


def _record(state: Path) -> Record:
    record = Record.create(Paths(state / "cache", state), "quickstart", spec=dump(parse("")))
    record.allocate({"quickstart-control-plane-0": NodeAllocation(0, "az1"), "quickstart-workers-0": NodeAllocation(1, "az1")})
    record.set_api_address("198.51.100.7")
    return record


@pytest.mark.parametrize("user", ["-oProxyCommand=touch x", "", "a b", "root@elsewhere", "a\nb", "%u"])
def test_a_user_that_is_no_name_is_refused(user: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--user"):
        ssh_command(_record(tmp_path), "workers-0", user=user)


@pytest.mark.parametrize("name", ["plain", "with a blank", "100%h", "it's"])
def test_ssh_finds_its_files_in_any_state_folder(name: str, tmp_path: Path) -> None:
    """As ssh itself reads the command line: ``ssh -G`` prints what it would use."""
    state = tmp_path / name
    record = _record(state)
    command = ssh_command(record, "workers-0")
    read = subprocess.run([*command[:1], "-G", *command[1:]], capture_output=True, text=True, check=True).stdout
    found = dict(line.split(" ", 1) for line in read.splitlines() if " " in line)
    assert found["user"] == "debian"
    tokens = {"%h": "10.8.0.11", "%p": "22", "%%": "%"}
    jump = re.sub("%.", lambda token: tokens[token[0]], found["proxycommand"])
    words = shlex.split(jump)
    assert words[-1] == "debian@198.51.100.7"
    assert words[words.index("-W") + 1] == "10.8.0.11:22"
    inner = subprocess.run([words[0], "-G", *words[1:-3], words[-1]], capture_output=True, text=True, check=True).stdout
    for output in (read, inner):
        hosts = next(line for line in output.splitlines() if line.startswith("userknownhostsfile"))
        assert hosts.replace("%%", "%").split(" ", 1)[1].strip('"') == str(record.folder / "known_hosts")


def test_where_the_address_is_taken_in_turns_every_machine_is_checked_but_the_one_that_passes_on(tmp_path: Path) -> None:
    record = _record(tmp_path)
    record.set_spec(dump(parse("spec: {controlPlane: {replicas: 3}}")))
    command = ssh_command(record, "control-plane-0")
    assert command[-1] == "debian@10.8.0.10"
    assert "HostKeyAlias=quickstart-control-plane-0" in command
    read = subprocess.run([*command[:1], "-G", *command[1:]], capture_output=True, text=True, check=True).stdout
    found = dict(line.split(" ", 1) for line in read.splitlines() if " " in line)
    assert found["stricthostkeychecking"] == "accept-new"
    jump = shlex.split(found["proxycommand"].replace("%h", "10.8.0.10").replace("%p", "22"))
    assert jump[-1] == "debian@198.51.100.7"
    inner = subprocess.run([jump[0], "-G", *jump[1:-3], jump[-1]], capture_output=True, text=True, check=True).stdout
    assert "stricthostkeychecking false" in inner
    assert "userknownhostsfile /dev/null" in inner
