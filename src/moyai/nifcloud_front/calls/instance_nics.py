"""The interfaces that a new instance asks for, checked."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Any

from moyai.nifcloud_front.calls.call import ApiCall
from moyai.nifcloud_front.store.front_store import Transaction
from moyai.nifcloud_front.store.rows import (
    COMMON_GLOBAL,
    COMMON_PRIVATE,
    ElasticBalancerRow,
    InstanceRow,
    LanRow,
    NicRow,
    RouterRow,
    ZoneRow,
)
from moyai.nifcloud_front.wire.refusal import duplicate, inoperable, invalid, not_built

_GIVEN = (COMMON_GLOBAL, COMMON_PRIVATE)


def nics(call: ApiCall, zone: ZoneRow) -> tuple[NicRow, ...]:
    """Without any in the call: the two given networks, the public one unless the IpType is none. Raises ApiRefusal."""
    asked: list[dict[str, Any]] = call.args.get("NetworkInterface", [])
    if not asked:
        public = () if call.text("IpType") == "none" else (NicRow(COMMON_GLOBAL),)
        return (*public, NicRow(COMMON_PRIVATE))
    found = tuple(_nic(call, one, place=place, zone=zone) for place, one in enumerate(asked, start=1))
    for place, one in enumerate(found, start=1):
        if one.network in [other.network for other in found[: place - 1]]:
            raise invalid(f"NetworkInterface.{place}.NetworkId", f"The network {one.network} is given twice.")
    return found


def _nic(call: ApiCall, asked: dict[str, Any], *, place: int, zone: ZoneRow) -> NicRow:
    at = f"NetworkInterface.{place}"
    network, name, address = asked.get("NetworkId", ""), asked.get("NetworkName", ""), asked.get("IpAddress", "")
    if bool(network) == bool(name):
        raise invalid(f"{at}.NetworkId", "An interface names its network by NetworkId or by NetworkName.")
    if network == "net-MULTI_IP_ADDRESS":
        raise not_built("RunInstances in net-MULTI_IP_ADDRESS")
    if network in _GIVEN or name in _GIVEN:
        if address:
            raise invalid(f"{at}.IpAddress", "The given networks choose the address.")
        return NicRow(network or name)
    lan = call.lan(network, name)
    if lan.zone != zone.name:
        raise invalid(f"{at}.NetworkId", f"The private LAN {lan.name} is in the zone {lan.zone}, not in {zone.name}.")
    call.steady(lan, "Network")
    if not address:
        if not has_dhcp(call.tx, lan):
            raise inoperable("Network.NoExistEnableDhcp", f"No router gives addresses in the private LAN {lan.name}.")
    elif address != "static":
        check_address(call.tx, lan, address=address, parameter=f"{at}.IpAddress")
    return NicRow(lan.uid, asked=address)


def has_dhcp(tx: Transaction, lan: LanRow) -> bool:
    return any(
        arm.network == lan.uid and arm.dhcp
        for router in tx.all(RouterRow)
        if router.state == "available"
        for arm in router.arms
    )


def check_address(tx: Transaction, lan: LanRow, *, address: str, parameter: str) -> None:
    """Raises ApiRefusal for an address that the LAN does not have, or that somebody has."""
    try:
        wanted = IPv4Address(address)
    except ValueError:
        raise invalid(parameter, f"'{address[:64]}' is neither an address nor static.", kind="Format") from None
    if wanted not in IPv4Network(lan.cidr):
        raise invalid(parameter, f"The address {address} is not in {lan.cidr}.")
    # a private bridge makes one network of several private LANs
    joined = {one.uid for one in tx.all(LanRow) if one.uid == lan.uid or (one.cloud_id and one.cloud_id == lan.cloud_id)}
    taken = {nic.address or nic.asked for one in tx.all(InstanceRow) for nic in one.nics if nic.network in joined}
    taken |= {arm.address for one in tx.all(RouterRow) for arm in one.arms if arm.network in joined}
    taken |= {
        address
        for one in tx.all(ElasticBalancerRow)
        for arm in one.arms
        if arm.network in joined
        for address in (arm.address, *arm.systems)
    }
    if address in taken:
        raise duplicate("IpAddress", address)
