"""Security group rules of a cluster: only what its parts need of each other.

Two groups, one for control planes and one for workers. Inside the cluster everything may speak to everything, since a rule
cannot tell a pod from the machine that it runs on, but for etcd, which nobody but control planes may reach. From outside:
the API, and SSH to the control plane. NodePorts are opened by the cloud controller manager, for load balancers' members only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from moyai.cloud.model import SecurityGroupRule
from moyai.core.ids import Role
from moyai.plan.steps import GroupRule
from moyai.spec.model import ClusterSpec

API_PORT = 6443
#: What marks the rules that this planner made; those of the cloud controller manager have a description of their own.
MARK = "moyai cluster: "
#: TCP ports but etcd's (2379 to 2381).
_TCP_BUT_ETCD = ((1, 2378), (2382, 65535))


def wanted_rules(spec: ClusterSpec, *, bare: bool = True, planes: Sequence[str] | None = None) -> tuple[GroupRule, ...]:
    """All rules that the cluster's groups have at its start. ``bare``: whether packets come with pods' addresses. ``planes``:
    addresses of the control planes, where machines have public cards: rules name ranges there instead of groups, and each
    machine is logged in to by itself. The planes' addresses are known one by one, so that nobody else reaches etcd."""
    rules = _rules(spec) if planes is None else _by_ranges(spec, planes)
    return tuple(rules if bare else (one for one in rules if one.rule.remote_cidr != str(spec.network.pod_cidr)))


def _rules(spec: ClusterSpec) -> Iterator[GroupRule]:
    plane: Role = "control-plane"
    worker: Role = "worker"
    # the load balancer before the API lets clients in by their addresses; its own is in the machines' network
    clients = [spec.network.node_cidr] if spec.control_plane.balanced else spec.access.api_cidrs
    for cidr in clients:
        yield _rule(plane, "API", protocol="tcp", ports=(API_PORT, API_PORT), cidr=str(cidr))
    for cidr in spec.access.ssh_cidrs:
        yield _rule(plane, "SSH", protocol="tcp", ports=(22, 22), cidr=str(cidr))
    yield _rule(plane, "control planes", protocol=None, ports=None, remote=plane)
    yield _rule(worker, "control planes", protocol=None, ports=None, remote=plane)
    yield _rule(worker, "workers", protocol=None, ports=None, remote=worker)
    yield _rule(worker, "pods", protocol=None, ports=None, cidr=str(spec.network.pod_cidr))
    for ports in _TCP_BUT_ETCD:
        yield _rule(plane, "workers, but for etcd", protocol="tcp", ports=ports, remote=worker)
        yield _rule(plane, "pods, but for etcd", protocol="tcp", ports=ports, cidr=str(spec.network.pod_cidr))
    for router in spec.network.bgp.routers:
        yield from _router(str(router.address))
    if spec.machines:
        yield from _machines(spec)
    for protocol in ("udp", "icmp"):
        yield _rule(plane, "workers", protocol=protocol, ports=None, remote=worker)
        yield _rule(plane, "pods", protocol=protocol, ports=None, cidr=str(spec.network.pod_cidr))


def _machines(spec: ClusterSpec) -> Iterator[GroupRule]:
    """Of machines beside the cluster, but routers, at whose ports no rule holds: nodes reach them, and they reach each other. A
    router may stand between a node and a machine, so ranges are named besides groups."""
    machine: Role = "machine"
    for remote in ("control-plane", "worker", "machine"):
        yield _rule(machine, f"{remote}s", protocol=None, ports=None, remote=remote)
    for one in spec.networks:
        yield _rule(machine, f"network {one.name}", protocol=None, ports=None, cidr=str(one.cidr))
    if any(one.role == "bastion" for one in spec.machines):
        for cidr in spec.access.ssh_cidrs:
            yield _rule(machine, "SSH", protocol="tcp", ports=(22, 22), cidr=str(cidr))


def _by_ranges(spec: ClusterSpec, planes: Sequence[str]) -> Iterator[GroupRule]:
    machines = str(spec.network.node_cidr)
    for cidr in spec.access.ssh_cidrs:
        yield _rule("worker", "SSH", protocol="tcp", ports=(22, 22), cidr=str(cidr))
    for one in _rules(spec):
        if one.remote_role is None:
            yield one
        elif one.role == "control-plane" and one.remote_role == "control-plane":
            yield from (_in_range(one, f"{address}/32") for address in planes if len(planes) > 1)
        elif one.role == "control-plane" or one.remote_role == "worker":
            # the range has the control planes as well
            yield _in_range(one, machines)


def _in_range(one: GroupRule, cidr: str) -> GroupRule:
    return GroupRule(role=one.role, rule=replace(one.rule, remote_cidr=cidr))


def _router(address: str) -> Iterator[GroupRule]:
    """BGP, and BFD of routers on the machines' network and beyond it."""
    roles: tuple[Role, ...] = ("control-plane", "worker")
    for role in roles:
        yield _rule(role, "BGP", protocol="tcp", ports=(179, 179), cidr=f"{address}/32")
        for port in (3784, 4784):
            yield _rule(role, "BFD", protocol="udp", ports=(port, port), cidr=f"{address}/32")


def _rule(
    role: Role,
    what: str,
    *,
    protocol: str | None,
    ports: tuple[int, int] | None,
    cidr: str | None = None,
    remote: Role | None = None,
) -> GroupRule:
    low, high = ports or (None, None)
    rule = SecurityGroupRule(
        group_id="", protocol=protocol, port_min=low, port_max=high, remote_cidr=cidr, description=MARK + what
    )
    return GroupRule(role=role, rule=rule, remote_role=remote)


def missing_rules(
    wanted: Iterable[GroupRule], have: Iterable[SecurityGroupRule], *, groups: dict[Role, str]
) -> tuple[tuple[GroupRule, ...], tuple[SecurityGroupRule, ...]]:
    """(rules to add, rules of ours to remove), given the groups' ids; a group without an id has no rules yet."""
    have = [rule for rule in have if rule.direction == "ingress"]
    identities = {_identity(rule) for rule in have}
    add: list[GroupRule] = []
    keep: set[tuple[object, ...]] = set()
    for want in wanted:
        group = groups.get(want.role)
        remote = groups.get(want.remote_role) if want.remote_role else None
        identity = (group, want.rule.protocol, want.rule.port_min, want.rule.port_max, want.rule.remote_cidr, remote)
        known = group is not None and (want.remote_role is None or remote is not None)
        keep.add(identity)
        if not known or identity not in identities:
            add.append(want)
    remove = tuple(rule for rule in have if rule.description.startswith(MARK) and _identity(rule) not in keep)
    return tuple(add), remove


def _identity(rule: SecurityGroupRule) -> tuple[object, ...]:
    # clouds answer "any address" as 0.0.0.0/0 or as nothing, depending on how it was asked
    any_source = rule.remote_cidr in (None, "0.0.0.0/0") and rule.remote_group_id is None
    cidr = "0.0.0.0/0" if any_source else rule.remote_cidr
    if cidr and "/" not in cidr:
        cidr = f"{cidr}/32"
    return (rule.group_id, rule.protocol, rule.port_min, rule.port_max, cidr, rule.remote_group_id)
