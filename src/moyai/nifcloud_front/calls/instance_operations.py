"""Instances: making, describing, starting, stopping, ending and changing them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import replace

from moyai.nifcloud_front.calls.call import ApiCall, Values
from moyai.nifcloud_front.calls.instance_nics import nics
from moyai.nifcloud_front.calls.instance_views import balancings, instance, mappings, nic_values, state
from moyai.nifcloud_front.store.rows import (
    COMMON_GLOBAL,
    AddressRow,
    GroupRow,
    ImageRow,
    InstanceRow,
    InstanceState,
    KeyRow,
    RouterRow,
    ZoneRow,
)
from moyai.nifcloud_front.wire.refusal import ApiRefusal, inoperable, invalid, not_built, not_found, processing

#: Bytes of user data as it is sent.
USER_DATA_BYTES = 8192
_DEFAULT_TYPE = "mini"


def run_instances(call: ApiCall) -> Values:
    for parameter in ("MinCount", "MaxCount"):
        if call.args.get(parameter, 1) != 1:
            raise invalid(parameter, "One call makes one server.")
    name = call.name("InstanceId")
    description = call.description()
    content = user_data(call)
    zone = call.zone(call.args.get("Placement", {}).get("AvailabilityZone"))
    image = call.tx.get(ImageRow, call.text("ImageId"))
    if image is None:
        raise not_found("ImageId", call.text("ImageId"))
    if key := call.text("KeyName"):
        call.found(KeyRow, "KeyPair", name=key)
    group = _group(call, call.args.get("SecurityGroup", ()), zone=zone)
    arms = nics(call, zone)
    ip_type = call.text("IpType") or ("static" if any(one.network == COMMON_GLOBAL for one in arms) else "none")
    elastic = _elastic(call, ip_type, zone=zone)
    call.free(InstanceRow, "Instance", name=name)
    row = InstanceRow(
        uid=call.draw("i-"),
        name=name,
        image=image.uid,
        type=call.text("InstanceType", _DEFAULT_TYPE),
        zone=zone.name,
        key=call.text("KeyName"),
        group=group.uid if group else "",
        description=description,
        accounting=call.text("AccountingType", "2"),
        ip_type=ip_type,
        elastic=elastic.uid if elastic else "",
        nics=arms,
        # the default of the real service protects
        protected=call.args.get("DisableApiTermination", True),
        user_data=content,
        launched=call.now,
    )
    call.tx.put(row)
    if elastic:
        call.tx.put(replace(elastic, instance=row.uid))
    call.tx.schedule(row, "create")
    return {
        "GroupSet": [{"GroupId": group.name}] if group else [],
        "InstancesSet": [instance(call, row, created=True)],
        "OwnerId": "",
        "ReservationId": "",
    }


def user_data(call: ApiCall) -> str:
    """The text that the machine gets. Raises ApiRefusal for more than the real service takes."""
    given = call.args.get("UserData", {})
    content, encoding = given.get("Content", ""), given.get("Encoding", "")
    if encoding == "base64":
        sent = content.encode()
        try:
            plain = base64.b64decode(sent, validate=True)
        except binascii.Error:
            raise invalid("UserData", "The user data is not base64.", kind="Format") from None
    elif encoding:
        raise invalid("UserData.Encoding", "The encoding is not base64.")
    else:
        plain = content.encode()
        sent = base64.b64encode(plain)
    if len(sent) > USER_DATA_BYTES:
        raise invalid("UserData", f"The user data has {len(sent)} bytes in base64, more than {USER_DATA_BYTES}.")
    try:
        return plain.decode()
    except UnicodeDecodeError:
        raise invalid("UserData", "The user data is not text.", kind="Format") from None


def _group(call: ApiCall, names: Sequence[str], *, zone: ZoneRow) -> GroupRow | None:
    if len(names) > 1:
        raise invalid("SecurityGroup.2", "A server is in one firewall group.")
    if not names:
        return None
    row = call.found(GroupRow, "SecurityGroup", name=names[0])
    if row.zone != zone.name:
        raise invalid("SecurityGroup.1", f"The firewall group {row.name} is in the zone {row.zone}.")
    return call.steady(row, "SecurityGroup")


def _elastic(call: ApiCall, ip_type: str, *, zone: ZoneRow) -> AddressRow | None:
    address = call.text("PublicIp")
    if (ip_type == "elastic") != bool(address):
        raise invalid("PublicIp", "PublicIp belongs to the IpType elastic, and to no other.")
    if not address:
        return None
    row = call.found(AddressRow, "IpAddress", name=address)
    if row.instance:
        raise inoperable("IpAddress.InUse", f"The address {address} belongs to a server.")
    if row.zone != zone.name:
        raise invalid("PublicIp", f"The address {address} is in the zone {row.zone}.")
    return row


def describe_instances(call: ApiCall) -> Values:
    return {
        "ReservationSet": [
            {
                "GroupSet": [{"GroupId": call.group_name(row.group)}] if row.group else [],
                "InstancesSet": [instance(call, row)],
                "OwnerId": "",
                "ReservationId": "",
            }
            for row in call.instances()
        ]
    }


def describe_instance_attribute(call: ApiCall) -> Values:
    row = call.found(InstanceRow, "Instance", name=call.text("InstanceId"))
    values: Values = {"InstanceId": row.name, "InstanceUniqueId": row.uid}
    match call.text("Attribute", "instanceType"):
        case "blockDeviceMapping":
            values["BlockDeviceMapping"] = mappings(call, row, devices=True)
        case "networkInterfaceSet":
            values["NetworkInterfaceSet"] = [nic_values(call, nic, place=place, row=row) for place, nic in enumerate(row.nics)]
        case "groupId":
            values["GroupId"] = {"Value": call.group_name(row.group)}
        case "disableApiTermination":
            values["DisableApiTermination"] = {"Value": row.protected}
        case "accountingType":
            values["AccountingType"] = {"Value": row.accounting}
        case "nextMonthAccountingType":
            values["NextMonthAccountingType"] = {"Value": row.accounting}
        case "description":
            values["Description"] = {"Value": row.description}
        case "ipType":
            values["IpType"] = {"Value": row.ip_type}
        case "loadbalancing":
            values["Loadbalancing"] = balancings(call, row)
        case "instanceType":
            values["InstanceType"] = {"Value": row.type}
        case other:
            raise not_built(f"DescribeInstanceAttribute of {other}")
    return values


# ---- states


def start_instances(call: ApiCall) -> Values:
    if "UserData" in call.args:
        raise not_built("StartInstances with user data")
    return _change(call, "start", needs="stopped", refusal="Server.ProcessingFailure.Instance.Start")


def stop_instances(call: ApiCall) -> Values:
    verb = "force-stop" if call.args.get("Force") else "stop"
    return _change(call, verb, needs="running", refusal="Server.ProcessingFailure.Instance.Stop")


def reboot_instances(call: ApiCall) -> Values:
    if "UserData" in call.args:
        raise not_built("RebootInstances with user data")
    _change(call, "reboot", needs="running", refusal="Server.ProcessingFailure.Instance.Reboot")
    return {"Return": True}


def _change(call: ApiCall, verb: str, *, needs: InstanceState, refusal: str) -> Values:
    rows = call.instances()
    for row in rows:
        call.steady(row, "Instance")
        # a stop brings a server out of the state warning
        if row.state != needs and not (row.state == "warning" and verb.endswith("stop")):
            raise ApiRefusal(refusal, f"The server {row.name} is {row.state}, not {needs}.", status=500)
    return {"InstancesSet": [_moved(call, row, verb=verb, state_now="pending") for row in rows]}


def _moved(call: ApiCall, row: InstanceRow, *, verb: str, state_now: InstanceState) -> Values:
    call.tx.put(replace(row, state=state_now, previous=row.state))
    call.tx.schedule(row, verb)
    return {
        "CurrentState": state(state_now),
        "InstanceId": row.name,
        "InstanceUniqueId": row.uid,
        "PreviousState": state(row.state),
    }


def terminate_instances(call: ApiCall) -> Values:
    rows = call.instances()
    for row in rows:
        call.steady(row, "Instance")
        if row.protected:
            raise inoperable("Instance.DisableApiTermination", f"The server {row.name} is protected from deletion.")
        if row.state not in ("stopped", "warning"):
            raise inoperable("Instance.NotStopped", f"The server {row.name} is {row.state}, not stopped.")
        for router in call.tx.all(RouterRow):
            if router.state != "available" and {one.network for one in router.arms} & {one.network for one in row.nics}:
                raise processing("RouterId", router.uid)
    return {"InstancesSet": [_moved(call, row, verb="terminate", state_now="terminated") for row in rows]}


def modify_instance_attribute(call: ApiCall) -> Values:
    row = call.steady(call.found(InstanceRow, "Instance", name=call.text("InstanceId")), "Instance")
    value = call.text("Value")
    match call.text("Attribute"):
        case "instanceName":
            call.tx.put(replace(row, name=call.new_name(row, "Instance", parameter="Value", name=value)))
        case "description":
            call.tx.put(replace(row, description=call.description("Value")))
        case "accountingType":
            if value not in ("1", "2"):
                raise invalid("Value", "The accounting type is neither 1 nor 2.")
            call.tx.put(replace(row, accounting=value))
        case "disableApiTermination":
            if value not in ("true", "false"):
                raise invalid("Value", "The value is neither true nor false.")
            call.tx.put(replace(row, protected=value == "true"))
        case "groupId":
            zone = call.zone(row.zone)
            group = _group(call, [value] if value else [], zone=zone)
            call.tx.put(row := replace(row, group=group.uid if group else ""))
            call.tx.schedule(row, "modify")
        case other:
            raise not_built(f"ModifyInstanceAttribute of {other}")
    return {"Return": True}
