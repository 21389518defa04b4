"""The API's calls about elastic load balancers ("elb"), one method each, with types: one description a balancer, all pairs in
it.

Source: the SDK's service model (computing 3.0).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from moyai.cloud.nifcloud.balancer_model import BalancerArm, HealthCheck, PairBalancer, PortPair
from moyai.cloud.nifcloud.sdk import Answer
from moyai.cloud.nifcloud.wire import Wire
from moyai.cloud.nifcloud.wire_values import part, rows, text, truth_of, whole, words


class ElbCalls:
    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def all(self) -> dict[str, PairBalancer]:
        """Name → balancer, of all in the region."""
        result = part(self._wire.read("NiftyDescribeElasticLoadBalancers"), "NiftyDescribeElasticLoadBalancersResult")
        found = [_balancer(one) for one in rows(result, "ElasticLoadBalancerDescriptions")]
        return {one.name: one for one in found}

    def create(self, wanted: PairBalancer, pair: PortPair) -> None:
        arguments: dict[str, Any] = {
            "ElasticLoadBalancerName": wanted.name,
            "AvailabilityZones": [wanted.zone],
            "Listeners": [_listener(pair)],
            "NetworkVolume": wanted.volume,
            "AccountingType": wanted.accounting,
        }
        if wanted.arms:
            arguments["NetworkInterface"] = [_arm(one) for one in wanted.arms]
        self._wire.change("NiftyCreateElasticLoadBalancer", arguments, object_id=wanted.name)

    def add(self, name: str, pair: PortPair) -> None:
        arguments = {"ElasticLoadBalancerName": name, "Listeners": [_listener(pair)]}
        self._wire.change("NiftyRegisterPortWithElasticLoadBalancer", arguments, object_id=name)

    def move(self, name: str, found: PortPair, *, to: PortPair) -> None:
        wanted = {
            "protocol": to.protocol,
            "elasticLoadBalancerPort": str(to.port),
            "instancePort": str(to.node_port),
            "balancingType": str(to.balancing),
        }
        listed = [{"Key": key, "Value": value} for key, value in wanted.items()]
        attributes = {"ListOfRequestAdditionalAttributes": listed}
        arguments = {**_place(name, found), "LoadBalancerAttributes": attributes}
        self._wire.change("NiftyModifyElasticLoadBalancerAttributes", arguments, object_id=name)

    def drop(self, name: str, pair: PortPair) -> None:
        """The last pair takes the balancer along."""
        self._wire.change("NiftyDeleteElasticLoadBalancer", _place(name, pair), object_id=name)

    def check(self, name: str, pair: PortPair) -> None:
        wanted = {
            "Target": pair.check.target,
            "Interval": pair.check.interval,
            "UnhealthyThreshold": pair.check.threshold,
        }
        arguments = {**_place(name, pair), "HealthCheck": wanted}
        self._wire.change("NiftyConfigureElasticLoadBalancerHealthCheck", arguments, object_id=name)

    def set_filter(self, name: str, pair: PortPair, *, entries: Collection[str], on: bool, denied: bool = False) -> None:
        raise NotImplementedError("balancer_model.problems refuses a filter of an elb")

    def join(self, name: str, pair: PortPair, *, servers: Collection[str]) -> None:
        arguments = _with_servers(name, pair, servers=servers)
        self._wire.change("NiftyRegisterInstancesWithElasticLoadBalancer", arguments, object_id=name)

    def leave(self, name: str, pair: PortPair, *, servers: Collection[str]) -> None:
        arguments = _with_servers(name, pair, servers=servers)
        self._wire.change("NiftyDeregisterInstancesFromElasticLoadBalancer", arguments, object_id=name)

    def order(self, name: str, *, volume: int | None, accounting: str | None) -> None:
        arguments: dict[str, Any] = {"ElasticLoadBalancerName": name}
        if volume is not None:
            arguments["NetworkVolumeUpdate"] = volume
        if accounting is not None:
            arguments["AccountingTypeUpdate"] = int(accounting)
        self._wire.change("NiftyUpdateElasticLoadBalancer", arguments, object_id=name)


def _listener(pair: PortPair) -> dict[str, Any]:
    return {
        "Protocol": pair.protocol,
        "ElasticLoadBalancerPort": pair.port,
        "InstancePort": pair.node_port,
        "BalancingType": pair.balancing,
    }


def _arm(arm: BalancerArm) -> dict[str, Any]:
    found: dict[str, Any] = {"NetworkId": arm.network, "IsVipNetwork": arm.vip}
    if arm.address:
        found["IpAddress"] = arm.address
    if arm.system_addresses:
        found["ListOfRequestSystemIpAddresses"] = [{"SystemIpAddress": one} for one in arm.system_addresses]
    return found


def _place(name: str, pair: PortPair) -> dict[str, Any]:
    return {
        "ElasticLoadBalancerName": name,
        "Protocol": pair.protocol,
        "ElasticLoadBalancerPort": pair.port,
        "InstancePort": pair.node_port,
    }


def _with_servers(name: str, pair: PortPair, *, servers: Collection[str]) -> dict[str, Any]:
    return {**_place(name, pair), "Instances": [{"InstanceId": one} for one in sorted(servers)]}


def _balancer(data: Answer) -> PairBalancer:
    listeners = (part(one, "Listener") for one in rows(data, "ElasticLoadBalancerListenerDescriptions"))
    return PairBalancer(
        text(data, "ElasticLoadBalancerName"),
        tuple(_pair(one) for one in listeners),
        address=text(data, "DNSName"),
        volume=whole(data, "NetworkVolume") or 0,
        accounting=text(data, "NextMonthAccountingType") or text(data, "AccountingType"),
        zone=next(iter(words(data, "AvailabilityZones")), ""),
        arms=tuple(
            BalancerArm(
                text(one, "NetworkId"),
                text(one, "IpAddress"),
                tuple(text(other, "SystemIpAddress") for other in rows(one, "SystemIpAddresses")),
                truth_of(one, "IsVipNetwork"),
            )
            for one in rows(data, "NetworkInterfaces")
        ),
        available=text(data, "State") == "available",
    )


def _pair(data: Answer) -> PortPair:
    check = part(data, "HealthCheck")
    return PortPair(
        text(data, "Protocol"),
        whole(data, "ElasticLoadBalancerPort") or 0,
        whole(data, "InstancePort") or 0,
        HealthCheck(text(check, "Target"), whole(check, "Interval") or 0, whole(check, "UnhealthyThreshold") or 0),
        members=frozenset(text(one, "InstanceId") for one in rows(data, "Instances")),
        balancing=whole(data, "BalancingType") or 1,
    )
