"""Elastic addresses: they belong to servers, and change owners while a server is stopped or by its reboot."""

from __future__ import annotations

from dataclasses import replace

from moyai.nifcloud_front.calls.call import ApiCall, Later, Values
from moyai.nifcloud_front.store.front_store import Transaction
from moyai.nifcloud_front.store.rows import COMMON_GLOBAL, AddressRow, InstanceRow
from moyai.nifcloud_front.wire.refusal import inoperable, invalid, not_built


def allocate_address(call: ApiCall) -> Later:
    if call.args.get("NiftyPrivateIp"):
        raise not_built("AllocateAddress of a private address")
    if "InstanceId" in call.args:
        raise not_built("AllocateAddress with a server")
    zone = call.zone(call.args.get("Placement", {}).get("AvailabilityZone"))
    row = call.tx.put(AddressRow(call.draw("eip-"), zone.name))
    call.tx.schedule(row, "allocate")

    def render(tx: Transaction) -> Values:
        made = tx.get(AddressRow, row.uid)
        return {"Placement": {"AvailabilityZone": row.zone}, "PrivateIpAddress": "", "PublicIp": made.address if made else ""}

    return Later("address", row.uid, render)


def describe_addresses(call: ApiCall) -> Values:
    if call.args.get("PrivateIpAddress") or call.args.get("Filter") or call.args.get("AllocationId"):
        raise not_built("DescribeAddresses by anything but PublicIp")
    rows = [row for row in call.listed(AddressRow, "IpAddress", parameter="PublicIp") if row.address]
    return {"AddressesSet": [_address(call, row) for row in rows]}


def _address(call: ApiCall, row: AddressRow) -> Values:
    owner = call.tx.get(InstanceRow, row.instance) if row.instance else None
    return {
        "AvailabilityZone": row.zone,
        "Description": row.description,
        "InstanceId": owner.name if owner else "",
        "InstanceUniqueId": owner.uid if owner else "",
        "PrivateIpAddress": "",
        "PublicIp": row.address,
    }


def _named(call: ApiCall) -> AddressRow:
    if not call.text("PublicIp"):
        raise invalid("PublicIp", "The call names no address.", kind="Required")
    return call.steady(call.found(AddressRow, "IpAddress", name=call.text("PublicIp")), "IpAddress")


def associate_address(call: ApiCall) -> Values:
    row = _named(call)
    owner = call.steady(call.found(InstanceRow, "Instance", name=call.text("InstanceId")), "Instance")
    if row.instance:
        raise inoperable("IpAddress.InUse", f"The address {row.address} belongs to a server.")
    if owner.elastic:
        raise inoperable("Instance.HavingIpAddress", f"The server {owner.name} has an elastic address.")
    if owner.zone != row.zone:
        raise invalid("InstanceId", f"The server {owner.name} is in the zone {owner.zone}.")
    if not any(nic.network == COMMON_GLOBAL for nic in owner.nics):
        raise inoperable("Network.NoGlobal", f"The server {owner.name} has no interface in {COMMON_GLOBAL}.")
    call.tx.put(replace(row, instance=owner.uid))
    _readdress(call, owner, changed=replace(owner, elastic=row.uid, ip_type="elastic"))
    return {"Return": True}


def disassociate_address(call: ApiCall) -> Values:
    row = _named(call)
    owner = call.tx.get(InstanceRow, row.instance) if row.instance else None
    if owner is None:
        raise inoperable("IpAddress.NotInUse", f"The address {row.address} belongs to no server.")
    call.steady(owner, "Instance")
    call.tx.put(replace(row, instance=""))
    _readdress(call, owner, changed=replace(owner, elastic="", ip_type="static"))
    return {"Return": True}


def _readdress(call: ApiCall, owner: InstanceRow, *, changed: InstanceRow) -> None:
    """Raises ApiRefusal for a running server that may not be rebooted."""
    reboot = call.text("NiftyReboot", "true") != "false"
    if owner.state == "running" and not reboot:
        raise inoperable("Instance.Running", f"The server {owner.name} runs: its address changes by a reboot.")
    if owner.state not in ("running", "stopped"):
        raise inoperable("Instance.State", f"The server {owner.name} is {owner.state}.")
    running = owner.state == "running"
    call.tx.put(replace(changed, previous=owner.state, state="pending" if running else owner.state))
    call.tx.schedule(changed, "readdress", reboot="true" if running else "")


def release_address(call: ApiCall) -> Values:
    row = _named(call)
    if row.instance:
        raise inoperable("IpAddress.InUse", f"The address {row.address} belongs to a server.")
    call.tx.schedule(row, "release")
    return {"Return": True}


def modify_address(call: ApiCall) -> Values:
    row = _named(call)
    call.tx.put(replace(row, description=call.description("Value")))
    return {"Return": True}
