"""Additional storage: disks that are born on a server, and move between servers of their zone."""

from __future__ import annotations

from dataclasses import replace

from moyai.nifcloud_front.calls.call import ApiCall, Values, one_of
from moyai.nifcloud_front.calls.instance_views import device_name
from moyai.nifcloud_front.store.rows import DiskRow, InstanceRow
from moyai.nifcloud_front.wire.refusal import inoperable, invalid, limit, not_found, processing

#: DiskType of a call → what descriptions call it.
TYPES: dict[str, str] = {
    "2": "Standard Storage",
    "3": "High-Speed Storage A",
    "4": "High-Speed Storage B",
    "5": "Flash Storage",
    "6": "Standard Flash Storage A",
    "7": "Standard Flash Storage B",
    "8": "High-Speed Flash Storage A",
    "9": "High-Speed Flash Storage B",
}
_FLASH = "5"
_STEP, _MOST, _MOST_FLASH = 100, 4000, 1000
#: Disks of a server: units 1 to 14.
SLOTS = range(1, 15)


def create_volume(call: ApiCall) -> Values:
    name = call.name("VolumeId", most=32)
    description = call.description()
    disk_type = call.text("DiskType", "2")
    one_of("DiskType", disk_type, values=TYPES)
    size = _size(call.args["Size"], disk_type)
    host = _birth_server(call)
    call.free(DiskRow, "Volume", name=name)
    row = DiskRow(
        uid=call.draw("vol-"),
        name=name,
        size_gb=size,
        type=disk_type,
        zone=host.zone,
        attachment="attaching",
        instance=host.uid,
        slot=_slot(call, host),
        description=description,
        accounting=call.text("AccountingType", "2"),
        created=call.now,
        attached=call.now,
    )
    call.tx.put(row)
    call.tx.schedule(row, "create")
    return {
        "AccountingType": row.accounting,
        "AvailabilityZone": row.zone,
        "CreateTime": row.created,
        "Description": row.description,
        "DiskType": TYPES[row.type],
        "Size": row.size_gb,
        "SnapshotId": "",
        "Status": row.status,
        "VolumeId": row.name,
        "VolumeUniqueId": row.uid,
    }


def _size(given: int, disk_type: str) -> int:
    """GB. A size up to 40 counts hundreds. Raises ApiRefusal."""
    size = given * _STEP if 1 <= given <= 40 else given
    most = _MOST_FLASH if disk_type == _FLASH else _MOST
    if size % _STEP or not _STEP <= size <= most:
        raise invalid("Size", f"The size {given} is neither 1 to 40 nor a multiple of {_STEP} up to {most}.")
    return size


def _birth_server(call: ApiCall) -> InstanceRow:
    name, uid = call.text("InstanceId"), call.text("InstanceUniqueId")
    if bool(name) == bool(uid):
        raise invalid("InstanceId", "A disk needs one server, by InstanceId or by InstanceUniqueId.", kind="Required")
    if name:
        return _ready(call, call.found(InstanceRow, "Instance", name=name))
    row = call.tx.get(InstanceRow, uid)
    if row is None:
        raise not_found("Instance", uid)
    return _ready(call, row)


def _ready(call: ApiCall, row: InstanceRow) -> InstanceRow:
    """Raises ApiRefusal for a server that takes no disk now."""
    call.steady(row, "Instance")
    if row.state not in ("running", "stopped"):
        raise processing("Instance", row.name)
    return row


def _slot(call: ApiCall, host: InstanceRow) -> int:
    used = {one.slot for one in call.tx.all(DiskRow) if one.instance == host.uid}
    free = next((slot for slot in SLOTS if slot not in used), None)
    if free is None:
        raise limit("Volume", f"The server {host.name} has {len(SLOTS)} disks.")
    return free


def attach_volume(call: ApiCall) -> Values:
    _without_device(call)
    row = call.found(DiskRow, "Volume", name=call.text("VolumeId"))
    host = call.found(InstanceRow, "Instance", name=call.text("InstanceId"))
    if (
        row.instance
        and row.attachment in ("attached", "attaching")
        and not (row.attachment == "attaching" and row.status == "creating")
    ):
        raise inoperable("Volume.AlreadyAttached", f"The disk {row.name} is attached.", side="Server")
    call.steady(row, "Volume")
    _ready(call, host)
    if row.zone != host.zone:
        raise invalid("InstanceId", f"The disk is in the zone {row.zone}, the server in {host.zone}.")
    row = replace(row, instance=host.uid, attachment="attaching", slot=_slot(call, host), attached=call.now, status="in-use")
    call.tx.put(row)
    call.tx.schedule(row, "attach")
    return _attachment(row, host)


