"""Elastic balancers: public or private, with up to two arms. Each change makes one busy, and a busy one refuses changes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from moyai.nifcloud_front.calls.balancer_operations import instance_state
from moyai.nifcloud_front.calls.call import ApiCall, Values, between, one_of, reordered
from moyai.nifcloud_front.calls.instance_nics import check_address
from moyai.nifcloud_front.calls.instance_views import network_name
from moyai.nifcloud_front.store.rows import (
    COMMON_GLOBAL,
    COMMON_PRIVATE,
    BalancerArmRow,
    ElasticBalancerRow,
    HealthRow,
    InstanceRow,
    PairRow,
)
from moyai.nifcloud_front.wire.refusal import duplicate, inoperable, invalid, limit, not_built, not_found, processing

_WHAT = "ElasticLoadBalancer"
_VOLUMES = (10, 20, 30, 40, 100, 200, 300, 400, 500)
_PAIRS, _A_ZONE = 3, 5
#: Name of a filter → the member of a description that it looks at.
_FILTERED = {
    "state": "State",
    "elastic-loadbalancer-id": "ElasticLoadBalancerId",
    "elastic-loadbalancer-name": "ElasticLoadBalancerName",
    "accounting-type": "AccountingType",
    "ip-address": "DNSName",
}
_TARGET = re.compile(r"(TCP|HTTP|HTTPS):(\d{1,5})|ICMP")


def create_elastic_balancer(call: ApiCall) -> Values:
    name = call.name("ElasticLoadBalancerName")
    volume = call.args.get("NetworkVolume", 10)
    one_of("NetworkVolume", volume, values=_VOLUMES)
    zones = call.args["AvailabilityZones"]
    if len(zones) != 1:
        raise invalid("AvailabilityZones.member.1", "An elastic balancer is in one zone.")
    zone = call.zone(zones[0])
    listeners = call.args["Listeners"]
    if not 1 <= len(listeners) <= _PAIRS:
        raise limit("ElasticLoadBalancerPort", f"An elastic balancer has 1 to {_PAIRS} ports.")
    pairs = tuple(_pair(call, one, at=f"Listeners.member.{place}") for place, one in enumerate(listeners, start=1))
    _distinct(pairs)
    arms = _arms(call)
    call.free(ElasticBalancerRow, _WHAT, name=name)
    if sum(one.zone == zone.name for one in call.tx.all(ElasticBalancerRow)) >= _A_ZONE:
        raise limit(_WHAT, f"The zone {zone.name} has {_A_ZONE} elastic balancers.")
    row = ElasticBalancerRow(
        uid=call.draw("elb-"),
        name=name,
        zone=zone.name,
        arms=arms,
        pairs=pairs,
        volume=volume,
        accounting=call.text("AccountingType", "2"),
        created=call.now,
    )
    call.tx.put(row)
    call.tx.schedule(row, "change")
    # the real service answers without the address
    return {"NiftyCreateElasticLoadBalancerResult": {"DNSName": ""}}


def _distinct(pairs: tuple[PairRow, ...]) -> None:
    keys = [(one.protocol == "UDP", one.port) for one in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise duplicate("Protocol.and.ElasticLoadBalancerPort", str(key[1]))


def _pair(call: ApiCall, given: dict[str, Any], *, at: str) -> PairRow:
    if given["Protocol"] == "HTTPS" or given.get("SSLCertificateId"):
        raise not_built(f"{call.operation} with HTTPS")
    port = given["ElasticLoadBalancerPort"]
    pair = PairRow(port, given.get("InstancePort", port), protocol=given["Protocol"])
    return _settings(given, pair=pair, at=at, call=call)


def _settings(given: dict[str, Any], *, pair: PairRow, at: str, call: ApiCall) -> PairRow:
    between(f"{at}.ElasticLoadBalancerPort", pair.port, least=1, most=65535)
    between(f"{at}.InstancePort", pair.instance_port, least=1, most=65535)
    balancing, description = given.get("BalancingType", 1), given.get("Description", "")
    one_of(f"{at}.BalancingType", balancing, values=(1, 2))
    if len(description) > 500:
        raise invalid(f"{at}.Description", "The description has more than 500 characters.")
    for unbuilt in ("RequestSession", "RequestSorryPage"):
        if given.get(unbuilt):
            raise not_built(f"{call.operation} with {unbuilt.removeprefix('Request')}")
    rows = _instances(call, given.get("ListOfRequestInstances", []))
    health = _health(given["RequestHealthCheck"], at=f"{at}.HealthCheck") if given.get("RequestHealthCheck") else HealthRow()
    return replace(pair, balancing=balancing, description=description, members=tuple(one.uid for one in rows), health=health)


def _health(given: dict[str, Any], *, at: str) -> HealthRow:
    target = given.get("Target", "ICMP")
    found = _TARGET.fullmatch(target)
    if not found:
        raise invalid(f"{at}.Target", f"The target '{target[:64]}' is not ICMP, TCP:port, HTTP:port or HTTPS:port.")
    interval, unhealthy = given.get("Interval", 5), given.get("UnhealthyThreshold", 1)
    between(f"{at}.Interval", interval, least=5, most=300)
    between(f"{at}.UnhealthyThreshold", unhealthy, least=1, most=10)
    codes = tuple(one.get("HttpCode", "") for one in given.get("ListOfRequestExpectation", []))
    return HealthRow(target, interval, unhealthy, given.get("Path", ""), codes)


def _arms(call: ApiCall) -> tuple[BalancerArmRow, ...]:
    given = call.args.get("NetworkInterface", []) or [{"NetworkId": COMMON_GLOBAL, "IsVipNetwork": True}]
    if len(given) > 2:
        raise limit("NetworkInterface", "An elastic balancer has one or two interfaces.")
    arms = tuple(_arm(call, one, at=f"NetworkInterface.{place}") for place, one in enumerate(given, start=1))
    if len(arms) == 1:
        return (replace(arms[0], vip=True),)
    if sum(one.vip for one in arms) != 1:
        raise invalid("NetworkInterface.1.IsVipNetwork", "One of two interfaces has the VIP.")
    if arms[0].network == arms[1].network:
        raise invalid("NetworkInterface.2.NetworkId", "The two interfaces are in one network.")
    return arms


def _arm(call: ApiCall, given: dict[str, Any], *, at: str) -> BalancerArmRow:
    network, name, address = given.get("NetworkId", ""), given.get("NetworkName", ""), given.get("IpAddress", "")
    systems = tuple(one.get("SystemIpAddress", "") for one in given.get("ListOfRequestSystemIpAddresses", []))
    vip = given.get("IsVipNetwork", False)
    if bool(network) == bool(name):
        raise invalid(f"{at}.NetworkId", "An interface names its network by NetworkId or by NetworkName.")
    if (network or name) in (COMMON_GLOBAL, COMMON_PRIVATE):
        if address or systems:
            raise invalid(f"{at}.IpAddress", "The given networks choose the addresses.")
        return BalancerArmRow(network or name, vip=vip)
    lan = call.steady(call.lan(network, name), "Network")
    if not address:
        raise invalid(f"{at}.IpAddress", "An interface in a private LAN has an address.", kind="Required")
    if len(systems) != 2:
        raise invalid(f"{at}.SystemIpAddresses.2", "An interface in a private LAN has two system addresses.", kind="Required")
    if len({address, *systems}) != 3:
        raise duplicate("IpAddress", address)
    check_address(call.tx, lan, address=address, parameter=f"{at}.IpAddress")
    for place, one in enumerate(systems, start=1):
        check_address(call.tx, lan, address=one, parameter=f"{at}.SystemIpAddresses.{place}.SystemIpAddress")
    _not_ends(lan.cidr, (address, *systems), at=at)
    return BalancerArmRow(lan.uid, address, vip, systems)


def _not_ends(cidr: str, addresses: tuple[str, ...], *, at: str) -> None:
    network = IPv4Network(cidr)
    for one in addresses:
        if IPv4Address(one) in (network.network_address, network.broadcast_address):
            raise invalid(f"{at}.IpAddress", f"The address {one} is not a machine's.")


def _instances(call: ApiCall, given: list[dict[str, Any]]) -> list[InstanceRow]:
    found: list[InstanceRow] = []
    for one in given:
        name, uid = one.get("InstanceId", ""), one.get("InstanceUniqueId", "")
        row = call.tx.named(InstanceRow, name) if name else call.tx.get(InstanceRow, uid)
        if row is None:
            raise not_found("Instance", name or uid)
        found.append(row)
    return list(dict.fromkeys(found))


def _named(call: ApiCall) -> ElasticBalancerRow:
    uid, name = call.text("ElasticLoadBalancerId"), call.text("ElasticLoadBalancerName")
    if not uid and not name:
        raise invalid("ElasticLoadBalancerId", "The call names no elastic balancer.", kind="Required")
    row = call.tx.get(ElasticBalancerRow, uid) if uid else call.tx.named(ElasticBalancerRow, name)
    if row is None:
        raise not_found("ElasticLoadBalancerId" if uid else _WHAT, uid or name)
    return row


def _steady(call: ApiCall) -> ElasticBalancerRow:
    row = _named(call)
    if call.tx.busy(row):
        raise processing(_WHAT, row.name or row.uid)
    return row


def _keep(call: ApiCall, row: ElasticBalancerRow) -> None:
    call.tx.put(row)
    call.tx.schedule(row, "change")


def _pair_of(call: ApiCall, row: ElasticBalancerRow) -> PairRow:
    wanted = (call.args["Protocol"], call.args["ElasticLoadBalancerPort"], call.args["InstancePort"])
    for one in row.pairs:
        if (one.protocol, one.port, one.instance_port) == wanted:
            return one
    raise not_found("Protocol.or.ElasticLoadBalancerPort", f"{wanted[0]} {wanted[1]} to {wanted[2]}")


def _change(call: ApiCall, change: Callable[[PairRow], PairRow]) -> PairRow:
    row = _steady(call)
    old = _pair_of(call, row)
    new = change(old)
    pairs = tuple(new if one == old else one for one in row.pairs)
    _distinct(pairs)
    _keep(call, replace(row, pairs=pairs))
    return new


def register_elastic_port(call: ApiCall) -> Values:
    row = _steady(call)
    added = tuple(_pair(call, one, at=f"Listeners.member.{place}") for place, one in enumerate(call.args["Listeners"], start=1))
    _distinct((*row.pairs, *added))
    if len(row.pairs) + len(added) > _PAIRS:
        raise limit("ElasticLoadBalancerPort", f"An elastic balancer has {_PAIRS} ports.")
    _keep(call, replace(row, pairs=(*row.pairs, *added)))
    shown = [{**_ports(one), "SSLCertificateId": ""} for one in added]
    return {"NiftyRegisterPortWithElasticLoadBalancerResult": {"Listeners": shown}}


def _ports(pair: PairRow) -> Values:
    return {
        "BalancingType": pair.balancing,
        "Description": pair.description,
        "ElasticLoadBalancerPort": pair.port,
        "InstancePort": pair.instance_port,
        "Protocol": pair.protocol,
    }


def configure_elastic_health_check(call: ApiCall) -> Values:
    health = _health(call.args["HealthCheck"], at="HealthCheck")
    _change(call, lambda pair: replace(pair, health=health))
    return {"NiftyConfigureElasticLoadBalancerHealthCheckResult": {"HealthCheck": _shown_health(health)}}


def _shown_health(health: HealthRow) -> Values:
    return {
        "Expectation": [{"HttpCode": one} for one in health.codes],
        "Interval": health.interval,
        "Path": health.path,
        "Target": health.target,
        "UnhealthyThreshold": health.unhealthy,
    }


def register_elastic_instances(call: ApiCall) -> Values:
    rows = _instances(call, call.args.get("Instances", []))

    def change(pair: PairRow) -> PairRow:
        for one in rows:
            if one.uid in pair.members:
                raise inoperable(f"{_WHAT}.HavingRegisteredInstance", f"The server {one.name} is registered.")
        return replace(pair, members=(*pair.members, *(one.uid for one in rows)))

    _change(call, change)
    return {"NiftyRegisterInstancesWithElasticLoadBalancerResult": ""}


def deregister_elastic_instances(call: ApiCall) -> Values:
    rows = _instances(call, call.args.get("Instances", []))

    def change(pair: PairRow) -> PairRow:
        for one in rows:
            if one.uid not in pair.members:
                raise not_found("Instance", one.name)
        return replace(pair, members=tuple(uid for uid in pair.members if uid not in {one.uid for one in rows}))

    _change(call, change)
    return {"NiftyDeregisterInstancesFromElasticLoadBalancerResult": ""}


def modify_elastic_balancer(call: ApiCall) -> Values:
    given = call.args.get("LoadBalancerAttributes", {})
    for unbuilt in ("RequestSession", "RequestSorryPage"):
        if given.get(unbuilt):
            raise not_built(f"{call.operation} with {unbuilt.removeprefix('Request')}")
    wanted = {one.get("Key", ""): one.get("Value", "") for one in given.get("ListOfRequestAdditionalAttributes", [])}
    if "sslCertificateId" in wanted or wanted.get("protocol") == "HTTPS":
        raise not_built(f"{call.operation} with HTTPS")

    def change(pair: PairRow) -> PairRow:
        changed = replace(
            pair,
            protocol=wanted.get("protocol", pair.protocol),
            port=_number("elasticLoadBalancerPort", wanted, old=pair.port),
            instance_port=_number("instancePort", wanted, old=pair.instance_port),
            balancing=_number("balancingType", wanted, old=pair.balancing),
            description=wanted.get("description", pair.description),
        )
        one_of("protocol", changed.protocol, values=("TCP", "UDP", "HTTP"))
        one_of("balancingType", changed.balancing, values=(1, 2))
        between("elasticLoadBalancerPort", changed.port, least=1, most=65535)
        between("instancePort", changed.instance_port, least=1, most=65535)
        return changed

    _change(call, change)
    return {}


def _number(key: str, wanted: dict[str, str], *, old: int) -> int:
    text = wanted.get(key, str(old))
    if not (text.isdecimal() and len(text) <= 10):
        raise invalid(key, f"The value of {key} is no number.", kind="Format")
    return int(text)


def update_elastic_balancer(call: ApiCall) -> Values:
    row = _steady(call)
    if name := call.text("ElasticLoadBalancerNameUpdate"):
        row = replace(row, name=call.new_name(row, _WHAT, parameter="ElasticLoadBalancerNameUpdate", name=name))
    volume, accounting = reordered(call, volume=row.volume, accounting=row.accounting, volumes=_VOLUMES)
    _keep(call, replace(row, volume=volume, accounting=accounting))
    return {}


def delete_elastic_balancer(call: ApiCall) -> Values:
    row = _steady(call)
    gone = _pair_of(call, row)
    _keep(call, replace(row, pairs=tuple(one for one in row.pairs if one != gone)))
    return {"NiftyDeleteElasticLoadBalancerResult": ""}


def describe_elastic_balancers(call: ApiCall) -> Values:
    asked = call.args.get("ElasticLoadBalancers", {})
    ids, names = asked.get("ListOfRequestElasticLoadBalancerId", []), asked.get("ListOfRequestElasticLoadBalancerName", [])
    found = call.tx.all(ElasticBalancerRow)
    for what, known, wanted in (
        ("ElasticLoadBalancerId", {one.uid for one in found}, ids),
        (_WHAT, {one.name for one in found}, names),
    ):
        for one in wanted:
            if one not in known:
                raise not_found(what, one)
    if ids or names:
        found = [one for one in found if one.uid in ids or one.name in names]
    shown = [_description(call, one) for one in found]
    for one in call.args.get("Filter", []):
        member = _FILTERED.get(one.get("Name", ""))
        if member is None:
            raise not_built(f"{call.operation} with the filter {one.get('Name', '')}")
        shown = [values for values in shown if values[member] in one.get("ListOfRequestValue", [])]
    return {"NiftyDescribeElasticLoadBalancersResult": {"ElasticLoadBalancerDescriptions": shown}}


def _description(call: ApiCall, row: ElasticBalancerRow) -> Values:
    return {
        "AccountingType": row.accounting,
        "AvailabilityZones": [row.zone],
        "CreatedTime": row.created,
        "DNSName": row.vip,
        "ElasticLoadBalancerId": row.uid,
        "ElasticLoadBalancerListenerDescriptions": [{"Listener": _listener(call, one)} for one in row.pairs],
        "ElasticLoadBalancerName": row.name,
        "NetworkInterfaces": [
            {
                "DeviceIndex": str(place),
                "IpAddress": row.vip if arm.vip else arm.address,
                "IsVipNetwork": arm.vip,
                "NetworkId": arm.network,
                "NetworkName": network_name(call.tx, arm.network),
                "SystemIpAddresses": [{"SystemIpAddress": one} for one in arm.systems],
            }
            for place, arm in enumerate(row.arms, start=1)
        ],
        "NetworkVolume": str(row.volume),
        "NextMonthAccountingType": row.accounting,
        "State": "pending" if call.tx.busy(row) else "available",
        "VersionInformation": {"IsLatest": True, "Version": "v1.0"},
    }


def _listener(call: ApiCall, pair: PairRow) -> Values:
    there = [one for uid in pair.members if (one := call.tx.get(InstanceRow, uid))]
    return {
        **_ports(pair),
        "HealthCheck": {**_shown_health(pair.health), "InstanceStates": [instance_state(one, pair) for one in there]},
        "Instances": [{"InstanceId": one.name, "InstanceUniqueId": one.uid} for one in there],
        "SSLCertificateId": "",
        "SessionStickinessPolicy": {"Enabled": False},
        "SorryPage": {"Enabled": False, "RedirectUrl": ""},
    }
