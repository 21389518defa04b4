"""L4 balancers: each is a set of port pairs, and goes with its last pair. Calls take effect without a busy state."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

from moyai.nifcloud_front.calls.call import ApiCall, Later, Values, between, check_name, one_of, reordered
from moyai.nifcloud_front.store.front_store import Transaction
from moyai.nifcloud_front.store.rows import BalancerRow, HealthRow, InstanceRow, PairRow, ZoneRow
from moyai.nifcloud_front.wire.refusal import duplicate, inoperable, invalid, limit, not_found

_VOLUMES = (*range(10, 50, 10), *range(100, 2100, 100))
_PAIRS, _FILTERS, _BALANCERS_A_ZONE = 3, 30, 6
_TARGET = re.compile(r"TCP:(\d{1,5})|ICMP")
#: Protocols that stand for a port where the call names none.
_PROTOCOLS = {"HTTP": 80, "HTTPS": 443, "FTP": 21}
#: What the API shows for a filter that lets everybody in.
EVERYBODY = "*.*.*.*"


def create_balancer(call: ApiCall) -> Later:
    name = call.text("LoadBalancerName")
    check_name("LoadBalancerName", name)
    volume = call.args.get("NetworkVolume", 10)
    one_of("NetworkVolume", volume, values=_VOLUMES)
    if call.text("IpVersion", "v4") != "v4":
        raise invalid("IpVersion", "The local cloud has balancers of IPv4 alone.")
    zones = tuple(call.zone(one).name for one in call.args.get("AvailabilityZones", []))
    pair = _listener(call)
    call.free(BalancerRow, "LoadBalancer", name=name)
    if len(call.tx.all(BalancerRow)) >= _BALANCERS_A_ZONE * len(call.tx.all(ZoneRow)):
        raise limit("LoadBalancer", "The region has as many balancers as it may have.")
    row = BalancerRow(
        uid=call.draw("lb-"),
        name=name,
        zones=zones,
        pairs=(pair,),
        volume=volume,
        accounting=call.text("AccountingType", "2"),
        policy=call.text("PolicyType", "standard"),
        created=call.now,
    )
    call.tx.put(row)
    call.tx.schedule(row, "serve")

    def render(tx: Transaction) -> Values:
        made = tx.get(BalancerRow, row.uid)
        return {"CreateLoadBalancerResult": {"DNSName": made.vip if made else ""}}

    return Later("balancer", row.uid, render)


def _listener(call: ApiCall) -> PairRow:
    """The one port definition of a call. Raises ApiRefusal."""
    listeners: list[dict[str, Any]] = call.args.get("Listeners", [])
    if len(listeners) != 1:
        raise invalid("Listeners.member.1", "A call defines one port.", kind="Format" if listeners else "Required")
    return _pair("Listeners.member.1", listeners[0], old=PairRow(0, 0))


def _pair(at: str, given: dict[str, Any], *, old: PairRow) -> PairRow:
    default = _PROTOCOLS.get(given.get("Protocol", ""), old.port)
    port, inner = given.get("LoadBalancerPort", default), given.get("InstancePort", old.instance_port or default)
    between(f"{at}.LoadBalancerPort", port, least=1, most=65535)
    between(f"{at}.InstancePort", inner, least=1, most=65535)
    balancing = given.get("BalancingType", old.balancing)
    one_of(f"{at}.BalancingType", balancing, values=(1, 2))
    return replace(old, port=port, instance_port=inner, balancing=balancing)


def register_port(call: ApiCall) -> Values:
    row, pair = _named(call), _listener(call)
    if any(one.port == pair.port for one in row.pairs):
        words = f"The balancer {row.name} has the port {pair.port}."
        raise inoperable("LoadBalancerPort.AlreadyExists", words)
    if len(row.pairs) >= _PAIRS:
        raise limit("LoadBalancerPort", f"A balancer has {_PAIRS} ports.")
    _keep(call, replace(row, pairs=(*row.pairs, pair)))
    return {"RegisterPortWithLoadBalancerResult": {"Listeners": [_shown(pair)]}}


def _shown(pair: PairRow) -> Values:
    return {
        "BalancingType": pair.balancing,
        "InstancePort": pair.instance_port,
        "LoadBalancerPort": pair.port,
        "Protocol": "",
    }


def _named(call: ApiCall) -> BalancerRow:
    return call.found(BalancerRow, "LoadBalancer", name=call.text("LoadBalancerName"))


def _keep(call: ApiCall, row: BalancerRow) -> None:
    call.tx.put(row)
    # a work that is under way reads the row again before it ends
    if not call.tx.busy(row):
        call.tx.schedule(row, "serve")


def pair_of(row: BalancerRow, port: int | None, *, instance_port: int | None) -> PairRow:
    """Raises ApiRefusal for a pair that the balancer lacks."""
    found = next((one for one in row.pairs if (one.port, one.instance_port) == (port, instance_port)), None)
    if found is None:
        raise not_found("LoadBalancerPort", f"{port} to {instance_port}")
    return found


def _change(call: ApiCall, change: Callable[[PairRow], PairRow]) -> tuple[PairRow, BalancerRow]:
    """Change the pair that a call names."""
    row = _named(call)
    old = pair_of(row, call.args["LoadBalancerPort"], instance_port=call.args["InstancePort"])
    new = change(old)
    row = replace(row, pairs=tuple(new if one == old else one for one in row.pairs))
    _keep(call, row)
    return new, row


def configure_health_check(call: ApiCall) -> Values:
    given = call.args["HealthCheck"]
    found = _TARGET.fullmatch(given["Target"])
    if not found:
        raise invalid("HealthCheck.Target", f"The target '{given['Target'][:64]}' is neither TCP:port nor ICMP.")
    if found[1]:
        between("HealthCheck.Target", int(found[1]), least=1, most=65535)
    between("HealthCheck.Interval", given["Interval"], least=5, most=300)
    between("HealthCheck.UnhealthyThreshold", given["UnhealthyThreshold"], least=1, most=10)
    health = HealthRow(given["Target"], given["Interval"], given["UnhealthyThreshold"])
    _change(call, lambda pair: replace(pair, health=health))
    return {
        "ConfigureHealthCheckResult": {
            "HealthCheck": {
                "HealthyThreshold": 1,
                "Interval": health.interval,
                "Target": health.target,
                "UnhealthyThreshold": health.unhealthy,
            }
        }
    }


def set_filter(call: ApiCall) -> Values:
    entries: list[dict[str, Any]] = call.args.get("IPAddresses", [])

    def change(pair: PairRow) -> PairRow:
        found = list(pair.filtered)
        for place, entry in enumerate(entries, start=1):
            address = _source(f"IPAddresses.member.{place}.IPAddress", entry.get("IPAddress", ""))
            if not entry.get("AddOnFilter", True):
                if address not in found:
                    raise not_found("IpAddress", address)
                found.remove(address)
            elif address in found:
                raise duplicate("IpAddress", address)
            else:
                found.append(address)
        if len(found) > _FILTERS:
            raise limit("IpAddress", f"A filter has {_FILTERS} entries.")
        return replace(pair, filtered=tuple(found), filter_type=call.args.get("FilterType", pair.filter_type))

    pair, _ = _change(call, change)
    return {"SetFilterForLoadBalancerResult": {"Filter": _filter(pair)}}


def _source(parameter: str, text: str) -> str:
    try:
        network = ip_network(text)
    except ValueError:
        raise invalid(parameter, f"'{text[:64]}' is no address and no CIDR.", kind="Format") from None
    return str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)


def _filter(pair: PairRow) -> Values:
    return {"FilterType": pair.filter_type, "IPAddresses": [{"IPAddress": one} for one in pair.filtered or (EVERYBODY,)]}


def register_instances_with_balancer(call: ApiCall) -> Values:
    rows = members(call)

    def change(pair: PairRow) -> PairRow:
        for one in rows:
            if one.uid in pair.members:
                words = f"The server {one.name} is registered."
                raise inoperable("LoadBalancer.HavingRegisteredInstance", words)
        return replace(pair, members=(*pair.members, *(one.uid for one in rows)))

    _change(call, change)
    return {"RegisterInstancesWithLoadBalancerResult": {"Instances": [_member(one) for one in rows]}}


def deregister_instances_from_balancer(call: ApiCall) -> Values:
    rows = members(call)

    def change(pair: PairRow) -> PairRow:
        for one in rows:
            if one.uid not in pair.members:
                raise not_found("Instance", one.name)
        gone = {one.uid for one in rows}
        return replace(pair, members=tuple(uid for uid in pair.members if uid not in gone))

    pair, _ = _change(call, change)
    left = [one for uid in pair.members if (one := call.tx.get(InstanceRow, uid))]
    return {"DeregisterInstancesFromLoadBalancerResult": {"Instances": [_member(one) for one in left]}}


def members(call: ApiCall) -> list[InstanceRow]:
    """The servers that a call names, each once. Raises ApiRefusal."""
    names = [one.get("InstanceId", "") for one in call.args.get("Instances", [])]
    if not names:
        raise invalid("Instances.member.1", "The call names no server.", kind="Required")
    return [call.found(InstanceRow, "Instance", name=name) for name in dict.fromkeys(names)]


def _member(row: InstanceRow) -> Values:
    return {"InstanceId": row.name, "InstanceUniqueId": row.uid}


def describe_balancers(call: ApiCall) -> Values:
    wanted: list[dict[str, Any]] = call.args.get("LoadBalancerNames", [])
    found = [(row, pair) for row in call.tx.all(BalancerRow) for pair in row.pairs]
    if wanted:
        found = [one for given in wanted for one in _described(call, given)]
    return {
        "DescribeLoadBalancersResult": {"LoadBalancerDescriptions": [_description(call, row, pair=pair) for row, pair in found]}
    }


def _described(call: ApiCall, given: dict[str, Any]) -> list[tuple[BalancerRow, PairRow]]:
    row = call.found(BalancerRow, "LoadBalancer", name=given.get("LoadBalancerName", ""))
    ports = given.get("LoadBalancerPort"), given.get("InstancePort")
    if ports == (None, None):
        return [(row, pair) for pair in row.pairs]
    return [(row, pair_of(row, ports[0], instance_port=ports[1]))]


def _description(call: ApiCall, row: BalancerRow, *, pair: PairRow) -> Values:
    there = [one for uid in pair.members if (one := call.tx.get(InstanceRow, uid))]
    health = pair.health
    return {
        "AccountingType": row.accounting,
        "AvailabilityZones": list(row.zones),
        "CreatedTime": row.created,
        "DNSName": row.vip,
        "Description": "",
        "Filter": _filter(pair),
        "HealthCheck": {
            "HealthyThreshold": 1,
            "InstanceStates": [instance_state(one, pair) for one in there],
            "Interval": health.interval,
            "Target": health.target,
            # derived, as far as is known
            "Timeout": health.interval * health.unhealthy + 1,
            "UnhealthyThreshold": health.unhealthy,
        },
        "Instances": [_member(one) for one in there],
        "ListenerDescriptions": [{"Listener": _shown(pair)}],
        "LoadBalancerName": row.name,
        "NetworkVolume": row.volume,
        "NextMonthAccountingType": row.accounting,
        "Option": {"SessionStickinessPolicy": {"Enabled": False}, "SorryPage": {"Enabled": False}},
        "PolicyType": row.policy,
    }


def instance_state(row: InstanceRow, pair: PairRow) -> Values:
    return {
        "Description": "",
        "InstanceId": row.name,
        "InstanceUniqueId": row.uid,
        "ReasonCode": "",
        "State": "InService" if row.uid in pair.healthy else "OutOfService",
    }


def update_balancer(call: ApiCall) -> Values:
    row = _named(call)
    if name := call.text("LoadBalancerNameUpdate"):
        row = replace(row, name=call.new_name(row, "LoadBalancer", parameter="LoadBalancerNameUpdate", name=name))
    if update := call.args.get("ListenerUpdate"):
        old = pair_of(row, update.get("LoadBalancerPort"), instance_port=update.get("InstancePort"))
        new = _pair("ListenerUpdate.Listener", update.get("RequestListener", {}), old=old)
        if any(one.port == new.port for one in row.pairs if one != old):
            raise inoperable("LoadBalancerPort.AlreadyExists", f"The balancer {row.name} has the port {new.port}.")
        row = replace(row, pairs=tuple(new if one == old else one for one in row.pairs))
    volume, accounting = reordered(call, volume=row.volume, accounting=row.accounting, volumes=_VOLUMES)
    _keep(call, replace(row, volume=volume, accounting=accounting))
    return {}


def delete_balancer(call: ApiCall) -> Values:
    row = _named(call)
    gone = pair_of(row, call.args["LoadBalancerPort"], instance_port=call.args["InstancePort"])
    left = tuple(one for one in row.pairs if one != gone)
    if left:
        _keep(call, replace(row, pairs=left))
    else:
        # the name is free at once, as no call shows a balancer without pairs
        call.tx.put(row := replace(row, pairs=(), name=""))
        call.tx.schedule(row, "serve")
    return {"DeleteLoadBalancerResult": ""}
