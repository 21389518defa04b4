"""The planner of load balancers: from any tree to any tree in few steps, and no step where nothing differs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moyai.cloud.load_balancers import BalancingAlgorithm, Listener, LoadBalancer, LoadBalancers, Member, TrafficProtocol
from moyai.cloud.model import SecurityGroupRule
from moyai.core.errors import UsageError
from moyai.core.ids import ClusterIdentity
from moyai.kube.objects import Node, NodeAddress, Service, ServicePort, Taint
from moyai.kube.objects.node import EXCLUDE_LABEL
from moyai.plan.load_balancer import difference as plan
from moyai.plan.load_balancer.desired import desired_load_balancer
from moyai.plan.load_balancer.eligibility import eligible_nodes
from moyai.plan.load_balancer.service_settings import LoadBalancerSettings, MonitorSettings
from moyai.plan.load_balancer.words import describe, explain
from moyai.plan.node_ports import desired_rules, plan_rules
from tests.unit.ccm_world import SUBNET, cluster_cloud

CLUSTER = ClusterIdentity("demo", "abcdef0123")
WEB = Service("default", "web", "u", ports=(ServicePort("http", "TCP", 80, 30080),), type="LoadBalancer")


def node(number: int, **changes: object) -> Node:
    plain = Node(
        f"n{number}",
        f"u{number}",
        provider_id=f"openstack:///{number}",
        addresses=(NodeAddress("InternalIP", f"10.0.0.{number}"),),
    )
    return replace(plain, **changes)  # pyright: ignore[reportArgumentType]


def wanted(service: Service = WEB, *nodes: Node, **settings: object) -> LoadBalancer:
    chosen = LoadBalancerSettings(**settings)  # pyright: ignore[reportArgumentType]
    return desired_load_balancer(service, nodes or (node(1), node(2)), settings=chosen, cluster=CLUSTER)


def made(desired: LoadBalancer) -> LoadBalancer:
    """What a cloud shows after it made ``desired``."""
    cloud = cluster_cloud()
    head = cloud.load_balancers.create(replace(desired, vip_subnet_id=SUBNET))
    return cloud.store.balancers[head.id]


def steps(desired: LoadBalancer, observed: LoadBalancer, *, shared: bool = False) -> list[str]:
    return [describe(step) for step in plan.plan_changes(desired, observed, shared=shared)]


def test_what_is_as_wanted_needs_no_step() -> None:
    assert steps(wanted(), made(wanted())) == []


def test_reordered_ports_need_no_step() -> None:
    two = replace(WEB, ports=(ServicePort("a", "TCP", 80, 30080), ServicePort("b", "UDP", 80, 30081)))
    assert steps(wanted(replace(two, ports=two.ports[::-1])), made(wanted(two))) == []


def test_nodes_change_as_one_batch() -> None:
    (step,) = steps(wanted(WEB, node(2), node(3)), made(wanted()))
    assert step.startswith("SetMembers ")
    assert step.endswith("10.0.0.2:30080 10.0.0.3:30080")


def test_each_setting_is_one_step_and_back_to_default_too() -> None:
    observed = made(wanted(connection_limit=5, source_ranges=("10.0.0.0/8",), algorithm=BalancingAlgorithm.SOURCE_ADDRESS))
    assert [one.split()[0] for one in steps(wanted(), observed)] == ["UpdateListener", "UpdatePool"]
    (first, _) = plan.plan_changes(wanted(), observed, shared=False)
    assert isinstance(first, plan.UpdateListener)
    assert first.changes == {"allowed_cidrs": (), "connection_limit": -1}


def test_another_protocol_in_the_pool_replaces_the_pool_only() -> None:
    found = [one.split()[0] for one in steps(wanted(proxy_protocol=TrafficProtocol.PROXY_V2), made(wanted()))]
    assert found == ["DeletePool", "CreatePool"]


def test_another_protocol_of_the_listener_replaces_it_old_one_first() -> None:
    found = [one.split()[0] for one in steps(wanted(x_forwarded_for=True), made(wanted()))]
    assert found == ["DeleteListener", "CreateListener"]


def test_the_monitor_follows_the_traffic_policy() -> None:
    local = replace(WEB, local_traffic=True, health_check_node_port=32000)
    found = [one.split()[0] for one in steps(wanted(local), made(wanted()))]
    assert found == ["SetMembers", "DeleteMonitor", "CreateMonitor"]
    # Local without a monitor would send packets into the void: it has one in any case
    assert wanted(local, monitor=None).listeners[0].pool.monitor  # pyright: ignore[reportOptionalMemberAccess]
    assert not wanted(monitor=None).listeners[0].pool.monitor  # pyright: ignore[reportOptionalMemberAccess]
    (step,) = plan.plan_changes(wanted(monitor=MonitorSettings(delay=9)), made(wanted()), shared=False)
    assert isinstance(step, plan.UpdateMonitor)
    assert step.changes == {"delay": 9}


def test_what_an_interrupted_change_left_is_finished_or_removed() -> None:
    observed = made(wanted())
    (listener,) = observed.listeners
    assert listener.pool
    bare = replace(observed, listeners=(replace(listener, pool=None),), loose_pools=(listener.pool,))
    assert [one.split()[0] for one in steps(wanted(), bare)] == ["DeletePool", "CreatePool"]


def test_in_a_shared_one_only_what_is_tagged_is_ours() -> None:
    theirs = Listener("x", TrafficProtocol.TCP, 443, id="theirs", tags=("kube_service_demo_default_other",))
    users = Listener("y", TrafficProtocol.TCP, 8443, id="users")
    observed = replace(made(wanted()), listeners=(*made(wanted()).listeners, theirs, users))
    assert steps(wanted(), observed, shared=True) == []
    removed = [describe(one) for one in plan.plan_removal(lambda tags: wanted().name in tags, observed)]
    assert len(removed) == 1
    with pytest.raises(UsageError, match=r"TCP port 443 .* is taken"):
        steps(wanted(replace(WEB, ports=(ServicePort("s", "TCP", 443, 30443),))), observed, shared=True)


def test_who_takes_traffic() -> None:
    nodes = [
        node(1),
        node(2, provider_id=""),
        node(3, labels={EXCLUDE_LABEL: ""}),
        node(4, deleting=True),
        node(5, taints=(Taint("ToBeDeletedByClusterAutoscaler", "NoSchedule"),)),
        node(6, ready=False, labels={"pool": "edge"}),
        node(7, addresses=()),
    ]
    assert [one.name for one in eligible_nodes(nodes)] == ["n1", "n6"]
    assert [one.name for one in eligible_nodes(nodes, {"pool": "edge"})] == ["n6"]
    assert [one.name for one in eligible_nodes(nodes, {"pool": None})] == ["n6"]
    assert eligible_nodes(nodes, {"pool": "other"}) == []


def test_a_port_without_node_port_is_refused_with_its_reason() -> None:
    with pytest.raises(UsageError, match="allocateLoadBalancerNodePorts"):
        wanted(replace(WEB, ports=(ServicePort("a", "TCP", 80, 0),)))


def test_rules_follow_the_node_ports() -> None:
    def rules(service: Service) -> list[SecurityGroupRule]:
        return desired_rules(service, CLUSTER, group_ids=("g",), sources=("10.0.0.0/24",))

    first = rules(WEB)
    observed = [replace(one, id=f"id{number}") for number, one in enumerate(first)]
    assert plan_rules(first, observed) == ([], [])
    local = rules(replace(WEB, local_traffic=True, health_check_node_port=32000, ports=(ServicePort("d", "UDP", 53, 30053),)))
    add, remove = plan_rules(local, observed)
    assert [(one.protocol, one.port_min) for one in add] == [("tcp", 32000), ("udp", 30053)]
    assert remove == ["id0"]


PORTS = st.lists(
    st.tuples(st.sampled_from(["TCP", "UDP"]), st.integers(1, 5), st.integers(30000, 30004)),
    max_size=4,
    unique_by=lambda one: one[:2],
)
SETTINGS = st.builds(
    LoadBalancerSettings,
    connection_limit=st.sampled_from([-1, 10]),
    proxy_protocol=st.sampled_from(["", "PROXY"]),
    monitor=st.sampled_from([None, MonitorSettings(), MonitorSettings(delay=9)]),
    source_ranges=st.sampled_from([(), ("10.0.0.0/8",)]),
)


@given(st.tuples(PORTS, SETTINGS, st.sets(st.integers(1, 4))), st.tuples(PORTS, SETTINGS, st.sets(st.integers(1, 4))))
def test_from_any_tree_to_any_other_and_then_nothing_is_left_to_do(
    before: tuple[list[tuple[str, int, int]], LoadBalancerSettings, set[int]],
    after: tuple[list[tuple[str, int, int]], LoadBalancerSettings, set[int]],
) -> None:
    def tree(given: tuple[list[tuple[str, int, int]], LoadBalancerSettings, set[int]]) -> LoadBalancer:
        ports, settings, numbers = given
        service = replace(WEB, ports=tuple(ServicePort("", *one) for one in ports))
        return desired_load_balancer(service, [node(one) for one in numbers], settings=settings, cluster=CLUSTER)

    cloud = cluster_cloud(looks=1).load_balancers
    balancer = cloud.create(replace(tree(before), vip_subnet_id=SUBNET)).id
    cloud.head(balancer)
    desired = tree(after)
    for step in plan.plan_changes(desired, cloud.get(balancer), shared=False):
        _apply(cloud, balancer, step=step)
    assert plan.plan_changes(desired, cloud.get(balancer), shared=False) == []
    assert {one.key for one in cloud.get(balancer).listeners} == {one.key for one in desired.listeners}


def _apply(cloud: LoadBalancers, balancer: str, *, step: plan.BalancerChange) -> None:
    match step:
        case plan.DeleteListener():
            cloud.delete_listener(step.listener_id)
            cloud.head(balancer)
            if step.pool_id:
                cloud.delete_pool(step.pool_id)
        case plan.DeletePool():
            cloud.delete_pool(step.pool_id)
        case plan.CreateListener():
            found = cloud.create_listener(balancer, step.listener)
            cloud.head(balancer)
            assert step.listener.pool
            _apply(cloud, balancer, step=plan.CreatePool(found.id, step.listener.pool))
        case plan.CreatePool():
            pool = cloud.create_pool(step.pool, listener_id=step.listener_id)
            cloud.head(balancer)
            cloud.set_members(pool.id, step.pool.members)
            cloud.head(balancer)
            if step.pool.monitor:
                cloud.create_monitor(pool.id, step.pool.monitor)
        case plan.UpdateListener():
            cloud.update_listener(step.listener_id, step.changes)
        case plan.UpdatePool():
            cloud.update_pool(step.pool_id, step.changes)
        case plan.SetMembers():
            cloud.set_members(step.pool_id, step.members)
        case plan.CreateMonitor():
            cloud.create_monitor(step.pool_id, step.monitor)
        case plan.UpdateMonitor():
            cloud.update_monitor(step.monitor_id, step.changes)
        case plan.DeleteMonitor():
            cloud.delete_monitor(step.monitor_id)
    cloud.head(balancer)


def test_steps_are_told_in_a_users_words() -> None:
    more = replace(WEB, ports=(*WEB.ports, ServicePort("d", "UDP", 53, 30053)))
    told = [explain(one) for one in plan.plan_changes(wanted(more, node(1), connection_limit=9), made(wanted()), shared=False)]
    assert told == ["changed connection limit", "traffic goes to 1 nodes", "UDP port 53 opened"]


def test_members_are_the_same_whatever_subnet_the_cloud_shows() -> None:
    assert plan.same_members([Member("10.0.0.1", 1)], [Member("10.0.0.1", 1, subnet_id="s", name="x", id="y")])
    assert not plan.same_members([Member("10.0.0.1", 1, subnet_id="t")], [Member("10.0.0.1", 1, subnet_id="s")])