def detach_volume(call: ApiCall) -> Values:
    _without_device(call)
    row = call.found(DiskRow, "Volume", name=call.text("VolumeId"))
    name = call.text("InstanceId")
    named = call.found(InstanceRow, "Instance", name=name) if name else None
    host = call.tx.get(InstanceRow, row.instance) if row.instance else None
    if host is None or (named and named.uid != host.uid):
        raise inoperable("Volume.DetachedFromInstance", f"The disk {row.name} is not attached to the server.")
    call.steady(row, "Volume")
    if host.state == "running" and not call.args.get("Agreement"):
        raise inoperable("Volume.AgreementRequired", f"The server {host.name} runs: a detachment needs the agreement.")
    row = replace(row, attachment="detaching")
    call.tx.put(row)
    call.tx.schedule(row, "detach")
    return _attachment(row, host)


def _without_device(call: ApiCall) -> None:
    for parameter in ("Device", "Force"):
        if parameter in call.args:
            raise invalid(parameter, f"The parameter {parameter} may not be given.")


def _attachment(row: DiskRow, host: InstanceRow) -> Values:
    return {
        "AttachTime": row.attached.isoformat(timespec="seconds"),
        "Device": device_name(row),
        "InstanceId": host.name,
        "InstanceUniqueId": host.uid,
        "Status": row.attachment,
        "VolumeId": row.name,
        "VolumeUniqueId": row.uid,
    }


def describe_volumes(call: ApiCall) -> Values:
    return {"VolumeSet": [_volume(call, row) for row in call.listed(DiskRow, "Volume", parameter="VolumeId")]}


def _volume(call: ApiCall, row: DiskRow) -> Values:
    host = call.tx.get(InstanceRow, row.instance) if row.instance else None
    shown = _attachment(row, host) if host else None
    return {
        "AccountingType": row.accounting,
        "AttachmentSet": [{**shown, "DeleteOnTermination": "false"}] if shown else [],
        "AvailabilityZone": row.zone,
        "CreateTime": row.created,
        "Description": row.description,
        "DiskType": TYPES[row.type],
        "NextMonthAccountingType": row.accounting,
        # a text here, a number in the answer of CreateVolume
        "Size": str(row.size_gb),
        "SnapshotId": "",
        "Status": row.status,
        "VolumeId": row.name,
        "VolumeUniqueId": row.uid,
    }


def extend_volume_size(call: ApiCall) -> Values:
    row = call.steady(call.found(DiskRow, "Volume", name=call.text("VolumeId")), "Volume")
    if not row.instance:
        raise inoperable("Volume.DetachedFromInstance", f"The disk {row.name} is not attached: only an attached disk grows.")
    size = row.size_gb + _STEP
    if size > (_MOST_FLASH if row.type == _FLASH else _MOST):
        raise limit("Volume", f"The disk {row.name} has its greatest size.")
    # the real service shows a disk that grows as attaching
    call.tx.put(replace(row, attachment="attaching"))
    call.tx.schedule(row, "extend", size=str(size))
    return {"Return": "true"}


def delete_volume(call: ApiCall) -> Values:
    row = call.steady(call.found(DiskRow, "Volume", name=call.text("VolumeId")), "Volume")
    if row.instance:
        raise inoperable("Volume.AttachedToInstance", f"The disk {row.name} is attached.")
    call.tx.schedule(row, "delete")
    return {"Return": True}


def modify_volume_attribute(call: ApiCall) -> Values:
    row = call.steady(call.found(DiskRow, "Volume", name=call.text("VolumeId")), "Volume")
    value = call.text("Value")
    match call.text("Attribute"):
        case "volumeName":
            call.tx.put(replace(row, name=call.new_name(row, "Volume", parameter="Value", name=value, most=32)))
        case "description":
            call.tx.put(replace(row, description=call.description("Value")))
        case "accountingType":
            one_of("Value", value, values=("1", "2"))
            call.tx.put(replace(row, accounting=value))
        case _:
            raise invalid("Attribute", "The parameter Attribute is required.", kind="Required")
    return {"Return": True}
