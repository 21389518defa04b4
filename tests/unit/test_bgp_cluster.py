"""BGP in a cluster's spec and plan, and in what its nodes start with."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import yaml

from moyai.agent.manifests import AgentManifestOptions, render
from moyai.bootstrap.addons import addons
from moyai.cloud.openstack import ADAPTER
from moyai.core.errors import UsageError
from moyai.diagnose.network.announcements import announced_states
from moyai.kube.objects import Ingress, Node, Service
from moyai.plan import steps as s
from moyai.plan.announce.metallb_words import FROM_POOL
from moyai.plan.bgp.bgp_conf import BgpConf, PeerConf, write_bgp_conf
from moyai.plan.changes import classify
from moyai.plan.cluster import plan_up
from moyai.plan.pod_network.bgp import bgp_conf_of
from moyai.plan.pod_network.choice import refuse_mode
from moyai.spec.load import dump, parse
from moyai.spec.model import Cluster
from tests.unit.test_plan_cluster import EMPTY, NEW

ROUTER = "{name: rt-01, address: 10.8.0.2, asn: 64512, accept: [10.9.0.0/24]}"


def spec(routers: str = f"[{ROUTER}]", *, mode: str = "bgp", more: str = "") -> Cluster:
    return parse(f"spec: {{network: {{mode: {mode}, bgp: {{routers: {routers}}}}}{more}}}")


# --- the spec -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("routers", "message"),
    [
        ("[{name: a, address: 10.8.0.2}]", r"routers\[0\]\.asn"),
        ("[{name: a, address: 10.8.0.2, asn: 0}]", r"routers\[0\]\.asn: 0, should be"),
        ("[{name: a, address: 10.8.0.2, asn: 4294967295}]", r"routers\[0\]\.asn"),
        ("[{address: 10.8.0.2, asn: 1}]", r"routers\[0\]\.name"),
        ("[{name: A b, address: 10.8.0.2, asn: 1}]", r"routers\[0\]\.name: 'A b', should be a name of small letters"),
        ("[{name: a, address: router, asn: 1}]", r"routers\[0\]\.address"),
        ("[{name: a, address: 10.244.0.2, asn: 1}]", r"routers\[0\]\.address: '10\.244\.0\.2', should be apart from podCIDR"),
        ("[{name: a, address: 10.8.0.10, asn: 1}]", r"address: '10\.8\.0\.10', should be apart from 10\.8\.0\.10 to"),
        ("[{name: a, address: 10.8.0.4, asn: 1}]", r"address: '10\.8\.0\.4', should be apart from .* and 10\.8\.0\.4"),
        ("[{name: a, address: 224.0.0.5, asn: 1}]", r"address: '224\.0\.0\.5', should be the address of a router, not one of"),
        ("[{name: a, address: 0.0.0.0, asn: 1}]", r"address: '0\.0\.0\.0', should be the address of a router"),
        (
            "[{name: a, address: 10.8.0.2, asn: 1, passwordSecret: My Key}]",
            r"passwordSecret: 'My Key', should be the name",
        ),
        ("[{name: a, address: 10.8.0.2, asn: 1, accept: [10.8.0.0/16]}]", r"accept\[0\]"),
        ("[{name: a, address: 10.8.0.2, asn: 1, accept: [0.0.0.0/0]}]", r"accept\[0\]: '0\.0\.0\.0/0', should be apart from"),
        (f"[{ROUTER}, {ROUTER}]", r"routers\[1\]\.name: 'rt-01', should be another name than rt-01"),
        (f"[{ROUTER}, {ROUTER.replace('rt-01', 'b')}]", r"routers\[1\]\.address: '10\.8\.0\.2', should be another address"),
    ],
)
def test_a_wrong_router_is_refused_in_one_line(routers: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        spec(routers)
    assert "\n" not in str(refused.value)


def test_routers_without_the_mode_are_refused() -> None:
    with pytest.raises(UsageError, match=r"routers: .*should be left out where mode is not bgp"):
        spec(mode="vxlan")


def test_a_label_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="reflectorLabel"):
        parse("spec: {network: {mode: bgp, bgp: {reflectorLabel: 'a b'}}}")


# --- the plan -------------------------------------------------------------------------------------------------------------


def test_agents_get_what_the_spec_says_of_bgp() -> None:
    assert bgp_conf_of(spec().spec) == BgpConf(
        64522, "10.244.0.0/16", peers=(PeerConf("rt-01", "10.8.0.2", 64512, accept=("10.9.0.0/24",)),)
    )
    ranges = ", services: {announce: {ranges: [10.8.0.96/28]}}"
    assert bgp_conf_of(spec("[]", mode="vxlan", more=ranges).spec) == BgpConf(ranges=("10.8.0.96/28",))
    assert bgp_conf_of(spec("[]", mode="vxlan").spec) is None


def test_groups_let_bgp_and_bfd_of_named_routers_in() -> None:
    cluster = spec()
    plan = plan_up(cluster, EMPTY, recorded=NEW, addons=addons(ADAPTER.volume_names, spec=cluster.spec))
    rules = {
        (rule.rule.protocol, rule.rule.port_min)
        for step in plan.steps
        if isinstance(step, s.SetRules)
        for rule in step.add
        if rule.rule.remote_cidr == "10.8.0.2/32"
    }
    assert rules == {("tcp", 179), ("udp", 3784), ("udp", 4784)}


def test_routers_change_while_the_cluster_exists_and_a_cluster_of_before_has_none() -> None:
    old, new = dump(spec("[]")), dump(spec())
    (change,) = classify(old, new)
    assert (change.path, change.kind) == ("spec.network.bgp", "live")
    before: Any = dump(spec("[]", mode="routes"))
    del before["spec"]["network"]["bgp"]
    assert classify(before, dump(spec("[]", mode="routes"))) == ()


def test_a_cloud_that_drops_pods_addresses_is_refused_with_what_would_do() -> None:
    with pytest.raises(UsageError, match="'bgp', should be 'vxlan'"):
        refuse_mode(spec(), replace(EMPTY, sources_allowed=False))


# --- what nodes start with ------------------------------------------------------------------------------------------------


def rendered(*controllers: str, bgp: BgpConf | None) -> list[dict[str, Any]]:
    options = AgentManifestOptions(
        "moyai", "10.8.0.10:6443", controllers=controllers, bgp_conf=write_bgp_conf(bgp) if bgp else None
    )
    return list(yaml.safe_load_all(render(options)))


def container(objects: list[dict[str, Any]]) -> dict[str, Any]:
    (daemon_set,) = [one for one in objects if one["kind"] == "DaemonSet"]
    found: dict[str, Any] = daemon_set["spec"]["template"]["spec"]["containers"][0]
    return found


def test_only_agents_with_bgp_have_frrs_capabilities_and_a_folder_for_its_sockets() -> None:
    with_it, without = container(rendered("bgp", bgp=BgpConf(1))), container(rendered("announce", bgp=None))
    assert without["securityContext"]["capabilities"]["add"] == ["NET_ADMIN", "NET_RAW"]
    added = {"NET_ADMIN", "NET_RAW", "NET_BIND_SERVICE", "SYS_ADMIN", "SETGID"}
    assert set(with_it["securityContext"]["capabilities"]["add"]) == added
    assert {"name": "frr", "mountPath": "/run/frr"} in with_it["volumeMounts"]
    assert "--bgp-config-path=/etc/moyai-bgp/bgp.json" in with_it["args"]
    assert not any("bgp" in one for one in without["args"])


def test_rights_in_the_namespace_come_with_the_namespace_and_apart_from_others() -> None:
    objects = rendered("announce", "bgp", bgp=BgpConf(1))
    kinds = [(one["kind"], one["metadata"]["name"]) for one in objects]
    assert kinds.index(("Namespace", "metallb-system")) < kinds.index(("Role", "moyai-agent-bgp"))
    assert ("Role", "moyai-agent") in kinds
    assert len(kinds) == len(set(kinds))


def test_another_configuration_makes_other_pods() -> None:
    def annotations(conf: BgpConf) -> Any:
        (daemon_set,) = [one for one in rendered("bgp", bgp=conf) if one["kind"] == "DaemonSet"]
        return daemon_set["spec"]["template"]["metadata"]["annotations"]

    assert annotations(BgpConf(1)) == annotations(BgpConf(1)) != annotations(BgpConf(2))


def test_the_configuration_is_in_the_manifests_as_the_agent_reads_it() -> None:
    (found,) = [one for one in rendered("bgp", bgp=BgpConf(7)) if one["kind"] == "ConfigMap"]
    assert json.loads(found["data"]["bgp.json"])["asn"] == 7


# --- how it is seen -------------------------------------------------------------------------------------------------------


def test_a_service_that_is_told_to_routers_needs_no_owner() -> None:
    made = Service("default", "web", "u", type="LoadBalancer", annotations={FROM_POOL: "main"}, ingress=(Ingress("10.8.0.96"),))
    (state,) = announced_states(
        [made], [], nodes=[Node(name, name, ready=True) for name in "ab"], told={"default/web": ["b", "a"]}
    )
    assert (state.node, state.problem) == ("by BGP from a, b", "")
    # what a dead node has said counts for nothing
    (state,) = announced_states([made], [], nodes=[Node("a", "a", ready=False)], told={"default/web": ["a"]})
    assert "no node answers" in state.problem
