"""The lab of BGP out of the example: a router and a client beside the cluster, workers in a network of their own.

A client reaches a Service over all workers, a silent death is noticed by BFD, and a router that is switched off and on is
called by its nodes at once.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Generator
from pathlib import Path

import pytest
import yaml

from moyai.cloud.openstack import connect
from moyai.kube.resources import Json
from tests.e2e.disks import until
from tests.e2e.driver import ROOT, Cluster

pytestmark = pytest.mark.long

ADDRESS = "172.20.0.0"
WORKERS = {"172.17.0.11", "172.17.0.12", "172.17.0.13"}
#: Asks as fast as it can, one connection a question, for so many seconds; prints how many were asked, and what went wrong.
LOOP = """
import http.client, json, time
end, asked, bad = time.monotonic() + SECONDS, 0, []
while time.monotonic() < end:
    try:
        connection = http.client.HTTPConnection("ADDRESS", 80, timeout=4)
        connection.request("GET", "/")
        if connection.getresponse().status != 200:
            bad.append("status")
        connection.close()
    except OSError as error:
        bad.append(repr(error))
    asked += 1
    time.sleep(0.02)
print(json.dumps({"asked": asked, "bad": bad}))
"""


class Lab(Cluster):
    """The example with this cloud and this name."""

    def write(self, workers: int) -> None:
        shutil.copytree(ROOT / "examples/lab-bgp", self.folder, dirs_exist_ok=True)
        spec = yaml.safe_load((self.folder / "cluster.yaml").read_text())
        spec["metadata"]["name"], spec["spec"]["cloud"] = self.name, self.cloud
        (self.folder / "cluster.yaml").write_text(json.dumps(spec))

    def hops(self) -> set[str]:
        """The next hops of the Service's address in the router's kernel."""
        seen = json.loads(self.moyai("bgp", "routes", self.name, "--on", "rt-01", "--output", "json").stdout)
        routes: list[Json] = seen["nodes"]["rt-01"]["kernel"] if seen["nodes"] else []
        return {hop for one in routes if one["prefix"] == f"{ADDRESS}/32" for hop in one["gateways"]}

    def client(self, *words: str) -> str:
        return self.moyai("ssh", "client-01", *words).stdout


@pytest.fixture(scope="module")
def lab(cloud_name: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[Lab]:
    made = Lab(tmp_path_factory.mktemp("lab"), cloud_name)
    with made.removed_at_end():
        made.up()
        yield made


def test_one_command_makes_the_lab_and_the_client_reaches_the_service(lab: Lab) -> None:
    until("one way to each worker", lambda: lab.hops() == WORKERS, within=60)
    sessions = json.loads(lab.moyai("bgp", "sessions", lab.name, "--output", "json").stdout)
    seen = [one for node in sessions["nodes"].values() for one in node["sessions"]]
    assert {(one["state"], one["bfd"]) for one in seen} == {("Established", "up")}
    assert len(seen) == 3
    assert lab.client("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"http://{ADDRESS}/") == "200"
    nodes = json.loads(lab.kubectl("get", "nodes", "-o", "json"))["items"]
    assert sum("node-role.kubernetes.io/worker" in node["metadata"]["labels"] for node in nodes) == 3
    status = lab.status()
    assert {one["role"]: one["running"] for one in status["machines"]} == {"router": True, "client": True}
    assert status["problems"] == []
    assert "nothing to do" in lab.moyai("plan", str(lab.folder / "cluster.yaml")).stdout


def test_a_silent_death_costs_the_connections_over_that_node_alone(lab: Lab) -> None:
    machines = connect(lab.cloud).machines
    victim = next(one for one in machines.servers() if one.name == f"{lab.name}-workers-1")
    # as a machine that hangs: nothing says farewell
    loop = LOOP.replace("SECONDS", "15").replace("ADDRESS", ADDRESS)
    lab.moyai("ssh", "client-01", f"cat > /tmp/loop.py <<'END'\n{loop}\nEND\npython3 /tmp/loop.py > /tmp/said 2>&1 &")
    time.sleep(4)
    pause = [*("openstack", "--os-cloud", lab.cloud, "server"), "pause", victim.id]
    lab.moyai(*pause)
    try:
        until("the dead node to be left out", lambda: lab.hops() == WORKERS - {"172.17.0.12"}, within=10)
        until("the client to end", lambda: lab.client("cat", "/tmp/said").strip(), within=30)
    finally:
        lab.moyai(*pause[:-2], "unpause", victim.id)
    said = json.loads(lab.client("cat", "/tmp/said"))
    assert said["asked"] > 100
    # connections that had begun over the node
    assert len(said["bad"]) <= 3
    until("the node to be back", lambda: lab.hops() == WORKERS, within=60)


def test_a_router_that_is_switched_off_and_on_is_called_at_once(lab: Lab) -> None:
    router = next(one for one in connect(lab.cloud).machines.servers() if one.name == f"{lab.name}-rt-01")
    lab.moyai("openstack", "--os-cloud", lab.cloud, "server", "reboot", "--hard", router.id)
    began = time.monotonic()
    until("the router to boot", lambda: ssh_answers(lab), within=60)
    until("all ways", lambda: lab.hops() == WORKERS, within=30)
    assert time.monotonic() - began < 60


def ssh_answers(lab: Lab) -> bool:
    try:
        return "ok" in lab.moyai("ssh", "rt-01", "echo", "ok").stdout
    except AssertionError:
        return False


def test_a_machine_whose_entry_changes_is_made_again(lab: Lab, tmp_path: Path) -> None:
    before = next(one for one in connect(lab.cloud).machines.servers() if one.name == f"{lab.name}-client-01")
    file = lab.folder / "cluster.yaml"
    spec = json.loads(file.read_text())
    spec["spec"]["machines"][1]["files"] = [{"path": "/etc/motd", "content": "a client\n"}]
    file.write_text(json.dumps(spec))
    lab.up()
    after = next(one for one in connect(lab.cloud).machines.servers() if one.name == f"{lab.name}-client-01")
    assert after.id != before.id
    until("the file", lambda: "a client" in lab.client("cat", "/etc/motd"), within=60)
