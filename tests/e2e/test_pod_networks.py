"""Clusters whose pods reach each other by the nodes' agents: on the wire, over a lost agent, and without any pod network."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.disks import until
from tests.e2e.driver import Cluster

#: Answers each connection with the client's address.
SERVER = """
import socket
listening = socket.create_server(("", 8080))
while True:
    connection, client = listening.accept()
    connection.sendall(client[0].encode())
    connection.close()
"""
#: Of the machine: VXLAN packets that come in, as "VNI source destination" of the packet within.
SNIFF = """
import socket, struct
raw = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
seen = set()
while True:
    packet = raw.recv(65535)
    header = (packet[0] & 15) * 4
    if packet[9] == 17 and struct.unpack_from("!H", packet, header + 2)[0] == 8472:
        vxlan = header + 8
        vni, inner = int.from_bytes(packet[vxlan + 4:vxlan + 7], "big"), packet[vxlan + 22:]
        line = f"{vni} {socket.inet_ntoa(inner[12:16])} {socket.inet_ntoa(inner[16:20])}"
        if line not in seen:
            seen.add(line)
            print(line)
"""


#: Selects all pods of the namespace, and lets nothing in.
SILENCE: dict[str, Any] = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "silence", "namespace": "default"},
    "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
}


def asks(address: str) -> str:
    return f"import socket; print(socket.create_connection(({address!r}, 8080), 5).recv(100).decode())"


def tries(address: str) -> str:
    """Says whether there is an answer; a pod has no way out before its node knows its address."""
    return f"""
import socket, time
found = "silence"
for _ in range(5):
    try:
        found = "answer" if socket.create_connection(({address!r}, 8080), 2).recv(100) else "nothing"
        break
    except OSError:
        time.sleep(1)
print(found)
"""


@contextmanager
def cluster_with(cloud: str, folder: Path, **network: Any) -> Generator[Cluster]:
    made = Cluster(folder, cloud, network=network)
    with made.removed_at_end():
        yield made


def restarts(cluster: Cluster) -> int:
    shown = json.loads(
        cluster.kubectl("get", "pods", "-n", "kube-system", "-l", "app.kubernetes.io/name=moyai-agent", "-o", "json")
    )
    return sum(status["restartCount"] for pod in shown["items"] for status in pod["status"].get("containerStatuses", ()))


def agents_ready(cluster: Cluster) -> bool:
    shown = json.loads(cluster.kubectl("get", "daemonset", "moyai-agent", "-n", "kube-system", "-o", "json"))["status"]
    return shown.get("numberReady", 0) == shown["desiredNumberScheduled"]


def network_is_seen(cluster: Cluster, server: str) -> None:
    """What its commands say of a whole network with VNI 77, and of the way to a pod of ``workers-0``."""
    state = json.loads(cluster.moyai("net", "status", "--output", "json").stdout)
    assert (state["mode"], state["problems"]) == ("vxlan", [])
    assert [(node["reached"], node["others"], node["tunnel"]) for node in state["nodes"]] == [(2, 2, "flannel.77")] * 3
    found = json.loads(cluster.moyai("net", "check", "--output", "json").stdout)
    assert (found["failures"], found["tried"]["pods"]) == ([], 6)
    words = ("trace", f"{cluster.name}-workers-1", server, "--port", "8080", "--live", "--output", "json")
    trace = json.loads(cluster.moyai(*words).stdout)
    assert trace["arrives"]
    assert {"encapsulate", "wire", "decapsulate", "deliver"} <= {hop["kind"] for hop in trace["hops"]}
    assert trace["live"]["answer"] == "accepted (SYN, ACK)"
    assert {one["vni"] for one in trace["live"]["sightings"] if one["outer"]} == {77}
    trace = json.loads(cluster.moyai("trace", server, "svc/kubernetes", "--output", "json").stdout)
    assert "service" in {hop["kind"] for hop in trace["hops"]}
    # whatever the commands have put into the cluster goes
    until("the probes are gone", lambda: "moyai-probe" not in cluster.kubectl("get", "namespaces", "-o", "name"), within=60)


def test_vxlan_pods_talk_in_packets_with_the_vni_obey_policies_and_a_killed_agent_brings_back_what_was_lost(
    cloud_name: str, tmp_path: Path
) -> None:
    with cluster_with(cloud_name, tmp_path, mode="vxlan", vxlan={"vni": 77}) as cluster:
        cluster.up()
        assert json.loads(cluster.moyai("plan", str(cluster.folder), "--output", "json").stdout)["steps"] == []
        sniffer = cluster.pod("workers-0", SNIFF, host=True)
        server = cluster.pod("workers-0", SERVER)
        cluster.pod_address(sniffer)
        address = cluster.pod_address(server)
        client = cluster.python("workers-1", asks(address))
        assert f"77 {client} {address}" in cluster.kubectl("logs", sniffer)
        network_is_seen(cluster, server)
        cluster.apply(SILENCE)
        until("the policy is applied", lambda: cluster.python("workers-1", tries(address)) == "silence", within=60)
        # nor a pod of the same node
        assert cluster.python("workers-0", tries(address)) == "silence"
        open_port: dict[str, Any] = {"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": 8080}]}]}
        cluster.apply({**SILENCE, "spec": open_port})
        until("the port is open", lambda: cluster.python("workers-1", tries(address)) == "answer", within=60)
        cluster.kubectl("delete", "networkpolicy", "silence")
        before = restarts(cluster)
        # the agent's process ends without a farewell, and the kernel's part is gone when it comes back
        harm = "sudo pkill -KILL -f '^[^ ]*python3[^ ]* .*moyai agent'; sudo ip link delete flannel.77"
        cluster.moyai("ssh", f"{cluster.name}-workers-0", harm)
        until("the agent is back", lambda: restarts(cluster) > before and agents_ready(cluster), within=60)
        assert cluster.python("workers-1", asks(address)) != ""
        # and while it runs, the kernel's own report brings it back
        cluster.moyai("ssh", f"{cluster.name}-workers-0", "sudo ip route flush proto 77")
        assert cluster.python("workers-1", asks(address)) != ""


@pytest.mark.long
def test_auto_takes_routes_in_the_machines_kernels_and_none_in_the_router(cloud_name: str, tmp_path: Path) -> None:
    with cluster_with(cloud_name, tmp_path, mode="auto") as cluster:
        notes = json.loads(cluster.moyai("plan", str(cluster.folder), "--output", "json").stdout)["notes"]
        assert any("auto is host-gw here" in note for note in notes)
        cluster.up()
        assert json.loads(cluster.moyai("plan", str(cluster.folder), "--output", "json").stdout)["steps"] == []
        address = cluster.pod_address(cluster.pod("workers-0", SERVER))
        # not translated on its way
        assert cluster.python("workers-1", asks(address)).startswith("10.244.2.")
        routes = cluster.moyai("ssh", f"{cluster.name}-workers-1", "ip route show proto 77").stdout
        assert "10.244.1.0/24 via 10.8.0.11 dev" in routes


@pytest.mark.long
def test_without_a_pod_network_up_ends_and_leaves_the_nodes_to_their_user(cloud_name: str, tmp_path: Path) -> None:
    with cluster_with(cloud_name, tmp_path, mode="none") as cluster:
        cluster.up()
        nodes = json.loads(cluster.kubectl("get", "nodes", "-o", "json"))["items"]
        ready = {c["status"] for node in nodes for c in node["status"]["conditions"] if c["type"] == "Ready"}
        assert (len(nodes), ready) == (3, {"False"})
        assert json.loads(cluster.moyai("plan", str(cluster.folder), "--output", "json").stdout)["steps"] == []
