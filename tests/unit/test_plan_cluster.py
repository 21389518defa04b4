"""Plans of clusters as text: what is made, what is kept stable, what is refused, and in what order all goes."""
# ruff: noqa: E501 (messages are compared whole)

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moyai.bootstrap.addons import addons, addons_of
from moyai.cloud.capabilities import Capability
from moyai.cloud.model import Flavor, Image, Network, Port, PortUse, Quota, Route, Router, SecurityGroupRule, Server
from moyai.cloud.openstack import ADAPTER
from moyai.core.errors import MoyaiError, Terminal, UsageError
from moyai.core.keys import Kind
from moyai.plan import text
from moyai.plan.changes import classify, unclassified
from moyai.plan.cluster import plan_up
from moyai.plan.nodes import allocation_pool, wanted_nodes
from moyai.plan.observed import NodeAllocation, Observed, Recorded
from moyai.plan.rules import missing_rules, wanted_rules
from moyai.plan.teardown import Target, plan_down
from moyai.spec.load import dump, parse

EMPTY = Observed(
    flavors=(Flavor("f1", "m1.small", 1, 2048), Flavor("f2", "m1.medium", 2, 4096), Flavor("f0", "m1.tiny", 1, 512)),
    zones=("az1", "az2"),
    images=(Image("i", "moyai-node-1.37.1", "ACTIVE"),),
    networks=(Network("ext", "public", external=True),),
)
NAMES = ADAPTER.volume_names
NEW = Recorded("quickstart", "0123456789")
TAG = ("moyai.cluster=0123456789",)


def test_the_plan_from_nothing() -> None:
    assert text.lines(plan_up(parse(""), EMPTY, recorded=NEW, addons=addons(NAMES, spec=parse("").spec))) == [
        " 1  create network quickstart-network",
        " 2  create subnet quickstart-subnet 10.8.0.0/24  (after 1)",
        " 3  create router quickstart-router",
        " 4  create security group quickstart-control-plane",
        " 5  create security group quickstart-worker",
        " 6  create floating ip for the API",
        " 7  write the administrator's kubeconfig  (after 6)",
        " 8  create key pair quickstart-0123456789",
        " 9  create credential quickstart-0123456789",
        "10  create credential quickstart-volumes-0123456789",
        "11  create port quickstart-control-plane-0 10.8.0.10, pods 10.244.0.0/24  (after 1, 2, 4)",
        "12  create server quickstart-control-plane-0 (m1.medium in az1)  (after 2, 3, 5, 6, 8, 9, 10, 11)",
        "13  create port quickstart-workers-0 10.8.0.11, pods 10.244.1.0/24  (after 1, 2, 5, 12)",
        "14  create port quickstart-workers-1 10.8.0.12, pods 10.244.2.0/24  (after 1, 2, 5, 12)",
        "15  create server quickstart-workers-0 (m1.small in az1)  (after 8, 13)",
        "16  create server quickstart-workers-1 (m1.small in az2)  (after 8, 14)",
        "17  wait until 3 machines run  (after 12, 15, 16)",
        "18  put the router on the external network  (after 3, 17)",
        "19  put the subnet on the router  (after 2, 3, 17, 18)",
        "20  add 11 rules to security group control-plane  (after 4, 5, 17)",
        "21  add 3 rules to security group worker  (after 4, 5, 17)",
        "22  put the floating ip on port quickstart-control-plane-0  (after 6, 11, 18, 19)",
        "23  add route 10.244.0.0/24 via 10.8.0.10, add route 10.244.1.0/24 via 10.8.0.11, add route 10.244.2.0/24 via 10.8.0.12  (after 3, 19)",
        "24  wait until the Kubernetes API answers  (after 6, 7, 12, 22)",
        "25  delete the unsealing key from the metadata of server quickstart-control-plane-0  (after 12, 24)",
        "26  wait until 3 nodes are Ready  (after 17, 24)",
        "27  delete the bootstrap token, since all nodes have joined  (after 26)",
        "28  wait until moyai-cloud-controller-manager, coredns, kube-proxy run  (after 24, 26)",
        "29  wait until moyai-agent run  (after 24, 26)",
        "30  wait until csi-cinder-controllerplugin, snapshot-controller, csi-cinder-nodeplugin run  (after 24, 26)",
    ]


