"""The API's calls about firewall groups, one method each, with types. A group is called by its name, and a rule by its content.

Source: the SDK's service model (computing 3.0).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from moyai.cloud.nifcloud.sdk import Answer
from moyai.cloud.nifcloud.wire import Wire
from moyai.cloud.nifcloud.wire_values import rows, text, whole


@dataclass(frozen=True, order=True)
class WireRule:
    """``direction``: IN or OUT. ``protocol``: ANY, TCP, VRRP … ``first``, ``last``: ports, 0: all. ``remote``: an address
    range or, with ``by_group``, the name of a group."""

    direction: str
    protocol: str
    first: int
    last: int
    remote: str
    by_group: bool = False

    def argument(self, description: str = "") -> dict[str, Any]:
        found: dict[str, Any] = {"InOut": self.direction, "IpProtocol": self.protocol}
        if self.first:
            found["FromPort"] = self.first
        if self.last and self.last != self.first:
            # the API takes a single port as FromPort alone
            found["ToPort"] = self.last
        if self.by_group:
            found["ListOfRequestGroups"] = [{"GroupName": self.remote}]
        else:
            found["ListOfRequestIpRanges"] = [{"CidrIp": self.remote}]
        return {**found, **({"Description": description} if description else {})}


@dataclass(frozen=True)
class WireGroup:
    """``applied``: no change is under way. ``rules``: each with its description."""

    name: str
    description: str
    zone: str
    applied: bool
    rules: tuple[tuple[WireRule, str], ...] = ()
    servers: tuple[str, ...] = ()


class GroupCalls:
    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def all(self) -> list[WireGroup]:
        return [_group(one) for one in rows(self._wire.read("DescribeSecurityGroups"), "SecurityGroupInfo")]

    def create(self, name: str, *, description: str, zone: str) -> None:
        placement = {"Placement": {"AvailabilityZone": zone}} if zone else {}
        arguments = {"GroupName": name, "GroupDescription": description, **placement}
        self._wire.change("CreateSecurityGroup", arguments, object_id=name)

    def delete(self, name: str) -> None:
        self._wire.change("DeleteSecurityGroup", {"GroupName": name}, object_id=name)

    def authorize(self, name: str, rules: Sequence[tuple[WireRule, str]]) -> None:
        arguments = {"GroupName": name, "IpPermissions": [rule.argument(words) for rule, words in rules]}
        self._wire.change("AuthorizeSecurityGroupIngress", arguments, object_id=name)

    def revoke(self, name: str, rules: Sequence[WireRule]) -> None:
        arguments = {"GroupName": name, "IpPermissions": [rule.argument() for rule in rules]}
        self._wire.change("RevokeSecurityGroupIngress", arguments, object_id=name)


def _group(data: Answer) -> WireGroup:
    return WireGroup(
        name=text(data, "GroupName"),
        description=text(data, "GroupDescription"),
        zone=text(data, "AvailabilityZone"),
        applied=text(data, "GroupStatus") == "applied",
        rules=tuple(rule for one in rows(data, "IpPermissions") for rule in _rules(one)),
        servers=tuple(text(one, "InstanceId") for one in rows(data, "InstancesSet")),
    )


def _rules(data: Answer) -> list[tuple[WireRule, str]]:
    """One of the API's may have several remotes."""
    direction, protocol = text(data, "InOut") or "IN", text(data, "IpProtocol") or "ANY"
    first = whole(data, "FromPort") or 0
    last = whole(data, "ToPort") or first
    remotes = [(plain_range(text(one, "CidrIp")), False) for one in rows(data, "IpRanges")]
    remotes += [(text(one, "GroupName"), True) for one in rows(data, "Groups")]
    words = text(data, "Description")
    return [(WireRule(direction, protocol, first, last, remote, by_group), words) for remote, by_group in remotes]


def plain_range(remote: str) -> str:
    """One way of writing a range: an address alone without its length."""
    try:
        found = ip_network(remote, strict=False)
    except ValueError:
        return remote
    return str(found.network_address) if found.prefixlen == found.max_prefixlen else str(found)
