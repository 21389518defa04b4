"""Private LANs and routers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from ipaddress import IPv4Network
from typing import Any

from moyai.nifcloud_front.calls.call import ApiCall, Values
from moyai.nifcloud_front.calls.instance_nics import check_address
from moyai.nifcloud_front.calls.instance_views import network_name
from moyai.nifcloud_front.store.rows import (
    COMMON_GLOBAL,
    COMMON_PRIVATE,
    ElasticBalancerRow,
    GroupRow,
    InstanceRow,
    LanRow,
    RouterArm,
    RouterRow,
)
from moyai.nifcloud_front.wire.refusal import inoperable, invalid, not_built, not_found

#: Name of a filter of routers → the member of a description that it looks at.
_ROUTERS_FILTERED = {
    "availability-zone": "AvailabilityZone",
    "state": "State",
    "router-id": "RouterId",
    "router-name": "RouterName",
    "description": "Description",
    "accountingType": "AccountingType",
    "type": "Type",
}


def create_private_lan(call: ApiCall) -> Values:
    name = call.name("PrivateLanName")
    description = call.description()
    cidr = _cidr("CidrBlock", call.text("CidrBlock"))
    zone = call.zone(call.text("AvailabilityZone"))
    call.free(LanRow, "PrivateLanName", name=name)
    row = LanRow(
        call.draw("net-"), name, cidr, zone.name, description, accounting=call.text("AccountingType", "2"), created=call.now
    )
    call.tx.put(row)
    call.tx.schedule(row, "create")
    return {"PrivateLan": _lan(call, row)}


def _cidr(parameter: str, text: str) -> str:
    try:
        network = IPv4Network(text)
    except ValueError:
        raise invalid(parameter, f"'{text[:64]}' is no IPv4 network.", kind="Format") from None
    if not network.is_private or not 16 <= network.prefixlen <= 28:
        raise invalid(parameter, f"{network} is not a private network of /16 to /28.")
    return str(network)


def _lan(call: ApiCall, row: LanRow) -> Values:
    return {
        "AccountingType": row.accounting,
        "AvailabilityZone": row.zone,
        "CidrBlock": row.cidr,
        "CreatedTime": row.created,
        "Description": row.description,
        "InstancesSet": [
            {"DeviceIndex": str(place), "InstanceId": one.name, "InstanceUniqueId": one.uid, "IpAddress": nic.address}
            for one in call.tx.all(InstanceRow)
            for place, nic in enumerate(one.nics)
            if nic.network == row.uid
        ],
        "ElasticLoadBalancingSet": [
            {
                "ElasticLoadBalancerName": one.name,
                "ElasticLoadBalancerPort": pair.port,
                "InstancePort": pair.instance_port,
                "Protocol": pair.protocol,
            }
            for one in call.tx.all(ElasticBalancerRow)
            if any(arm.network == row.uid for arm in one.arms)
            for pair in one.pairs
        ],
        "NetworkId": row.uid,
        "NextMonthAccountingType": row.accounting,
        "PrivateLanName": row.name,
        "RouterSet": [
            {"DeviceIndex": str(place), "IpAddress": arm.address, "RouterId": one.uid, "RouterName": one.name}
            for one in call.tx.all(RouterRow)
            for place, arm in enumerate(one.arms)
            if arm.network == row.uid
        ],
        "SharingStatus": "",
        "State": row.state,
        "TagSet": [],
    }


def describe_private_lans(call: ApiCall) -> Values:
    ids, names = call.args.get("NetworkId", []), call.args.get("PrivateLanName", [])
    found = call.tx.all(LanRow)
    if ids or names:
        found = [*(call.lan(one, "") for one in ids), *(call.lan("", one) for one in names)]
    for one in call.args.get("Filter", []):
        values: Collection[str] = one.get("ListOfRequestValue", [])
        found = [row for row in found if _field(row, one.get("Name", "")) in values]
    return {"PrivateLanSet": [_lan(call, row) for row in dict.fromkeys(found)]}


def _field(row: LanRow, name: str) -> str:
    match name:
        case "availabilityZone" | "availability-zone":
            return row.zone
        case "cidrBlock" | "cidr" | "cidr-block":
            return row.cidr
        case "state":
            return row.state
        case "network-id":
            return row.uid
        case "private-lan-name":
            return row.name
        case "description":
            return row.description
        case "accountingType":
            return row.accounting
        case other:
            raise not_built(f"NiftyDescribePrivateLans with the filter {other}")


def modify_private_lan(call: ApiCall) -> Values:
    row = call.steady(_lan_of(call), "Network")
    value = call.text("Value")
    match call.text("Attribute"):
        case "privateLanName":
            call.tx.put(replace(row, name=call.new_name(row, "PrivateLanName", parameter="Value", name=value)))
        case "description":
            call.tx.put(replace(row, description=call.description("Value")))
        case other:
            raise not_built(f"NiftyModifyPrivateLanAttribute of {other}")
    return {"Return": True}


def _lan_of(call: ApiCall) -> LanRow:
    network, name = call.text("NetworkId"), call.text("PrivateLanName")
    if not network and not name:
        raise invalid("NetworkId", "The call names no private LAN.", kind="Required")
    return call.lan(network, name)


def delete_private_lan(call: ApiCall) -> Values:
    row = call.steady(_lan_of(call), "Network")
    instances = any(nic.network == row.uid for one in call.tx.all(InstanceRow) for nic in one.nics)
    routers = any(arm.network == row.uid for one in call.tx.all(RouterRow) for arm in one.arms)
    balancers = any(arm.network == row.uid for one in call.tx.all(ElasticBalancerRow) for arm in one.arms)
    if instances or routers or balancers:
        raise inoperable("Network.InUse", f"The private LAN {row.name} is in use.")
    call.tx.schedule(row, "delete")
    return {"Return": True}


# ---- routers


def create_router(call: ApiCall) -> Values:
    name = call.name("RouterName")
    description = call.description(most=500)
    zone = call.zone(call.text("AvailabilityZone"))
    groups = [call.found(GroupRow, "SecurityGroup", name=one) for one in call.args.get("SecurityGroup", [])]
    arms = tuple(_arm(call, one, place=place) for place, one in enumerate(call.args.get("NetworkInterface", []), start=1))
    if not arms:
        raise invalid("NetworkInterface.1.NetworkId", "A router has an interface.", kind="Required")
    call.free(RouterRow, "RouterName", name=name)
    row = RouterRow(
        uid=call.draw("rt-"),
        name=name,
        zone=zone.name,
        type=call.text("Type", "small"),
        group=groups[0].uid if groups else "",
        description=description,
        accounting=call.text("AccountingType", "2"),
        arms=arms,
        created=call.now,
    )
    call.tx.put(row)
    call.tx.schedule(row, "create")
    shown = _router(call, row)
    for absent in ("CreatedTime", "TagSet"):
        shown.pop(absent)
    shown["NetworkInterfaceSet"] = [
        {key: one[key] for key in ("Dhcp", "IpAddress", "NetworkId", "NetworkName")} for one in shown["NetworkInterfaceSet"]
    ]
    return {"Router": shown}


def _arm(call: ApiCall, given: dict[str, Any], *, place: int) -> RouterArm:
    at = f"NetworkInterface.{place}"
    network, name, address = given.get("NetworkId", ""), given.get("NetworkName", ""), given.get("IpAddress", "")
    if bool(network) == bool(name):
        raise invalid(f"{at}.NetworkId", "An interface names its network by NetworkId or by NetworkName.")
    for unbuilt in ("DhcpConfigId", "DhcpOptionsId"):
        if given.get(unbuilt):
            raise not_built(f"{call.operation} with {unbuilt}")
    if (network or name) in (COMMON_GLOBAL, COMMON_PRIVATE):
        return RouterArm(network or name)
    lan = call.steady(call.lan(network, name), "Network")
    if not address:
        raise invalid(f"{at}.IpAddress", "An interface in a private LAN has an address.", kind="Required")
    check_address(call.tx, lan, address=address, parameter=f"{at}.IpAddress")
    if address != str(IPv4Network(lan.cidr)[1]):
        raise not_built(f"{call.operation} with another address than the first of the private LAN")
    return RouterArm(lan.uid, address, dhcp=given.get("Dhcp", False))


def _router(call: ApiCall, row: RouterRow) -> Values:
    return {
        "AccountingType": row.accounting,
        "AvailabilityZone": row.zone,
        "CreatedTime": row.created,
        "Description": row.description,
        "GroupSet": [{"GroupId": call.group_name(row.group)}] if row.group else [],
        "NetworkInterfaceSet": [
            {
                "DeviceIndex": str(place),
                "Dhcp": arm.dhcp,
                "IpAddress": arm.address,
                "NetworkId": arm.network,
                "NetworkName": network_name(call.tx, arm.network),
            }
            for place, arm in enumerate(row.arms)
        ],
        "NextMonthAccountingType": row.accounting,
        "RouterId": row.uid,
        "RouterName": row.name,
        "State": row.state,
        "TagSet": [],
        "Type": row.type,
    }


def describe_routers(call: ApiCall) -> Values:
    ids, names = call.args.get("RouterId", []), call.args.get("RouterName", [])
    found = call.tx.all(RouterRow)
    if ids or names:
        found = [*(_router_row(call, one) for one in ids), *(_router_row(call, "", name=one) for one in names)]
    shown = [_router(call, row) for row in dict.fromkeys(found)]
    for one in call.args.get("Filter", []):
        member = _ROUTERS_FILTERED.get(one.get("Name", ""))
        if member is None:
            raise not_built(f"{call.operation} with the filter {one.get('Name', '')}")
        shown = [values for values in shown if values[member] in one.get("ListOfRequestValue", [])]
    return {"RouterSet": shown}


def _router_row(call: ApiCall, uid: str, *, name: str = "") -> RouterRow:
    if not uid:
        return call.found(RouterRow, "RouterName", name=name)
    row = call.tx.get(RouterRow, uid)
    if row is None:
        raise not_found("RouterId", uid)
    return row


def delete_router(call: ApiCall) -> Values:
    uid, name = call.text("RouterId"), call.text("RouterName")
    if not uid and not name:
        raise invalid("RouterId", "The call names no router.", kind="Required")
    row = call.steady(_router_row(call, uid, name=name), "RouterId")
    call.tx.schedule(row, "delete")
    return {"Return": True}