def test_nothing_to_do_is_said() -> None:
    assert text.lines(plan_down(EMPTY, Target("quickstart", "0123456789"))) == ["nothing to do"]


def test_data_is_plain() -> None:
    data = text.data(plan_up(parse(""), EMPTY, recorded=NEW))
    assert data["steps"][1] == {
        "key": "subnet",
        "verb": "create",
        "kind": "subnet",
        "name": "",
        "does": "create subnet quickstart-subnet 10.8.0.0/24",
        "after": ["network"],
    }
    waits = {step["key"]: step["after"] for step in data["steps"] if step["verb"] == "wait"}
    assert waits["machines boot"][0] == "server quickstart-control-plane-0"
    assert json.loads(json.dumps(data)) == data
    assert {key: data["nodes"][-1][key] for key in ("name", "number", "slot")} == {
        "name": "quickstart-workers-1",
        "number": 1,
        "slot": 2,
    }
    assert list(data["nodes"][0]) == ["name", "role", "pool", "number", "flavor", "zone", "slot", "address", "pod_cidr"]


def test_a_cluster_does_without_volumes_and_load_balancers_and_the_plan_says_so() -> None:
    observed = replace(EMPTY, capabilities=frozenset(Capability) - {Capability.DISKS, Capability.LOAD_BALANCERS})
    addons = addons_of(NAMES, spec=parse("").spec, ready=False, intended=(), capabilities=observed.capabilities)
    plan = plan_up(parse(""), observed, recorded=NEW, addons=addons)
    assert plan.notes == (
        "cloud moyai has no volumes: the CSI driver is left out, and claims of volumes stay pending",
        "cloud moyai has no load balancers: Services of type LoadBalancer stay pending, unless nodes announce addresses that you name in spec.services.announce.ranges",
    )
    assert not [line for line in text.lines(plan) if "volumes" in line and line.strip()[0].isdigit()]


def test_the_classes_of_changes_are_complete_and_said() -> None:
    old = dump(parse(""))
    new = dump(parse("spec: {nodePools: [{replicas: 3, labels: {a: b}}, {name: big}], volumes: {reclaimPolicy: Retain}}"))
    assert [change.text for change in classify(old, new)] == [
        "spec.volumes.reclaimPolicy: Delete → Retain (live: the default StorageClass follows)",
        "spec.nodePools[workers].replicas: 2 → 3 (live: machines are made or removed)",
        "spec.nodePools[workers].labels: {} → {'a': 'b'} (rolling: a node registers with them)",
        "spec.nodePools[big].replicas: 0 → 2 (live: machines are made or removed)",
    ]
    assert unclassified(old["spec"]) == set()


