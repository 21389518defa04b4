"""From one mode of the pod network to another on a cluster that runs: planned, done, refused, finished after a kill."""
# ruff: noqa: E501 (messages are compared whole)

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from moyai.agent import manifests
from moyai.bootstrap import addons
from moyai.cloud.memory import Killed
from moyai.cloud.model import SourceAddress
from moyai.core.errors import Terminal, UsageError
from moyai.core.progress import Reporter
from moyai.kube.objects import parse_node
from moyai.kube.resources import CONFIG_MAPS, DAEMON_SETS, DEPLOYMENTS, NODES, SECRETS
from moyai.lifecycle import execute
from moyai.lifecycle import mode_change as moving
from moyai.lifecycle.record import Record
from moyai.plan import text
from moyai.plan.bgp.bgp_conf import read_bgp_conf
from moyai.plan.node_network import MOVES, MOVES_BGP, NetworkConf, Peer, announcement, me_of, read_net_conf, write_net_conf
from moyai.plan.node_network.flannel import PeerReader
from moyai.plan.pod_network.live_files import read_live_files, write_live_files
from moyai.plan.pod_network.mode_change import live_files, stages, way
from moyai.spec.load import parse
from tests.fakes.cloud import named
from tests.netns.pod_world import node_object
from tests.unit.lifecycle_world import World


def spec(mode: str) -> str:
    return f"spec: {{network: {{mode: {mode}}}}}"


