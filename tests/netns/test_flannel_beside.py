"""Real flanneld on one machine and moyai's agent on two others: one API server, one pod network.

Always holds in each test: what a machine knows of another one comes from that machine's annotations, written by the other
program.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest

from moyai.core.paths import default_paths
from moyai.core.progress import Reporter
from moyai.kube.resources import NODES, Json
from moyai.linux import netns
from moyai.linux.background import Background, background
from moyai.linux.process import run
from moyai.plan.node_network import NetworkConf, write_net_conf
from moyai.toolchain import Toolchain
from tests.api_server import ApiServer, api_server
from tests.netns.pod_world import POD_CIDR, Machine, ip, machines, ping

_ADDRESS = "172.17.0.1"
_PREFIX = "flannel.alpha.coreos.com/"


class World:
    """``machines``: each has a Node and no program yet."""

    def __init__(self, made: list[Machine], server: ApiServer, *, folder: Path) -> None:
        self.machines, self._server, self._folder = made, server, folder
        self._flanneld = str(Toolchain(default_paths(), Reporter()).ensure(["flannel"])["flannel"].files["flanneld"])
        self._conf = folder / "net-conf.json"
        self._conf.write_text(write_net_conf(NetworkConf(POD_CIDR, "vxlan")))

    def flanneld(self, machine: Machine) -> AbstractContextManager[Background]:
        """It runs during the block, with its own file of the machine's range instead of one under /run."""
        words = [
            self._flanneld,
            *("-kube-subnet-mgr", f"-kubeconfig-file={self._server.kubeconfig}", f"-net-config-path={self._conf}"),
            *("-iface=eth0", f"-subnet-file={self._folder / machine.name}.env", "-iptables-forward-rules=false"),
        ]
        environment = ["env", f"NODE_NAME={machine.name}"]
        return background([*netns.prefix(machine.net), *environment, *words], self._folder / f"flanneld-{machine.name}.log")

    def agent(self, machine: Machine) -> AbstractContextManager[Background]:
        words = [
            *(
                str(Path(sys.executable).with_name("moyai")),
                "agent",
                f"--node-name={machine.name}",
                "--controllers=pod-network",
            ),
            *(f"--net-config-path={self._conf}", f"--kubeconfig={self._server.kubeconfig}"),
        ]
        return background([*netns.prefix(machine.net), *words], self._folder / f"agent-{machine.name}.log")

    def annotations(self, machine: Machine) -> dict[str, str]:
        with netns.inside(self._server.space):
            found: Json = self._server.api.get(NODES, machine.name)
        return found["metadata"].get("annotations", {})

    def delete(self, machine: Machine) -> None:
        with netns.inside(self._server.space):
            self._server.api.delete(NODES, machine.name)


@pytest.fixture
def world(tmp_path: Path) -> Generator[World]:
    with ExitStack() as stack:
        made = stack.enter_context(machines(3))
        switch = f"{made[0].prefix}sw"
        ip(switch, "link set lo up", f"address add {_ADDRESS}/24 dev br0")
        server = stack.enter_context(api_server(switch, tmp_path, address=_ADDRESS))
        server.create_nodes({"apiVersion": "v1", "kind": "Node", **_as_kubelet(one.object())} for one in made)
        yield World(made, server, folder=tmp_path)


def _as_kubelet(node: Json) -> Json:
    """The API server gives it a UID. An annotation is there from the start: flanneld takes that for granted."""
    annotations = {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}
    return {**node, "metadata": {"name": node["metadata"]["name"], "annotations": annotations}}


def until(what: str, true: Callable[[], object], *programs: Background, within: float = 60.0) -> None:
    end = time.monotonic() + within
    while not true():
        for one in programs:
            one.check()
        assert time.monotonic() < end, f"not within {within:.0f} s: {what}"
        time.sleep(0.1)


def _all_reach(*made: Machine) -> bool:
    return all(ping(a, b) for a in made for b in made if a != b)


def _entries(machine: Machine) -> str:
    fdb = run([*netns.prefix(machine.net), "bridge", "fdb", "show", "dev", "flannel.1"], timeout=20, check=False).stdout
    return fdb + ip(machine.net, "neigh show dev flannel.1", "route show")


def test_machines_of_both_kinds_share_a_network_and_follow_who_leaves(world: World) -> None:
    theirs, ours, third = world.machines
    with ExitStack() as stack:
        programs = [stack.enter_context(one) for one in (world.flanneld(theirs), world.agent(ours), world.agent(third))]
        until("each pod reaches each other one", lambda: _all_reach(*world.machines), *programs)
        # the whole packet of each way, and not a byte more
        assert ping(theirs, ours, size=1422)
        assert ping(ours, theirs, size=1422)
        assert not ping(ours, theirs, size=1423)
        for one in (theirs, ours):
            device = json.loads(ip(one.net, "-j link show flannel.1"))[0]
            told = world.annotations(one)
            assert json.loads(told[f"{_PREFIX}backend-data"]) == {"VNI": 1, "VtepMAC": device["address"]}
            assert told[f"{_PREFIX}public-ip"] == one.address
        assert third.address in _entries(theirs)
        world.delete(third)
        until("both forget the machine that left", lambda: not any(third.address in _entries(one) for one in (theirs, ours)))
        assert _all_reach(theirs, ours)


@pytest.mark.parametrize("first", ["flanneld", "agent"])
def test_a_machine_changes_its_program_on_the_device_that_the_other_one_left(world: World, first: str) -> None:
    changing, other, late = world.machines
    before, after = (world.flanneld, world.agent) if first == "flanneld" else (world.agent, world.flanneld)
    with world.agent(other) as staying:
        with before(changing) as old:
            until("pods reach each other", lambda: _all_reach(changing, other), old, staying)
        assert _all_reach(changing, other), "pods went on without a program"
        # a machine that comes is known to the program that runs now
        with after(changing) as new, world.agent(late) as coming:
            until("pods of all machines reach each other", lambda: _all_reach(*world.machines), new, staying, coming)
