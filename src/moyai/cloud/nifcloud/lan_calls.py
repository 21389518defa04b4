"""The API's calls about private LANs, one method each, with types. A LAN is a network and its one subnet, in one zone.

Source: the SDK's service model (computing 3.0).
"""

from __future__ import annotations

from dataclasses import dataclass

from moyai.cloud.nifcloud.wire import Wire
from moyai.cloud.nifcloud.wire_values import rows, text


@dataclass(frozen=True)
class WireLan:
    """``id``: ``net-…``. ``users``: who has an address in it, by the cloud's names."""

    id: str
    name: str
    description: str
    cidr: str
    zone: str
    state: str
    users: tuple[str, ...] = ()


@dataclass(frozen=True)
class NewLan:
    """``accounting``: 1 by the month, 2 by the hour."""

    name: str
    description: str
    cidr: str
    zone: str
    accounting: str


#: List of a LAN's users → what each is called there.
_USERS = {
    "InstancesSet": "InstanceId",
    "RouterSet": "RouterName",
    "ElasticLoadBalancingSet": "ElasticLoadBalancerName",
    "NetworkInterfaceSet": "NetworkInterfaceId",
    "VpnGatewaySet": "NiftyVpnGatewayName",
    "RemoteAccessVpnGatewaySet": "RemoteAccessVpnGatewayName",
}


class LanCalls:
    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def all(self) -> list[WireLan]:
        return [
            WireLan(
                id=text(one, "NetworkId"),
                name=text(one, "PrivateLanName"),
                description=text(one, "Description"),
                cidr=text(one, "CidrBlock"),
                zone=text(one, "AvailabilityZone"),
                state=text(one, "State"),
                users=tuple(text(user, key) for listed, key in _USERS.items() for user in rows(one, listed)),
            )
            for one in rows(self._wire.read("NiftyDescribePrivateLans"), "PrivateLanSet")
        ]

    def create(self, wanted: NewLan) -> None:
        arguments = {
            "PrivateLanName": wanted.name,
            "Description": wanted.description,
            "CidrBlock": wanted.cidr,
            "AccountingType": wanted.accounting,
            **({"AvailabilityZone": wanted.zone} if wanted.zone else {}),
        }
        self._wire.change("NiftyCreatePrivateLan", arguments, object_id=wanted.name)

    def delete(self, network_id: str) -> None:
        self._wire.change("NiftyDeletePrivateLan", {"NetworkId": network_id}, object_id=network_id)
