"""Probes on real kernels: what they read is what the kernel has, and a trace ends where real packets end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from moyai.agent.pod_network.kernel import apply, find_uplink, observe
from moyai.diagnose.network.cloud_wire import CloudFacts
from moyai.diagnose.network.kernel_facts import Kernel, parse_kernel
from moyai.diagnose.network.live import LiveTrace, joined
from moyai.diagnose.network.nft_rules import Packet
from moyai.diagnose.network.state import node_states
from moyai.diagnose.network.trace_model import PacketEnd, Trace, World
from moyai.diagnose.network.walk import follow
from moyai.kube.objects import PolicyPod, parse_node
from moyai.kube.resources import Json
from moyai.linux import netns, network_facts, packet_watch, path_probe, pod_probe
from moyai.linux.netlink import Netlink
from moyai.linux.process import run
from moyai.plan.network_policy.pod_index import PodIndex
from moyai.plan.node_network import Me, NetworkConf, Peer, desired, difference, tunnel_name
from moyai.spec.load import validate
from tests.netns.pod_world import POD_CIDR, Machine, ip, machines, ping

VXLAN, HOST_GW = NetworkConf(POD_CIDR, "vxlan"), NetworkConf(POD_CIDR, "host-gw")
PREFIX = "flannel.alpha.coreos.com/"


def mac(machine: Machine) -> str:
    return f"02:00:00:00:00:0{machine.number}"


@pytest.fixture
def two() -> Iterator[list[Machine]]:
    with machines(2) as made:
        yield made


async def bring(made: list[Machine], conf: NetworkConf) -> None:
    """As the nodes' agents do it, once; from then on nobody repairs anything."""
    name = tunnel_name(conf.vni) if conf.backend == "vxlan" else None
    for one in made:
        me = Me(one.name, one.address, one.pod_cidr, mac(one))
        peers = [Peer(other.name, other.address, other.pod_cidr, mac(other)) for other in made if other is not one]
        async with Netlink.open(one.net) as netlink:
            uplink = await find_uplink(netlink, me.address)
            found, indices = await observe(netlink, tunnel=name, uplink=uplink)
            want = desired(me, peers, uplink=uplink, conf=conf)
            await apply(netlink, difference(want.network, found), indices=indices)
        if name:
            # pods have the tunnel's MTU
            ip(one.pod, "link set eth0 mtu 1450")
            ip(one.net, "link set cni0 mtu 1450")


def program(machine_space: str, module: Any, *words: str) -> Json:
    """What one of the programs prints in a namespace, run as a file of its own: nothing of moyai may be in its way."""
    command = [*netns.prefix(machine_space), sys.executable, "-P", str(Path(module.__file__)), *words]
    return json.loads(run(command, timeout=60, env={"PYTHONPATH": ""}).stdout)


#: As the program's own start does it, with another folder of namespaces: other tests have pods with the same addresses.
FACTS = """
import json, runpy, sys
from pathlib import Path
program, addresses, folder = sys.argv[1:]
json.dump(runpy.run_path(program)["facts"](addresses.split(","), Path(folder)), sys.stdout)
"""


def kernel(machine: Machine, made: list[Machine]) -> Kernel:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / machine.pod).symlink_to(netns.path(machine.pod))
        addresses = ",".join(one.pod_address for one in made)
        words = ["-P", "-c", FACTS, str(Path(network_facts.__file__)), addresses, folder]
        shown = run([*netns.prefix(machine.net), sys.executable, *words], timeout=60, env={"PYTHONPATH": ""})
    return parse_kernel(json.loads(shown.stdout))


