"""The API's calls about L4 load balancers ("lb"), one method each, with types.

The API has one description for each pair of ports, all with the balancer's name. None is asked for by name: the SDK cannot,
without the ports. Source: the SDK's service model (computing 3.0).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from typing import Any

from moyai.cloud.nifcloud.balancer_model import DENIED, HealthCheck, PairBalancer, PortPair
from moyai.cloud.nifcloud.sdk import Answer
from moyai.cloud.nifcloud.wire import Wire
from moyai.cloud.nifcloud.wire_values import part, rows, text, whole

#: How a filter without entries is shown.
_EVERYBODY = "*.*.*.*"
_ALLOW, _DENY = "1", "2"


class L4Calls:
    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def all(self) -> dict[str, PairBalancer]:
        """Name → balancer, of all in the region."""
        result = part(self._wire.read("DescribeLoadBalancers"), "DescribeLoadBalancersResult")
        found: defaultdict[str, list[Answer]] = defaultdict(list)
        for one in rows(result, "LoadBalancerDescriptions"):
            found[text(one, "LoadBalancerName")].append(one)
        return {name: _balancer(name, parts) for name, parts in found.items()}

    def create(self, wanted: PairBalancer, pair: PortPair) -> None:
        arguments = {
            "LoadBalancerName": wanted.name,
            "Listeners": [_listener(pair)],
            "NetworkVolume": wanted.volume,
            "AccountingType": wanted.accounting,
            "PolicyType": wanted.policy,
            "IpVersion": "v4",
        }
        self._wire.change("CreateLoadBalancer", arguments, object_id=wanted.name)

    def add(self, name: str, pair: PortPair) -> None:
        arguments = {"LoadBalancerName": name, "Listeners": [_listener(pair)]}
        self._wire.change("RegisterPortWithLoadBalancer", arguments, object_id=name)

    def move(self, name: str, found: PortPair, *, to: PortPair) -> None:
        update = {"LoadBalancerPort": found.port, "InstancePort": found.node_port, "RequestListener": _listener(to)}
        self._wire.change("UpdateLoadBalancer", {"LoadBalancerName": name, "ListenerUpdate": update}, object_id=name)

    def drop(self, name: str, pair: PortPair) -> None:
        """The last pair takes the balancer along."""
        self._wire.change("DeleteLoadBalancer", _place(name, pair), object_id=name)

    def check(self, name: str, pair: PortPair) -> None:
        wanted = {
            "Target": pair.check.target,
            "Interval": pair.check.interval,
            "UnhealthyThreshold": pair.check.threshold,
        }
        self._wire.change("ConfigureHealthCheck", {**_place(name, pair), "HealthCheck": wanted}, object_id=name)

    def set_filter(self, name: str, pair: PortPair, *, entries: Collection[str], on: bool, denied: bool = False) -> None:
        listed = [{"IPAddress": one, "AddOnFilter": on} for one in sorted(entries)]
        arguments = {**_place(name, pair), "FilterType": _DENY if denied else _ALLOW, "IPAddresses": listed}
        self._wire.change("SetFilterForLoadBalancer", arguments, object_id=name)

    def join(self, name: str, pair: PortPair, *, servers: Collection[str]) -> None:
        self._wire.change("RegisterInstancesWithLoadBalancer", _with_servers(name, pair, servers=servers), object_id=name)

    def leave(self, name: str, pair: PortPair, *, servers: Collection[str]) -> None:
        self._wire.change("DeregisterInstancesFromLoadBalancer", _with_servers(name, pair, servers=servers), object_id=name)

    def order(self, name: str, *, volume: int | None, accounting: str | None) -> None:
        arguments: dict[str, Any] = {"LoadBalancerName": name}
        if volume is not None:
            arguments["NetworkVolumeUpdate"] = volume
        if accounting is not None:
            arguments["AccountingTypeUpdate"] = int(accounting)
        self._wire.change("UpdateLoadBalancer", arguments, object_id=name)


def _listener(pair: PortPair) -> dict[str, int]:
    return {"LoadBalancerPort": pair.port, "InstancePort": pair.node_port, "BalancingType": pair.balancing}


def _place(name: str, pair: PortPair) -> dict[str, Any]:
    return {"LoadBalancerName": name, "LoadBalancerPort": pair.port, "InstancePort": pair.node_port}


def _with_servers(name: str, pair: PortPair, *, servers: Collection[str]) -> dict[str, Any]:
    return {**_place(name, pair), "Instances": [{"InstanceId": one} for one in sorted(servers)]}


def _balancer(name: str, parts: list[Answer]) -> PairBalancer:
    first = parts[0]
    return PairBalancer(
        name,
        tuple(_pair(one) for one in parts if rows(one, "ListenerDescriptions")),
        address=text(first, "DNSName"),
        volume=whole(first, "NetworkVolume") or 0,
        accounting=text(first, "NextMonthAccountingType") or text(first, "AccountingType"),
        policy=text(first, "PolicyType") or "standard",
    )


def _pair(data: Answer) -> PortPair:
    listener, check = part(rows(data, "ListenerDescriptions")[0], "Listener"), part(data, "HealthCheck")
    shown = part(data, "Filter")
    entries = {text(one, "IPAddress") for one in rows(shown, "IPAddresses")} - {"", _EVERYBODY}
    before = DENIED if text(shown, "FilterType") == _DENY else ""
    return PortPair(
        "TCP",
        whole(listener, "LoadBalancerPort") or 0,
        whole(listener, "InstancePort") or 0,
        HealthCheck(text(check, "Target"), whole(check, "Interval") or 0, whole(check, "UnhealthyThreshold") or 0),
        members=frozenset(text(one, "InstanceId") for one in rows(data, "Instances")),
        balancing=whole(listener, "BalancingType") or 1,
        allowed=frozenset(f"{before}{one}" for one in entries),
    )
