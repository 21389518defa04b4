"""A cluster's machines as Ansible sees them: read by Ansible's own program from a script, as its users run it."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from moyai.core.errors import UsageError
from moyai.core.paths import Paths
from moyai.lifecycle.inventory import host_variables, inventory
from moyai.lifecycle.record import Record
from moyai.lifecycle.ssh import ssh_command
from moyai.plan.observed import NodeAllocation
from moyai.spec.load import dump, parse

NODES = {
    "demo-control-plane-0": NodeAllocation(0, "az1"),
    "demo-workers-0": NodeAllocation(1, "az1"),
    "demo-gpu-large-0": NodeAllocation(2, "az-2"),
}


def record_in(state: Path) -> Record:
    record = Record.create(Paths(state / "cache", state), "demo", spec=dump(parse("metadata: {name: demo}")))
    record.allocate(NODES)
    record.set_api_address("198.51.100.7")
    return record


def read_by_ansible(folder: Path, printed: dict[str, Any]) -> Any:
    """What Ansible's own program makes of it."""
    data = folder / "inventory.json"
    data.write_text(json.dumps(printed))
    script = folder / "inventory"
    script.write_text(f"#!/bin/sh\ncat {shlex.quote(str(data))}\n")
    script.chmod(0o755)
    program = Path(sys.executable).with_name("ansible-inventory")
    environment = {"HOME": str(folder), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "ANSIBLE_LOCALHOST_WARNING": "False"}
    done = subprocess.run(
        [str(program), "-i", str(script), "--list"], capture_output=True, text=True, check=True, env=environment, timeout=60
    )
    assert "WARNING" not in done.stderr, done.stderr
    return json.loads(done.stdout)


def test_ansible_finds_groups_by_role_pool_and_zone(tmp_path: Path) -> None:
    record = record_in(tmp_path)
    found = read_by_ansible(tmp_path, inventory(record))
    hosts = {group: found[group]["hosts"] for group in found if "hosts" in found[group]}
    assert hosts == {
        "kube_control_plane": ["demo-control-plane-0"],
        "kube_node": ["demo-gpu-large-0", "demo-workers-0"],
        "pool_gpu_large": ["demo-gpu-large-0"],
        "pool_workers": ["demo-workers-0"],
        "zone_az1": ["demo-control-plane-0", "demo-workers-0"],
        "zone_az_2": ["demo-gpu-large-0"],
    }
    assert set(found["k8s_cluster"]["children"]) == set(hosts)
    assert found["_meta"]["hostvars"]["demo-workers-0"]["moyai_cluster"] == "demo"


@pytest.mark.parametrize("state", ["plain", "with a blank", "it's"])
def test_ansible_logs_in_as_moyai_ssh_does(state: str, tmp_path: Path) -> None:
    folder = tmp_path / state
    folder.mkdir()
    record = record_in(folder)
    variables = read_by_ansible(folder, inventory(record))["_meta"]["hostvars"]
    assert set(variables) == set(NODES)
    for node, found in variables.items():
        own = ssh_command(record, node)
        # Ansible takes the arguments apart as a shell does
        assert ["ssh", *shlex.split(found["ansible_ssh_common_args"])] == own[:-1]
        assert f"{found['ansible_user']}@{found['ansible_host']}" == own[-1]
        assert found == {**host_variables(record, node), "moyai_cluster": "demo", "moyai_cloud": record.cloud}


def test_before_the_cluster_has_an_address_there_are_no_hosts(tmp_path: Path) -> None:
    record = Record.create(Paths(tmp_path / "cache", tmp_path), "demo", spec=dump(parse("metadata: {name: demo}")))
    record.allocate(NODES)
    assert read_by_ansible(tmp_path, inventory(record))["_meta"]["hostvars"] == {}


def test_a_machine_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cluster demo has no node 'nobody'"):
        host_variables(record_in(tmp_path), "nobody")