def node(machine: Machine, conf: NetworkConf) -> Json:
    found = machine.object()
    data = json.dumps({"VNI": conf.vni, "VtepMAC": mac(machine)}) if conf.backend == "vxlan" else "null"
    told = {"kube-subnet-manager": "true", "backend-type": conf.backend, "backend-data": data, "public-ip": machine.address}
    found["metadata"]["annotations"] = {f"{PREFIX}{key}": value for key, value in told.items()}
    found["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
    return found


def look(made: list[Machine], conf: NetworkConf) -> World:
    pods = PodIndex()
    for one in made:
        pods.change(f"default/p{one.number}", PolicyPod("default", f"p{one.number}", one.name, {}, (one.pod_address,)))
    return World(
        nodes=tuple(parse_node(node(one, conf)) for one in made),
        kernels={one.name: kernel(one, made) for one in made},
        pod_range=POD_CIDR,
        node_range="172.17.0.0/24",
        pods=pods,
        cloud=CloudFacts(unknown="there is none"),
    )


def traced(made: list[Machine], conf: NetworkConf) -> Trace:
    first, second = made[0], made[1]
    source = PacketEnd("pod", "default/p1", first.pod_address, first.name)
    return follow(look(made, conf), source, packet=Packet(first.pod_address, second.pod_address, "icmp"))


def problems(made: list[Machine], conf: NetworkConf) -> dict[str, tuple[str, ...]]:
    # these nodes have no agent that enforces policies
    network = {"podCIDR": POD_CIDR, "nodeCIDR": "172.17.0.0/24", "mode": conf.backend, "policy": False}
    spec = validate({"metadata": {"name": "demo"}, "spec": {"network": network}}, source="test").spec
    world = look(made, conf)
    return {
        one.name: one.problems
        for one in node_states(spec, world.nodes, kernels=world.kernels, absent={}, cloud=CloudFacts(unknown="none"))
    }


@pytest.mark.parametrize("conf", [VXLAN, HOST_GW], ids=["vxlan", "host-gw"])
async def test_a_whole_network_is_traced_through_and_has_no_problems(two: list[Machine], conf: NetworkConf) -> None:
    await bring(two, conf)
    assert ping(two[0], two[1])
    found = traced(two, conf)
    assert found.arrives, found
    assert ("encapsulate" in {hop.kind for hop in found.hops}) == (conf.backend == "vxlan")
    assert found.mtu == (1450 if conf.backend == "vxlan" else 1500)
    assert problems(two, conf) == {"n1": (), "n2": ()}


HARM = {
    "forwarding entry": (VXLAN, 1, "bridge fdb del {mac2} dev flannel.1 dst 172.17.0.22", "flannel.1 of n1 has no forwarding"),
    "neighbour": (VXLAN, 1, "ip neigh del 10.244.2.0 dev flannel.1", "flannel.1 of n1 has no neighbour entry"),
    "route": (VXLAN, 1, "ip route del 10.244.2.0/24", "n1 has no route to 10.244.2.2 but unreachable"),
    "gateway": (HOST_GW, 1, "ip route del 10.244.2.0/24", "n1 has no route to 10.244.2.2 but unreachable"),
    "tunnel": (VXLAN, 2, "ip link del flannel.1", "n2 has no VXLAN device with VNI 1"),
    "tunnel is down": (VXLAN, 2, "ip link set flannel.1 down", "flannel.1 of n2 is down"),
    "answer": (VXLAN, 2, "bridge fdb del {mac1} dev flannel.1 dst 172.17.0.21", "flannel.1 of n2 has no forwarding entry"),
    "forwarding": (HOST_GW, 2, "sysctl -qw net.ipv4.ip_forward=0", "n2 forwards nothing"),
}  # fmt: skip


@pytest.mark.parametrize("what", HARM)
async def test_where_real_packets_end_the_trace_ends(two: list[Machine], what: str) -> None:
    conf, number, harm, why = HARM[what]
    await bring(two, conf)
    assert ping(two[0], two[1])
    words = harm.format(mac1=mac(two[0]), mac2=mac(two[1])).split()
    run([*netns.prefix(two[number - 1].net), *words], timeout=20)
    assert not ping(two[0], two[1])
    found = traced(two, conf)
    assert not found.arrives
    said = found.why or (found.back.why if found.back else "")
    assert said.startswith(why)
    if what != "forwarding":
        assert problems(two, conf)[f"n{number}"]


@contextmanager
def serving(made: list[Machine]) -> Generator[None]:
    started = [
        subprocess.Popen(
            [*netns.prefix(one.pod), sys.executable, "-P", str(Path(pod_probe.__file__)), "serve"],
            env={"NODE_NAME": one.name, "PATH": "/usr/bin:/bin"},
        )
        for one in made
    ]
    try:
        end = time.monotonic() + 10
        for one in made:
            reach = f"import socket; socket.create_connection(('{one.pod_address}', {pod_probe.PORT}), 1)"
            while run([*netns.prefix(one.pod), sys.executable, "-c", reach], timeout=10, check=False).returncode:
                assert time.monotonic() < end
        yield
    finally:
        for one in started:
            one.terminate()
            one.wait(10)


def probed(made: list[Machine]) -> Json:
    targets = {"pods": {one.name: one.pod_address for one in made}, "services": {}, "name": "kubernetes.default"}
    return program(made[0].pod, pod_probe, "probe", json.dumps(targets))


async def test_a_pods_probe_measures_what_passes(two: list[Machine]) -> None:
    await bring(two, VXLAN)
    with serving(two):
        found = probed(two)
        assert found["pods"] == {"n1": "", "n2": ""}
        assert found["mtu"] == 1450
        assert found["sizes"]["n2"] == {"passes": 1450, "over": ""}
        # a narrower way that pods know nothing of
        ip(two[1].net, "link set cni0 mtu 1300")
        ip(two[1].pod, "link set eth0 mtu 1300")
        found = probed(two)
        assert (found["pods"]["n2"], found["sizes"]["n2"]["passes"]) == ("", 1300)
        ip(two[0].net, "route del 10.244.2.0/24")
        found = probed(two)
        assert found["pods"]["n2"] != ""
        assert found["sizes"]["n2"]["passes"] == 0


def test_a_machines_probe_measures_the_path_and_not_the_link() -> None:
    with machines(3, pods=False) as made:
        targets = json.dumps({one.name: one.address for one in made[1:]})
        assert program(made[0].net, path_probe, targets) == {"link": 1500, "paths": {"n2": 1500, "n3": 1500}}
        # the switch carries less towards one machine, and says nothing
        ip(f"pn{os.getpid()}-sw", "link set s2 mtu 1400", "link set s3 down")
        assert program(made[0].net, path_probe, targets) == {"link": 1500, "paths": {"n2": 1400, "n3": 0}}


def sent(made: list[Machine], protocol: str, *, port: int) -> LiveTrace:
    """Marked packets from the first machine's pod to the second's, while both machines watch."""
    marks = ["01020304", "01020305", "01020306"]
    file = [sys.executable, "-P", str(Path(packet_watch.__file__))]
    watchers = {
        one.name: subprocess.Popen(
            [*netns.prefix(one.net), *file, "watch", "3", ",".join(marks), "8472"], stdout=subprocess.PIPE, text=True
        )
        for one in made
    }
    words = [made[0].pod, protocol, made[0].pod_address, made[1].pod_address, str(port), ",".join(marks), "0.6"]
    run([*netns.prefix(made[0].net), *file, "send", *words], timeout=20)
    found = {name: json.loads(one.communicate(timeout=20)[0]) for name, one in watchers.items()}
    return joined(found, source="n1", sent=len(marks))


@pytest.mark.parametrize(
    ("protocol", "port", "answer"), [("tcp", 9, "refused (RST)"), ("udp", 9, "ICMP: unreachable"), ("icmp", 0, "echo reply")]
)
async def test_a_real_packet_is_followed_through_the_tunnel_and_back(
    two: list[Machine], protocol: str, port: int, answer: str
) -> None:
    await bring(two, VXLAN)
    found = sent(two, protocol, port=port)
    assert found.answer.startswith(answer)
    there = [one for one in found.sightings if not one.says]
    assert [(one.node, one.link, one.direction, one.vni) for one in there] == [
        ("n1", "cni0", "in", 0),
        ("n1", "flannel.1", "out", 0),
        ("n1", "eth0", "out", 1),
        ("n2", "eth0", "in", 1),
        ("n2", "flannel.1", "in", 0),
        ("n2", "cni0", "out", 0),
    ]
    assert there[2].outer == ("172.17.0.21", "172.17.0.22")
    assert [one.ttl for one in there] == [64, 63, 63, 63, 63, 62]


async def test_a_real_packet_is_last_seen_where_it_vanishes(two: list[Machine]) -> None:
    await bring(two, VXLAN)
    ip(two[1].net, "link set flannel.1 down")
    found = sent(two, "tcp", port=9)
    assert found.answer == ""
    assert found.last is not None
    assert (found.last.node, found.last.link, found.last.vni) == ("n2", "eth0", 1)
