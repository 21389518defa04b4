"""The mode of a pod network changes on a cluster that runs: a connection between two pods stays, over all modes and a kill."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.e2e.disks import until
from tests.e2e.driver import MOYAI, Cluster
from tests.e2e.test_pod_networks import cluster_with

pytestmark = pytest.mark.long

ECHO = """
import asyncio
async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
async def main():
    server = await asyncio.start_server(echo, "", 7000)
    await server.serve_forever()
asyncio.run(main())
"""
#: One connection, and an echo of more than one packet again and again. It prints how many, and ends when the connection does.
TALK = """
import socket, time
while True:
    try:
        talk = socket.create_connection(("ADDRESS", 7000), 3)
        break
    except OSError:
        time.sleep(0.2)
talk.settimeout(20)
count = 0
while True:
    talk.sendall(b"x" * 20000)
    got = 0
    while got < 20000:
        data = talk.recv(65536)
        if not data:
            raise SystemExit("closed")
        got += len(data)
    count += 1
    print(count, flush=True)
    time.sleep(0.05)
"""


@pytest.fixture(scope="module")
def cluster(cloud_name: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[Cluster]:
    with cluster_with(cloud_name, tmp_path_factory.mktemp("migrate"), mode="host-gw") as made:
        made.up()
        yield made


def test_a_connection_outlives_each_change_of_the_mode(cluster: Cluster) -> None:
    server = cluster.pod("workers-0", ECHO)
    client = cluster.pod("workers-1", TALK.replace("ADDRESS", cluster.pod_address(server)))

    def said() -> int:
        lines = cluster.kubectl("logs", client, "--tail=1").split()
        return int(lines[-1]) if lines else 0

    until("the pods to talk", lambda: said() > 10, within=60)
    for mode in ("vxlan", "routes", "vxlan", "host-gw"):
        migrate(cluster, mode)
        before = said()
        until("the pods to talk on", lambda before=before: said() > before + 10, within=60)
        check = json.loads(cluster.moyai("net", "check", cluster.name, "--output", "json").stdout)
        assert check["failures"] == []
        write(cluster, mode)
        assert "nothing to do" in cluster.moyai("plan", str(cluster.folder)).stdout
    phase = cluster.kubectl("get", "pod", client, "-o", "jsonpath={.status.phase}")
    assert phase == "Running"


def migrate(cluster: Cluster, mode: str) -> None:
    """Killed in the middle, and done by the second command."""
    words = [*MOYAI, "net", "migrate", cluster.name, "--to", mode]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "agents at" in line:
                break
        process.send_signal(signal.SIGKILL)
    refused = cluster.moyai("up", str(cluster.folder), expect=2)
    assert f"is on its way to mode {mode}" in refused.stderr
    cluster.moyai("net", "migrate", cluster.name, "--to", mode)


def write(cluster: Cluster, mode: str) -> None:
    file: Path = cluster.folder / "cluster.yaml"
    spec = json.loads(file.read_text())
    spec["spec"]["network"]["mode"] = mode
    file.write_text(json.dumps(spec))
