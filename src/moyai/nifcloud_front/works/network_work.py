"""Firewall groups, private LANs, routers, elastic addresses and key pairs."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network, ip_network
from typing import Literal

from moyai.cloud.model import Network, Router, SecurityGroup, SecurityGroupRule
from moyai.core.errors import Conflict, Terminal
from moyai.nifcloud_front.calls.group_operations import NAMED_PORTS
from moyai.nifcloud_front.store.front_store import Transaction
from moyai.nifcloud_front.store.rows import (
    COMMON_GLOBAL,
    AddressRow,
    BridgeRow,
    ElasticBalancerRow,
    GroupRow,
    KeyRow,
    LanRow,
    RouterRow,
    RuleRow,
    WorkRow,
)
from moyai.nifcloud_front.works.common_networks import common, outside
from moyai.nifcloud_front.works.step import Again, WorkContext, WorkDone, mine, nothing, own_addresses, tag, tags

#: Protocol → its number, as text, where the clouds below take no name (IANA).
_NUMBERS = {"GRE": "47", "ESP": "50", "AH": "51", "VRRP": "112"}
_L2TP_PORT = 1701


def apply_group(context: WorkContext, work: WorkRow) -> Again | WorkDone:
    row = context.row(GroupRow, work.uid)
    if row is None:
        return WorkDone()
    firewall = context.cloud.firewall
    if work.step == "":
        group = _group(context, row.uid) or firewall.create_security_group(
            name=row.uid, description=row.name, tags=tags(row.uid)
        )
        uid, group_id = row.uid, group.id

        def known(tx: Transaction) -> None:
            if there := tx.get(GroupRow, uid):
                tx.put(replace(there, cloud_id=group_id))

        return Again("rules", change=known)
    with context.store.transaction() as tx:
        others = {one.uid: one.cloud_id for one in tx.all(GroupRow)}
        inner = {one.vip: one.inner for one in tx.all(ElasticBalancerRow) if one.vip and one.inner != one.vip}
    # a public balancer reaches machines from the address behind its public one, which users do not see
    rules = [*row.rules, *(replace(rule, cidr=inner[rule.cidr]) for rule in row.rules if rule.cidr in inner)]
    wanted = {_key(one): one for rule in rules for one in below(rule, row.cloud_id, others=others)}
    if not any(rule.direction == "OUT" for rule in row.rules):
        # without a rule for it, everything may leave
        for ethertype in ("IPv4", "IPv6"):
            one = SecurityGroupRule(row.cloud_id, direction="egress", ethertype=ethertype)
            wanted[_key(one)] = one
    there = {_key(one): one for one in firewall.security_group_rules([row.cloud_id])}
    for key, rule in there.items():
        if key not in wanted:
            firewall.delete_security_group_rule(rule.id)
    if missing := [rule for key, rule in wanted.items() if key not in there]:
        firewall.create_security_group_rules(missing)
    return context.when_due(work, nothing, step="rules")


def _group(context: WorkContext, uid: str) -> SecurityGroup | None:
    firewall = context.cloud.firewall
    return mine(firewall.security_groups(tag=tag(uid)) or firewall.security_groups(), uid)


def _lan(context: WorkContext, name: str) -> Network | None:
    networks = context.cloud.networks
    return mine(networks.networks(tag=tag(name)) or networks.networks(), name)


def _router(context: WorkContext, uid: str) -> Router | None:
    routers = context.cloud.routers
    return mine(routers.routers(tag=tag(uid)) or routers.routers(), uid)


_RuleKey = tuple[str, str, str, int, int, str, str]


def _key(rule: SecurityGroupRule) -> _RuleKey:
    cidr = rule.remote_cidr if rule.remote_cidr not in ("0.0.0.0/0", "::/0") else ""
    return (
        rule.direction,
        rule.ethertype,
        (rule.protocol or "").lower(),
        rule.port_min or 0,
        rule.port_max or 0,
        cidr or "",
        rule.remote_group_id or "",
    )


def below(rule: RuleRow, group_id: str, *, others: dict[str, str]) -> list[SecurityGroupRule]:
    """The rules below that permit what one rule of a group permits. ``others``: uid of a group → its id below."""
    direction: Literal["ingress", "egress"] = "ingress" if rule.direction == "IN" else "egress"
    cidr = str(ip_network(rule.cidr)) if rule.cidr else None
    ethertype: Literal["IPv4", "IPv6"] = "IPv6" if cidr and ":" in cidr else "IPv4"
    base = SecurityGroupRule(
        group_id, direction, ethertype, remote_cidr=cidr, remote_group_id=others.get(rule.group) if rule.group else None
    )
    match rule.protocol:
        case "ANY":
            return [base]
        case "TCP" | "UDP":
            return [replace(base, protocol=rule.protocol.lower(), port_min=rule.first, port_max=rule.last)]
        case "ICMP":
            return [replace(base, protocol="icmp")]
        case "ICMPv6-all":
            return [replace(base, protocol="ipv6-icmp", ethertype="IPv6")]
        case "L2TP":
            return [replace(base, protocol="udp", port_min=_L2TP_PORT, port_max=_L2TP_PORT)]
        case named if named in NAMED_PORTS:
            return [replace(base, protocol="tcp", port_min=NAMED_PORTS[named], port_max=NAMED_PORTS[named])]
        case other:
            return [replace(base, protocol=_NUMBERS[other])]


def delete_group(context: WorkContext, work: WorkRow) -> Again | WorkDone:
    row = context.row(GroupRow, work.uid)
    if row is None:
        return WorkDone()
    if group := _group(context, row.uid):
        context.cloud.firewall.delete_security_group(group.id)
    return context.when_due(work, lambda tx: tx.drop(row), step="gone")


# ---- private LANs


def create_lan(context: WorkContext, work: WorkRow) -> Again | WorkDone:
    row = context.row(LanRow, work.uid)
    if row is None:
        return WorkDone()
    with context.shared:
        network_id, subnet_id = _network(context, row)

    def made(tx: Transaction) -> None:
        if there := tx.get(LanRow, row.uid):
            tx.put(replace(there, state="available", cloud_id=network_id, subnet_id=subnet_id))

    return context.when_due(work, made, step="made")


def _network(context: WorkContext, row: LanRow) -> tuple[str, str]:
    """Network and subnet of a private LAN; LANs that a private bridge joins have the same ones."""
    networks, name = context.cloud.networks, _network_name(context, row)
    network = _lan(context, name) or networks.create_network(name=name, tags=tags(name))
    subnets = networks.subnets(network_id=network.id)
    subnet = subnets[0] if subnets else None
    subnet = subnet or networks.create_subnet(
        name=name,
        network_id=network.id,
        cidr=row.cidr,
        # addresses that the front chooses are at the end, away from those that people choose
        allocation_pools=[last_quarter(row.cidr)],
        tags=tags(name),
    )
    return network.id, subnet.id


def _network_name(context: WorkContext, row: LanRow) -> str:
    bridged = context.row(BridgeRow, row.cidr)
    return f"bridge-{row.cidr.replace('/', '-').replace('.', '-')}" if bridged else row.uid


def last_quarter(cidr: str) -> tuple[str, str]:
    """First and last address of the last quarter of a network, without its broadcast address."""
    network = IPv4Network(cidr)
    return str(network[network.num_addresses * 3 // 4]), str(network[-2])


def delete_lan(context: WorkContext, work: WorkRow) -> Again | WorkDone:
    row = context.row(LanRow, work.uid)
    if row is None:
        return WorkDone()
    with context.shared:
        with context.store.transaction() as tx:
            shared = any(one.cloud_id == row.cloud_id for one in tx.all(LanRow) if one.uid != row.uid)
        if not shared and (network := _lan(context, _network_name(context, row))):
            context.cloud.networks.delete_network(network.id)
    return context.when_due(work, lambda tx: tx.drop(row), step="gone")


# ---- routers


def create_router(context: WorkContext, work: WorkRow) -> Again | WorkDone:
    """Each arm is the gateway of its network below; an arm in the public network is the way out."""
    row = context.row(RouterRow, work.uid)
    if row is None:
        return WorkDone()
    cloud = context.cloud
    router = _router(context, row.uid) or cloud.routers.create_router(name=row.uid, tags=tags(row.uid))
    if any(arm.network == COMMON_GLOBAL for arm in row.arms) and not router.external_network_id:
        cloud.routers.set_router_gateway(router.id, outside(context).id)
    legs = {subnet for port in cloud.networks.ports(device_ids=[router.id]) for subnet in port.subnet_ids}
    for arm in row.arms:
        lan = context.row(LanRow, arm.network)
        if lan and lan.subnet_id not in legs:
            cloud.routers.add_router_interface(router.id, lan.subnet_id)
    router_id = router.id

    def made(tx: Transaction) -> None:
        if there := tx.get(RouterRow, row.uid):
            tx.put(replace(there, state="available", cloud_id=router_id))

    return context.when_due(work, made, step="made")


def delete_router(context: WorkContext, work: WorkRow) -> Again | WorkDone:
    row = context.row(RouterRow, work.uid)
    if row is None:
        return WorkDone()
    if router := _router(context, row.uid):
        for port in context.cloud.networks.ports(device_ids=[router.id]):
            for subnet in port.subnet_ids:
                if any((lan := context.row(LanRow, arm.network)) and lan.subnet_id == subnet for arm in row.arms):
                    context.cloud.routers.remove_router_interface(router.id, subnet)
        context.cloud.routers.delete_router(router.id)
    return context.when_due(work, lambda tx: tx.drop(row), step="gone")


# ---- addresses, keys


def allocate(context: WorkContext, work: WorkRow) -> Again | WorkDone:
    row = context.row(AddressRow, work.uid)
    if row is None:
        return WorkDone()
    found = own_addresses(context, row.uid)
    made = found[0] if found else None
    made = made or context.cloud.addresses.create_floating_ip(
        network_id=common(context, COMMON_GLOBAL).external_id, description=row.uid, tags=tags(row.uid)
    )
    known = replace(row, name=made.address, address=made.address, cloud_id=made.id)

    def given(tx: Transaction) -> None:
        tx.put(known)

    return WorkDone(given)


def release(context: WorkContext, work: WorkRow) -> Again | WorkDone:
    row = context.row(AddressRow, work.uid)
    if row is None:
        return WorkDone()
    context.cloud.addresses.delete_floating_ip(row.cloud_id)
    return WorkDone(lambda tx: tx.drop(row))


def import_key(context: WorkContext, work: WorkRow) -> Again | WorkDone:
    row = context.row(KeyRow, work.uid)
    if row is None:
        return WorkDone()
    if row.uid not in context.cloud.machines.keypairs():
        try:
            context.cloud.machines.create_keypair(row.uid, row.public)
        except Conflict:
            raise Terminal(f"the key pair {row.uid} is there and is not listed") from None
    return WorkDone()


def delete_key(context: WorkContext, work: WorkRow) -> Again | WorkDone:
    row = context.row(KeyRow, work.uid)
    if row is None:
        return WorkDone()
    context.cloud.machines.delete_keypair(row.uid)
    return WorkDone(lambda tx: tx.drop(row))
