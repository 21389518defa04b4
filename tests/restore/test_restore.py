"""A cluster loses all its machines and comes back from its backup: what was written is there, and its Service answers."""

from __future__ import annotations

import http.client
import json
import time
import urllib.request
from collections.abc import Generator
from pathlib import Path

import pyrage
import pytest

from moyai.cloud.openstack import connect
from moyai.core.paths import default_paths
from moyai.lifecycle.record import Record
from moyai.lifecycle.status import read
from tests.e2e.disks import until
from tests.e2e.driver import Cluster


@pytest.fixture(scope="module")
def lost(cloud_name: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[Cluster]:
    """One control plane, one worker, a web server behind a load balancer."""
    made = Cluster(tmp_path_factory.mktemp("lost"), cloud_name, workers=1, manifests=True)
    try:
        made.moyai("up", str(made.folder))
        yield made
    finally:
        report = json.loads(made.moyai("down", made.name, "--yes", "--output", "json").stdout)
    assert report["left"] == 0
    assert not made.objects()


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The public key, and the file of the private one."""
    own = pyrage.x25519.Identity.generate()
    file = tmp_path_factory.mktemp("key") / "key.txt"
    file.write_text(str(own))
    return str(own.to_public()), file


@pytest.fixture(scope="module")
def backup(lost: Cluster, key: tuple[str, Path]) -> Path:
    lost.kubectl("create", "configmap", "early", "--from-literal=word=kept")
    file = lost.folder.parent / "backup.moyai"
    began = time.monotonic()
    made = json.loads(lost.moyai("backup", lost.name, "--file", str(file), "-r", key[0], "--output", "json").stdout)
    print(f"\nbackup in {time.monotonic() - began:.1f} s: {file.stat().st_size} bytes, revision {made['revision']}")
    assert made["cluster"] == lost.name
    assert lost.kubectl("-n", "kube-system", "get", "pods", "-o", "name").count("backup-") == 0
    lost.kubectl("create", "configmap", "late", "--from-literal=word=lost")
    return file


def served(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=3) as answer:
            return b"nginx" in answer.read()
    except (OSError, http.client.HTTPException):
        return False


def problems(cluster: Cluster) -> tuple[str, ...]:
    record = Record.open(default_paths(), cluster.name)
    assert record is not None
    return read(record, connect(cluster.cloud)).problems


def test_a_living_cluster_is_not_replaced(lost: Cluster, backup: Path, key: tuple[str, Path]) -> None:
    done = lost.moyai("restore", str(backup), "-i", str(key[1]), expect=2)
    (line,) = [one for one in done.stderr.splitlines() if one.startswith("moyai: ")]
    assert f"cluster {lost.name} lives" in line


def test_it_comes_back_on_new_machines(lost: Cluster, backup: Path, key: tuple[str, Path]) -> None:
    url = lost.up()["endpoints"][0]["url"]
    before = lost.status()
    machines = connect(lost.cloud).machines
    old = {one.id for one in machines.servers() if one.name.startswith(f"{lost.name}-")}
    for server in old:
        machines.delete_server(server)
    until("the machines are gone", lambda: not old & {one.id for one in machines.servers()}, within=60)

    began = time.monotonic()
    done = lost.moyai("restore", str(backup), "-i", str(key[1]), "--output", "json")
    seconds = time.monotonic() - began
    found = json.loads(done.stdout)
    until("its Service answers", lambda: served(url), within=120)
    print(f"\nrestored in {seconds:.0f} s, the Service answers after {time.monotonic() - began:.0f} s")

    assert (found["uid"], found["unknown"]) == (before["uid"], [])
    assert lost.kubectl("get", "configmap", "early", "-o", "jsonpath={.data.word}") == "kept"
    assert "late" not in lost.kubectl("get", "configmaps", "-o", "name")
    nodes = json.loads(lost.kubectl("get", "nodes", "-o", "json"))["items"]
    ids = {one["spec"]["providerID"].rpartition("/")[2] for one in nodes}
    assert ids == {one.id for one in machines.servers() if one.name.startswith(f"{lost.name}-")}
    until("all is well", lambda: problems(lost) == (), within=120)
    assert json.loads(lost.moyai("plan", str(lost.folder), "--output", "json").stdout)["steps"] == []