@pytest.mark.parametrize(
    ("spec", "observed", "error", "message"),
    [
        (
            "{nodePools: [{flavor: big}]}",
            EMPTY,
            UsageError,
            "spec.nodePools[0].flavor: 'big', cloud moyai has no such flavor, should be one of m1.medium, m1.small, m1.tiny",
        ),
        (
            "{controlPlane: {flavor: m1.tiny}}",
            EMPTY,
            UsageError,
            "spec.controlPlane.flavor: 'm1.tiny' has 512 MB, should have at least 1500 MB",
        ),
        (
            "{nodePools: [{zones: [az9]}]}",
            EMPTY,
            UsageError,
            "spec.nodePools[0].zones[0]: 'az9', cloud moyai has no such zone, should be one of az1, az2",
        ),
        (
            "{controlPlane: {zone: az9}}",
            EMPTY,
            UsageError,
            "spec.controlPlane.zone: 'az9', cloud moyai has no such zone, should be one of az1, az2",
        ),
        (
            "{image: mine}",
            EMPTY,
            UsageError,
            "spec.image: 'mine', cloud moyai has no such image, should be one of moyai-node-1.37.1",
        ),
        (
            "{kubernetesVersion: '1.36.0'}",
            EMPTY,
            UsageError,
            "spec.kubernetesVersion: 'moyai-node-1.36.0', cloud moyai has no such image, should be one of moyai-node-1.37.1: `moyai image build --kubernetes 1.36.0` and `moyai image upload --cloud moyai --kubernetes 1.36.0` make it",
        ),
        (
            "{image: moyai-node-1.37.1}",
            replace(EMPTY, images=(Image("i", "moyai-node-1.37.1", "QUEUED", ready=False),)),
            Terminal,
            "image moyai-node-1.37.1 is queued in cloud moyai: wait until the cloud has it ready, or upload it again",
        ),
        (
            "{network: {externalNetwork: out}}",
            EMPTY,
            UsageError,
            "spec.network.externalNetwork: 'out', cloud moyai has no such external network, should be one of public",
        ),
        (
            "{}",
            replace(EMPTY, networks=()),
            Terminal,
            "cloud moyai has no external network: without one neither API nor load balancers can be reached",
        ),
        (
            "{}",
            replace(EMPTY, networks=(Network("a", "a", external=True), Network("b", "b", external=True))),
            UsageError,
            "spec.network.externalNetwork: left out, should be one of a, b: cloud moyai has several external networks",
        ),
        (
            "{nodePools: [{replicas: 30}]}",
            EMPTY,
            Terminal,
            "31 nodes need 31 routes in one router, cloud moyai allows 30 (spec.network.maxRoutes): have the operator raise the limit and say so in spec.network.maxRoutes, or use fewer nodes",
        ),
        (
            "{}",
            replace(EMPTY, quotas=(Quota("ram", 6000, 1000, Kind.MEMORY), Quota("instances", 2, 0, Kind.SERVER))),
            Terminal,
            "cluster quickstart does not fit into the quota of cloud moyai: 3 servers are needed and 2 are free (instances); 8192 MB of memory are needed and 5000 are free (ram): have the operator raise instances, ram, or: fewer nodes in the spec or fewer nodes or smaller flavors in the spec",
        ),
    ],
)
def test_what_the_cloud_cannot_do_is_refused(spec: str, observed: Observed, error: type[MoyaiError], message: str) -> None:
    with pytest.raises(error) as caught:
        plan_up(parse(f"spec: {spec}"), observed, recorded=NEW)
    assert str(caught.value) == message


def test_an_unlimited_quota_is_no_limit() -> None:
    assert plan_up(parse(""), replace(EMPTY, quotas=(Quota("cores", -1, 500, Kind.CPU),)), recorded=NEW)


def test_seats_are_kept_and_the_lowest_free_number_taken() -> None:
    cluster = parse("spec: {nodePools: [{replicas: 3}]}")
    allocations = {"quickstart-control-plane-0": NodeAllocation(0, "az2"), "quickstart-workers-1": NodeAllocation(5, "az1")}
    nodes = wanted_nodes(cluster, zones=("az1", "az2"), allocations=allocations, used_addresses=["10.8.0.11"])
    assert [(n.name, n.address, n.pod_cidr, n.zone) for n in nodes] == [
        ("quickstart-control-plane-0", "10.8.0.10", "10.244.0.0/24", "az2"),
        ("quickstart-workers-0", "10.8.0.12", "10.244.2.0/24", "az2"),
        ("quickstart-workers-1", "10.8.0.15", "10.244.5.0/24", "az1"),
        ("quickstart-workers-2", "10.8.0.13", "10.244.3.0/24", "az1"),
    ]


@given(st.integers(16, 26), st.integers(20, 28), st.integers(0, 40))
def test_nodes_never_share_anything(node_prefix: int, pod_prefix: int, replicas: int) -> None:
    try:
        cluster = parse(
            f"spec: {{network: {{nodeCIDR: 10.8.0.0/{node_prefix}, podCIDR: 10.240.0.0/16, nodePodPrefix: {pod_prefix}}}, "
            f"nodePools: [{{replicas: {replicas}}}]}}"
        )
    except UsageError:
        return
    nodes = wanted_nodes(cluster, zones=("a",), allocations={})
    first, _ = allocation_pool(cluster.spec.network.node_cidr)
    assert len({node.address for node in nodes}) == len({node.pod_cidr for node in nodes}) == replicas + 1
    assert all(IPv4Network(node.pod_cidr).subnet_of(cluster.spec.network.pod_cidr) for node in nodes)
    assert all(IPv4Network(node.address) < IPv4Network(first) for node in nodes)