class MovingWorld(World):
    """Agents of its nodes can move."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, able: bool = True) -> None:
        super().__init__(tmp_path, monkeypatch)
        monkeypatch.setattr(moving, "open_api", self.open_api)
        self._able = able

    def build(self, mode: str) -> MovingWorld:
        self.up(spec(mode))
        for node in self.kube().store.all(NODES) if self._able else ():
            meta = {
                **node["metadata"],
                "annotations": {**node["metadata"].get("annotations", {}), MOVES: "true", MOVES_BGP: "true"},
            }
            self.kube().store.put(NODES, {**node, "metadata": meta})
        return self

    def migrate(self, to: str) -> moving.ModeResult:
        reporter = Reporter(clock=self.clock)
        return moving.migrate("quickstart", self.cloud, to=to, paths=self.paths, reporter=reporter, clock=self.clock)

    def planned(self, to: str) -> list[str]:
        legs = moving.preview_migration("quickstart", self.cloud, to=to, paths=self.paths, clock=self.clock)
        return [line for mode, plan in legs for line in (f"to {mode}", *text.lines(plan))]

    @property
    def mode(self) -> str:
        record = Record.open(self.paths, "quickstart")
        assert record is not None
        return record.cluster.spec.network.mode

    def agents(self) -> dict[str, Any]:
        return self.kube().store.find(DAEMON_SETS, "moyai-agent", namespace="kube-system")["spec"]["template"]

    def routes(self) -> list[str]:
        return sorted(route.destination for route in named(self.store.routers, "quickstart-router").routes)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MovingWorld:
    return MovingWorld(tmp_path, monkeypatch)


def test_the_way_leads_by_modes_that_understand_each_other() -> None:
    assert way("routes", "vxlan") == ("host-gw", "vxlan")
    assert way("vxlan", "routes") == ("host-gw", "routes")
    assert way("vxlan", "vxlan") == ()
    assert way("vxlan", "bgp") == ("host-gw", "bgp")
    assert way("bgp", "routes") == ("host-gw", "routes")
    with pytest.raises(UsageError, match="--to none: should be bgp or host-gw or routes, the cluster has vxlan"):
        way("vxlan", "none")
    with pytest.raises(UsageError, match="nothing leads from mode none to another one"):
        way("none", "vxlan")


@pytest.mark.parametrize(
    ("begin", "target"), [("host-gw", "vxlan"), ("vxlan", "host-gw"), ("host-gw", "bgp"), ("bgp", "host-gw")]
)
def test_at_each_stage_both_kinds_of_nodes_are_peers(begin: str, target: str) -> None:
    """With any part of the nodes at a stage and the others at the one before."""
    first, last = parse(spec(begin)).spec, parse(spec(target)).spec
    have, want = addons.pod_network_of(first).conf, addons.pod_network_of(last).conf
    assert have is not None
    assert want is not None
    confs = [have, *(one.conf for one in stages(first, last)), want]
    for older, newer in pairwise(confs):
        for mine, other in ((older, newer), (newer, older)):
            if mine.backend == "bgp":
                # FRR says who is there
                continue
            peer = peer_of(mine, other)
            assert peer is not None, (mine, other)
            # who sends through a tunnel knows the other's
            assert mine.direct_routing or mine.backend == "host-gw" or peer.mac
        assert older == read_net_conf(write_net_conf(older))


def peer_of(mine: NetworkConf, other: NetworkConf) -> Peer | None:
    """The node n2, whose agent has ``other``, as the agent of n1 sees it."""
    nodes = [parse_node(node_object(name, f"10.8.0.{n}", pod_cidr=f"10.244.{n}.0/24")) for n, name in enumerate(("n1", "n2"))]
    me, them = me_of(nodes[0], mine), me_of(nodes[1], other)
    announced = replace(nodes[1], annotations=announcement(them, other).annotations)  # type: ignore[arg-type]
    found = PeerReader(mine).peers([nodes[0], announced], me)  # type: ignore[arg-type]
    assert found.problems == {}
    return found.peers[0] if found.peers else None


def test_what_nodes_are_configured_with_is_data() -> None:
    files = live_files(parse(spec("vxlan")).spec.network)
    assert read_live_files(write_live_files(files)) == files
    assert files.overhead == 50
    assert "10.8.0.0/24" not in files.rules
    assert "10.8.0.0/24" in live_files(parse(spec("host-gw")).spec.network).rules
    with pytest.raises(UsageError, match="MOYAI_NODE_FILES: should be what moyai writes"):
        read_live_files("{}")


def test_from_host_gw_to_vxlan_and_back(world: MovingWorld) -> None:
    world.build("host-gw")
    assert world.planned("vxlan") == [
        "to vxlan",
        "1  bring the nodes' agents to vxlan-1, one by one: each node gets a tunnel, and sends directly",
        "2  wait until all pods of moyai-agent are new and ready  (after 1)",
        "3  bring the nodes' agents to vxlan-2, one by one: nodes begin to send through their tunnels  (after 2)",
        "4  wait until all pods of moyai-agent are new and ready  (after 3)",
        "5  bring the nodes' agents to final, one by one: mode vxlan  (after 4)",
        "6  wait until all pods of moyai-agent are new and ready  (after 5)",
        "7  add 0 rules to security group control-plane, remove 4  (after 6)",
        "8  add 0 rules to security group worker, remove 1  (after 6)",
    ]
    assert world.migrate("vxlan").way == ("vxlan",)
    assert world.mode == "vxlan"
    template = world.agents()
    assert "annotations" not in template["metadata"]
    assert "MOYAI_NET_CONF" not in str(template)
    conf = world.kube().store.find(CONFIG_MAPS, "moyai-agent", namespace="kube-system")["data"]["net-conf.json"]
    assert json.loads(conf)["Backend"]["Type"] == "vxlan"
    assert text.lines(world.preview(spec("vxlan"))) == ["nothing to do"]
    with pytest.raises(UsageError, match=r"network\.mode: 'host-gw', should stay 'vxlan'") as refused:
        world.preview(spec("host-gw"))
    assert refused.value.hint == "`moyai net migrate --to MODE` changes it"
    world.migrate("host-gw")
    assert text.lines(world.preview(spec("host-gw"))) == ["nothing to do"]
    assert world.migrate("host-gw").way == ()


def test_from_routes_to_host_gw_the_router_loses_its_routes_last_and_back_it_has_them_first(world: MovingWorld) -> None:
    world.build("routes")
    assert world.routes() == ["10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24"]
    lines = world.planned("host-gw")
    assert lines[1:] == [
        "1  bring the nodes' agents to final, one by one: mode host-gw",
        "2  wait until all pods of moyai-agent are new and ready  (after 1)",
        "3  let the cloud controller manager no longer keep routes in the router  (after 2)",
        "4  wait until all pods of moyai-cloud-controller-manager are new and ready  (after 3)",
        "5  remove route 10.244.0.0/24 via 10.8.0.10, remove route 10.244.1.0/24 via 10.8.0.11, remove route 10.244.2.0/24 via 10.8.0.12  (after 4)",
    ]
    world.migrate("host-gw")
    assert world.routes() == []
    secret = world.kube().store.find(SECRETS, "moyai-cloud-controller-manager", namespace="kube-system")
    assert "router-id" not in secret["stringData"]["cloud.conf"]
    deployment = world.kube().store.find(DEPLOYMENTS, "moyai-cloud-controller-manager", namespace="kube-system")
    assert deployment["spec"]["template"]["metadata"]["annotations"] == {"moyai.dev/revision": "host-gw"}
    assert text.lines(world.preview(spec("host-gw"))) == ["nothing to do"]
    back = world.planned("routes")
    assert back[1].startswith("1  add route 10.244.0.0/24 via 10.8.0.10")
    assert "bring the nodes' agents to final" in back[4]
    world.migrate("routes")
    assert world.routes() == ["10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24"]
    assert "--controllers=policy,cluster-policy" in str(world.agents())
    assert text.lines(world.preview(spec("routes"))) == ["nothing to do"]


def test_from_host_gw_to_bgp_and_back(world: MovingWorld) -> None:
    world.build("host-gw")
    lines = world.planned("bgp")
    assert [line.split("  ", 1)[1] for line in lines[1:] if "agents to" in line] == [
        "bring the nodes' agents to bgp-1, one by one: nodes speak BGP beside their own routes",
        "bring the nodes' agents to final, one by one: mode bgp  (after 2)",
    ]
    assert world.migrate("bgp").way == ("bgp",)
    assert "MOYAI_BGP_CONF" not in str(world.agents())
    assert "--bgp-config-path" in str(world.agents())
    assert text.lines(world.preview(spec("bgp"))) == ["nothing to do"]
    assert [line for line in world.planned("routes") if line.startswith("to ")] == ["to host-gw", "to routes"]
    world.migrate("host-gw")
    assert "bgp" not in next(one for one in world.agents()["spec"]["containers"][0]["args"] if "--controllers" in one)
    assert text.lines(world.preview(spec("host-gw"))) == ["nothing to do"]


def test_in_the_stages_of_bgp_nodes_speak_it_with_the_configuration_of_their_environment() -> None:
    first, last = parse(spec("host-gw")).spec, parse(spec("bgp")).spec
    for begin, target in ((first, last), (last, first)):
        for stage in stages(begin, target):
            assert stage.bgp is not None
            assert stage.bgp.pods == "10.244.0.0/16"
            assert "bgp" in addons._agent_controllers(target, stage=stage)  # pyright: ignore[reportPrivateUsage]
            variables = {one["name"]: one["value"] for one in manifests._staged(stage)}  # pyright: ignore[reportPrivateUsage]
            assert read_bgp_conf(variables["MOYAI_BGP_CONF"]) == stage.bgp
            assert read_net_conf(variables["MOYAI_NET_CONF"]) == stage.conf


def test_ports_may_send_from_pods_before_a_node_sends_directly(world: MovingWorld) -> None:
    world.build("vxlan")
    foreign = SourceAddress("192.0.2.0/24")
    port = named(world.store.ports, "quickstart-workers-0")
    world.store.ports.put(replace(port, send_from=(foreign,)))
    assert any("let port quickstart-workers-0 send from 10.244.1.0/24" in line for line in world.planned("host-gw")[:9])
    world.migrate("host-gw")
    assert foreign in named(world.store.ports, "quickstart-workers-0").send_from


def test_what_cannot_be_is_refused_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = MovingWorld(tmp_path, monkeypatch, able=False).build("host-gw")
    before = world.mortal.changes
    with pytest.raises(
        UsageError, match=r"the agents of quickstart-control-plane-0, .* are of an older moyai, which cannot move"
    ):
        world.migrate("vxlan")
    with pytest.raises(UsageError, match="--to nonsense: should be bgp or routes or vxlan, the cluster has host-gw"):
        world.migrate("nonsense")
    world.kube().mute = True
    with pytest.raises(Terminal, match="the Kubernetes API of cluster quickstart does not answer"):
        world.migrate("routes")
    world.kube().mute = False
    assert world.mortal.changes == before
    assert not (world.paths.clusters / "quickstart/mode-change.json").exists()


def test_a_cloud_that_checks_sources_carries_vxlan_alone(world: MovingWorld) -> None:
    world.build("vxlan")
    world.store.sources_allowed = False
    with pytest.raises(UsageError, match="--to host-gw: should be another mode: cloud moyai does not let ports send"):
        world.migrate("routes")


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("begin", "target"),
    [
        ("host-gw", "vxlan"),
        ("vxlan", "host-gw"),
        ("routes", "vxlan"),
        ("vxlan", "routes"),
        ("host-gw", "bgp"),
        ("bgp", "host-gw"),
    ],
)
def test_killed_at_every_change_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: str, target: str) -> None:
    monkeypatch.setattr(execute, "WORKERS", 1)
    world = MovingWorld(tmp_path / "count", monkeypatch).build(begin)
    calls = count_applied(world, target)
    assert calls >= 2
    for number in range(calls):
        world = MovingWorld(tmp_path / f"{number}", monkeypatch).build(begin)
        seen = stages_seen(world, monkeypatch)
        die_at(world, number)
        with pytest.raises(Killed):
            world.migrate(target)
        world.kube().store.on_call = lambda _name, _after: None
        if world.mode != begin or (world.paths.clusters / "quickstart/mode-change.json").exists():
            with pytest.raises(UsageError, match=f"is on its way to mode {target}"):
                world.up(spec(world.mode))
        world.migrate(target)
        assert world.mode == target
        assert text.lines(world.preview(spec(target))) == ["nothing to do"]
        # never back to a stage that nodes of the last would not understand
        assert seen == sorted(seen, key=lambda one: ORDER.index(one)), (number, seen)


ORDER = ["host-gw-1", "host-gw-2", "vxlan-1", "vxlan-2", "bgp-1"]


def stages_seen(world: MovingWorld, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the stages that agents were brought to, in their order."""
    found: list[str] = []
    apply = moving.agent_manifests

    def noted(facts: Any, *, stage: Any = None) -> str:
        if stage is not None:
            found.append(stage.name)
        return apply(facts, stage=stage)

    monkeypatch.setattr(moving, "agent_manifests", noted)
    return found


def count_applied(world: MovingWorld, target: str) -> int:
    calls = 0

    def count(name: str, after: bool) -> None:
        nonlocal calls
        calls += not after and name.startswith("apply daemonsets")

    world.kube().store.on_call = count
    world.migrate(target)
    return calls


def die_at(world: MovingWorld, number: int) -> None:
    calls = 0

    def die(name: str, after: bool) -> None:
        nonlocal calls
        if name.startswith("apply daemonsets") and not after:
            calls += 1
            if calls == number + 1:
                raise Killed

    world.kube().store.on_call = die
