"""``python -m tests.bench.agent``: what the agent of one node costs in a large cluster. Needs root.

The agent is the real process, with a real API server and etcd, in a network namespace that stands for the node. The other
nodes are Node objects. Each figure stands beside its goal; none makes the run fail.
"""

from __future__ import annotations

import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from moyai.kube.resources import NODES, Json
from moyai.linux import netns
from moyai.linux.background import Background, background
from moyai.linux.process import run
from moyai.plan.node_network import NetworkConf, write_net_conf
from tests.api_server import ApiServer, api_server

_SPACE = "bench-agent"
_ME, _ADDRESS = "node-me", "10.64.0.1"
_BIND = ("127.0.0.1", 9810)
_CHANGES = 15
_IMAGES = 50
#: Between two looks; each look at readiness costs the agent a request.
_ASK_SECONDS = 0.01
_AT_REST_SECONDS = 30
_TICKS = os.sysconf("SC_CLK_TCK")
_START_GOAL, _CHANGE_GOAL, _MEMORY_GOAL = 2.0, 0.010, 64.0


def _node(number: int, *, address: str = "") -> Json:
    """A node of the pod network ``vxlan``, as its own agent announces it."""
    high, low = divmod(number, 250)
    address = address or f"10.64.{high + 1}.{low + 1}"
    words = {"kube-subnet-manager": "true", "backend-type": "vxlan", "public-ip": address}
    words["backend-data"] = f'{{"VNI":1,"VtepMAC":"0a:58:0a:40:{high:02x}:{low:02x}"}}'
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": f"node-{number}",
            "labels": {"kubernetes.io/hostname": f"node-{number}", "kubernetes.io/os": "linux"},
            "annotations": {f"flannel.alpha.coreos.com/{key}": value for key, value in words.items()},
        },
        "spec": {"podCIDR": f"10.{128 + high}.{low}.0/24", "podCIDRs": [f"10.{128 + high}.{low}.0/24"]},
        "status": {
            "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": f"node-{number}"}],
            # as many as a kubelet reports: most of a Node's text
            "images": [
                {"names": [f"registry.example/team/app-{one}@sha256:{one:064x}", f"registry.example/team/app-{one}:v1.{one}"]}
                for one in range(_IMAGES)
            ],
        },
    }


def _own_node() -> Json:
    cidr = "10.255.0.0/24"
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": _ME},
        "spec": {"podCIDR": cidr, "podCIDRs": [cidr]},
        "status": {"addresses": [{"type": "InternalIP", "address": _ADDRESS}]},
    }


@dataclass(frozen=True)
class _Usage:
    """Of a process, in seconds of processor time and MiB of resident memory."""

    cpu: float
    memory: float


def _usage(pid: int) -> _Usage:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    status = Path(f"/proc/{pid}/status").read_text()
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return _Usage((int(fields[11]) + int(fields[12])) / _TICKS, int(resident.split()[1]) / 1024)


def _ready() -> bool:
    try:
        with netns.inside(_SPACE):
            connection = socket.create_connection(_BIND, timeout=1)
        with connection:
            connection.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
            return b" 200 " in connection.recv(64)
    except OSError:
        return False


def _within(seconds: float, done: Callable[[], bool], *, alive: Background) -> float:
    """Seconds until ``done``."""
    began = time.monotonic()
    while not done():
        alive.check()
        if time.monotonic() - began > seconds:
            raise TimeoutError(f"not within {seconds:.0f} s")
        time.sleep(_ASK_SECONDS)
    return time.monotonic() - began


def _show(what: str, measured: str, *, goal: str) -> None:
    click.echo(f"{what:48} {measured:>12}   goal {goal}")


def _measure_changes(server: ApiServer, log: Path, *, alive: Background) -> list[float]:
    """Seconds from the change of each Node until the kernel has the node's new address."""
    found: list[float] = []
    api = server.api
    with background([*netns.prefix(_SPACE), "bridge", "-timestamp", "monitor", "fdb"], log):
        time.sleep(0.5)
        for number in range(_CHANGES):
            address = f"10.64.200.{number + 1}"
            body: Mapping[str, object] = {"metadata": _node(number, address=address)["metadata"]}
            began = time.monotonic()
            with netns.inside(_SPACE):
                api.patch(NODES, f"node-{number}", body=body)
            _within(10, lambda address=address: address in log.read_text(), alive=alive)
            found.append(time.monotonic() - began)
    return found


@click.command()
@click.option("--nodes", default=1000, show_default=True)
@click.option("--controllers", default="pod-network,policy", show_default=True)
def main(nodes: int, controllers: str) -> None:
    """Measure start, a change of one node, memory, and the processor time at rest."""
    netns.add(_SPACE)
    try:
        with tempfile.TemporaryDirectory() as text:
            _run(Path(text), nodes, controllers=controllers)
    finally:
        netns.remove(_SPACE)


def _run(folder: Path, nodes: int, *, controllers: str) -> None:
    ip = ["ip", "-n", _SPACE]
    run([*ip, "link", "set", "lo", "up"])
    run([*ip, "link", "add", "eth0", "mtu", "1500", "type", "veth", "peer", "name", "wire"])
    run([*ip, "address", "add", f"{_ADDRESS}/16", "dev", "eth0"])
    for link in ("eth0", "wire"):
        run([*ip, "link", "set", link, "up"])
    conf = folder / "net-conf.json"
    conf.write_text(write_net_conf(NetworkConf("10.128.0.0/9", backend="vxlan")))
    with api_server(_SPACE, folder) as server:
        server.create_nodes([_own_node(), *(_node(number) for number in range(nodes))])
        words = [str(Path(sys.executable).with_name("moyai")), "agent", f"--node-name={_ME}", f"--controllers={controllers}"]
        words += [f"--net-config-path={conf}", f"--kubeconfig={server.kubeconfig}"]
        with background([*netns.prefix(_SPACE), *words], folder / "agent.log") as agent:
            started = _within(120, _ready, alive=agent)
            pid = agent.pid
            first = _usage(pid)
            entries = run([*netns.prefix(_SPACE), "bridge", "fdb", "show", "dev", "flannel.1"]).stdout.count("\n")
            click.echo(f"{nodes} nodes, {entries} forwarding entries; load {os.getloadavg()[0]:.1f}")
            _show("from the start of the process to ready", f"{started:.2f} s", goal=f"{_START_GOAL:.0f} s")
            _show("  of it processor time", f"{first.cpu:.2f} s", goal="")
            before = _usage(pid).cpu
            changes = _measure_changes(server, folder / "fdb.log", alive=agent)
            spent = (_usage(pid).cpu - before) / _CHANGES
            _show("one node changes, median until the kernel has it", f"{statistics.median(changes) * 1000:.1f} ms", goal="")
            _show("  processor time of the agent for it", f"{spent * 1000:.1f} ms", goal=f"{_CHANGE_GOAL * 1000:.0f} ms")
            before = _usage(pid).cpu
            time.sleep(_AT_REST_SECONDS)
            after = _usage(pid)
            _show("at rest, processor time in a minute", f"{(after.cpu - before) * 60 / _AT_REST_SECONDS:.2f} s", goal="0 s")
            _show("resident memory", f"{after.memory:.0f} MiB", goal=f"{_MEMORY_GOAL:.0f} MiB")


if __name__ == "__main__":
    main()