def test_a_dropped_access_range_loses_its_rule_and_foreign_rules_stay() -> None:
    before = wanted_rules(parse("spec: {access: {apiCIDRs: [10.0.0.0/8, 192.168.0.0/16]}}").spec)
    groups = {"control-plane": "c", "worker": "w"}
    have = [
        replace(item.rule, id=str(number), group_id=groups[item.role], remote_group_id=groups.get(item.remote_role or ""))
        for number, item in enumerate(before)
    ]
    foreign = SecurityGroupRule(
        "w", protocol="tcp", port_min=30080, port_max=30080, description="moyai.cluster=x service a/b", id="ccm"
    )
    egress = SecurityGroupRule("w", direction="egress", id="out")
    after = wanted_rules(parse("spec: {access: {apiCIDRs: [10.0.0.0/8]}}").spec)
    add, remove = missing_rules(after, [*have, foreign, egress], groups={"control-plane": "c", "worker": "w"})
    assert add == ()
    assert [rule.remote_cidr for rule in remove] == ["192.168.0.0/16"]


def test_etcd_is_for_control_planes_only() -> None:
    def reaches(item_remote: object, port: int) -> bool:
        return any(
            rule.role == "control-plane"
            and rule.remote_role == item_remote
            and rule.rule.remote_cidr is None
            and (rule.rule.protocol in (None, "tcp"))
            and (rule.rule.port_min is None or rule.rule.port_min <= port <= (rule.rule.port_max or 0))
            for rule in wanted_rules(parse("").spec)
        )

    assert reaches("control-plane", 2379)
    assert not reaches("worker", 2379)
    assert reaches("worker", 6443)


def test_down_never_plans_for_another_cluster() -> None:
    other = ("moyai.cluster=ffffffffff",)
    observed = replace(
        EMPTY,
        networks=(Network("n", "quickstart-network", tags=other), Network("m", "quickstart-network")),
        routers=(Router("r", "quickstart-router", tags=other),),
        servers=(Server("s", "quickstart-workers-0", "ACTIVE", "az1", "m1.small", tags=other),),
        ports=(Port("p", "quickstart-workers-0", "n", "ACTIVE", tags=other),),
        keypairs=("quickstart-ffffffffff", "mine"),
        credentials={"quickstart-ffffffffff": "c"},
    )
    assert plan_down(observed, Target("quickstart", "0123456789", frozenset())).steps == ()


def test_the_order_of_down() -> None:
    observed = replace(
        EMPTY,
        networks=(Network("n", "quickstart-network", tags=TAG),),
        routers=(Router("r", "quickstart-router", tags=TAG),),
        servers=(
            Server(
                "s0",
                "quickstart-control-plane-0",
                "ACTIVE",
                "az1",
                "m",
                metadata={"moyai.cluster": "0123456789", "moyai.role": "control-plane"},
            ),
            Server(
                "s1",
                "quickstart-workers-0",
                "ACTIVE",
                "az1",
                "m",
                metadata={"moyai.cluster": "0123456789", "moyai.role": "worker"},
            ),
        ),
        ports=(
            Port("p0", "quickstart-control-plane-0", "n", "ACTIVE", device_id="s0", use=PortUse.MACHINE, tags=TAG),
            Port("p1", "quickstart-workers-0", "n", "ACTIVE", device_id="s1", use=PortUse.MACHINE, tags=TAG),
            Port("d", "", "n", "ACTIVE", use=PortUse.CLOUD),
        ),
    )
    assert text.lines(plan_down(observed, Target("quickstart", "0123456789"))) == [
        "1  delete server quickstart-control-plane-0",
        "2  delete server quickstart-workers-0",
        "3  delete port quickstart-control-plane-0  (after 1)",
        "4  delete port quickstart-workers-0  (after 1, 2)",
        "5  delete router quickstart-router  (after 1)",
        "6  delete network quickstart-network  (after 3, 4)",
    ]


def test_a_route_of_another_family_in_the_router_counts_as_somebody_elses() -> None:
    routes = (Route("fd00::/64", "fd01::1"), Route("192.168.0.0/24", "10.8.0.99"))
    observed = replace(EMPTY, routers=(Router("r", "quickstart-router", routes=routes, tags=TAG),))
    with pytest.raises(Terminal, match="30 nodes need 32 routes in one router, cloud moyai allows 30"):
        plan_up(parse("spec: {nodePools: [{replicas: 29}]}"), observed, recorded=NEW)
