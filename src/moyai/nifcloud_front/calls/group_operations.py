"""Firewall groups: each change is applied in the background, and refuses further changes until then."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Literal, cast

from moyai.nifcloud_front.calls.call import ApiCall, Values, between, check_name, one_of
from moyai.nifcloud_front.store.rows import GroupRow, InstanceRow, RouterRow, RuleRow
from moyai.nifcloud_front.wire.refusal import ApiRefusal, duplicate, inoperable, invalid, limit, not_found

#: Protocols that stand for one port of TCP.
NAMED_PORTS = {"SSH": 22, "HTTP": 80, "HTTPS": 443, "RDP": 3389}
_WITH_PORTS = ("TCP", "UDP")
_GROUPS_A_ZONE = 60
_LOG_LIMITS = (1000, 100000)


def create_security_group(call: ApiCall) -> Values:
    name = call.text("GroupName")
    check_name("GroupName", name)
    description = call.description("GroupDescription")
    zone = call.zone(call.args.get("Placement", {}).get("AvailabilityZone"))
    call.free(GroupRow, "SecurityGroup", name=name)
    if sum(one.zone == zone.name for one in call.tx.all(GroupRow)) >= _GROUPS_A_ZONE:
        raise limit("SecurityGroup", f"The zone {zone.name} has {_GROUPS_A_ZONE} firewall groups.")
    row = call.tx.put(GroupRow(call.draw("fw-"), name, zone.name, description))
    call.tx.schedule(row, "apply")
    return {"Return": True}


def describe_security_groups(call: ApiCall) -> Values:
    found = call.listed(GroupRow, "SecurityGroup", parameter="GroupName")
    for one in call.args.get("Filter", ()):
        values = one.get("ListOfRequestValue", [])
        if one.get("Name") == "description":
            found = [row for row in found if row.description in values]
        else:
            found = [row for row in found if row.name in values]
    return {"SecurityGroupInfo": [_view(call, row) for row in found]}


def _view(call: ApiCall, row: GroupRow) -> Values:
    members = _members(call, row)
    return {
        "AvailabilityZone": row.zone,
        "GroupDescription": row.description,
        "GroupLogFilterBroadcast": False,
        "GroupLogFilterNetBios": False,
        "GroupLogLimit": row.log_limit,
        "GroupName": row.name,
        "GroupRuleLimit": row.rule_limit,
        "GroupStatus": "processing" if call.tx.busy(row) else "applied",
        "InstanceUniqueIdsSet": [{"InstanceUniqueId": one.uid} for one in members],
        "InstancesSet": [{"InstanceId": one.name} for one in members],
        "IpPermissions": [_permission(call, rule) for rule in row.rules],
        "OwnerId": "",
        "RouterSet": [{"RouterId": one.uid, "RouterName": one.name} for one in call.tx.all(RouterRow) if one.group == row.uid],
        "VpnGatewaySet": [],
    }


def _permission(call: ApiCall, rule: RuleRow) -> Values:
    ports: Values = {"FromPort": rule.first} if rule.first else {}
    if rule.last != rule.first:
        ports["ToPort"] = rule.last
    return {
        "AddDatetime": rule.added,
        "Description": rule.description,
        **ports,
        "Groups": [{"GroupName": call.group_name(rule.group), "UserId": ""}] if rule.group else [],
        "InOut": rule.direction,
        "IpProtocol": rule.protocol,
        "IpRanges": [{"CidrIp": rule.cidr}] if rule.cidr else [],
    }


def _members(call: ApiCall, row: GroupRow) -> list[InstanceRow]:
    return [one for one in call.tx.all(InstanceRow) if one.group == row.uid]


def _named(call: ApiCall) -> GroupRow:
    return call.found(GroupRow, "SecurityGroup", name=call.text("GroupName"))


def update_security_group(call: ApiCall) -> Values:
    row = call.steady(_named(call), "SecurityGroup")
    name, description = call.text("GroupNameUpdate", row.name), row.description
    call.new_name(row, "SecurityGroup", parameter="GroupNameUpdate", name=name)
    if "GroupDescriptionUpdate" in call.args:
        description = call.description("GroupDescriptionUpdate")
    rules, logs = call.args.get("GroupRuleLimitUpdate", row.rule_limit), call.args.get("GroupLogLimitUpdate", row.log_limit)
    between("GroupRuleLimitUpdate", rules, least=max(len(row.rules), 1), most=1000)
    one_of("GroupLogLimitUpdate", logs, values=_LOG_LIMITS)
    call.tx.put(replace(row, name=name, description=description, rule_limit=rules, log_limit=logs))
    return {"Return": True}


def delete_security_group(call: ApiCall) -> Values:
    row = call.steady(_named(call), "SecurityGroup")
    named = any(rule.group == row.uid for one in call.tx.all(GroupRow) if one.uid != row.uid for rule in one.rules)
    if named or _members(call, row) or any(one.group == row.uid for one in call.tx.all(RouterRow)):
        raise inoperable("SecurityGroup.InUse", f"The firewall group {row.name} is in use.")
    call.tx.schedule(row, "delete")
    return {"Return": True}


def authorize_security_group_ingress(call: ApiCall) -> Values:
    row = call.steady(_named(call), "SecurityGroup")
    wanted = _rules(call, row)
    for rule in wanted:
        if rule in row.rules:
            raise duplicate("CidrIp.or.SecurityGroupName", rule.cidr or call.group_name(rule.group))
    if len(row.rules) + len(wanted) > row.rule_limit:
        raise limit("SecurityGroupIngress", f"The firewall group {row.name} may have {row.rule_limit} rules.")
    row = call.tx.put(replace(row, rules=(*row.rules, *wanted)))
    call.tx.schedule(row, "apply")
    return {"Return": True}


def revoke_security_group_ingress(call: ApiCall) -> Values:
    row = call.steady(_named(call), "SecurityGroup")
    unwanted = _rules(call, row)
    for rule in unwanted:
        if rule not in row.rules:
            raise not_found("SecurityGroupIngress", rule.cidr or call.group_name(rule.group))
    row = call.tx.put(replace(row, rules=tuple(rule for rule in row.rules if rule not in unwanted)))
    call.tx.schedule(row, "apply")
    return {"Return": True}


def _rules(call: ApiCall, row: GroupRow) -> list[RuleRow]:
    """The rules that a call names, one for each source. Raises ApiRefusal."""
    permissions: list[dict[str, Any]] = call.args.get("IpPermissions", [])
    if not permissions:
        raise invalid("IpPermissions.1", "The call names no rule.", kind="Required")
    found = [rule for place, one in enumerate(permissions, start=1) for rule in _permitted(call, row, given=(place, one))]
    for place, rule in enumerate(found):
        if rule in found[:place]:
            raise duplicate("CidrIp.or.SecurityGroupName", rule.cidr or call.group_name(rule.group))
    return found


def _permitted(call: ApiCall, row: GroupRow, *, given: tuple[int, dict[str, Any]]) -> list[RuleRow]:
    place, permission = given
    at = f"IpPermissions.{place}"
    protocol = permission.get("IpProtocol", "TCP")
    first, last = _ports(at, protocol, permission=permission)
    direction = cast("Literal['IN', 'OUT']", permission.get("InOut", "IN"))
    description = permission.get("Description", "")
    if len(description) > 40:
        raise invalid(f"{at}.Description", "The description has more than 40 characters.")
    base = RuleRow(direction, protocol, first, last, description=description, added=call.now)
    ranges = [one.get("CidrIp", "") for one in permission.get("ListOfRequestIpRanges", [])]
    groups = [one.get("GroupName", "") for one in permission.get("ListOfRequestGroups", [])]
    if not ranges and not groups:
        raise invalid(f"{at}.IpRanges.1.CidrIp", "A rule names a CIDR or a firewall group.", kind="Required")
    return [
        *(replace(base, cidr=_cidr(f"{at}.IpRanges.{number}.CidrIp", one)) for number, one in enumerate(ranges, start=1)),
        *(replace(base, group=_other(call, row, name=one).uid) for one in groups),
    ]


def _ports(at: str, protocol: str, *, permission: dict[str, Any]) -> tuple[int, int]:
    first, last = permission.get("FromPort"), permission.get("ToPort")
    if protocol not in _WITH_PORTS:
        if first is not None or last is not None:
            raise invalid(f"{at}.FromPort", f"The protocol {protocol} has no ports.")
        return 0, 0
    if first is None:
        raise invalid(f"{at}.FromPort", f"The protocol {protocol} needs a port.", kind="Required")
    last = first if last is None else last
    between(f"{at}.FromPort", first, least=1, most=65535)
    between(f"{at}.ToPort", last, least=first, most=65535)
    return first, last


def _cidr(parameter: str, text: str) -> str:
    """As the real service shows it: a single address without its length."""
    try:
        network: IPv4Network | IPv6Network = ip_network(text)
    except ValueError:
        raise invalid(parameter, f"'{text[:64]}' is no address and no CIDR.", kind="Format") from None
    return str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)


def _other(call: ApiCall, row: GroupRow, *, name: str) -> GroupRow:
    other = call.found(GroupRow, "SecurityGroup", name=name)
    if other.uid == row.uid:
        raise ApiRefusal("Client.InvalidParameter.Value.SecurityGroup", "A rule does not name its own firewall group.")
    if other.zone != row.zone:
        raise invalid("GroupName", f"The firewall group {name} is in the zone {other.zone}.")
    return other


def register_instances(call: ApiCall) -> Values:
    row = call.steady(_named(call), "SecurityGroup")
    return _regroup(call, row, member_of="")


def deregister_instances(call: ApiCall) -> Values:
    row = call.steady(_named(call), "SecurityGroup")
    return _regroup(call, row, member_of=row.uid)


def _regroup(call: ApiCall, row: GroupRow, *, member_of: str) -> Values:
    """Move servers between the group and none. ``member_of``: what they are in now."""
    rows = call.instances()
    for one in rows:
        call.steady(one, "Instance")
        if one.group != member_of:
            words = f"The server {one.name} is in the firewall group '{call.group_name(one.group)}'."
            raise inoperable("SecurityGroup.HavingRegisteredInstance", words)
        if one.zone != row.zone:
            raise invalid("InstanceId", f"The server {one.name} is in the zone {one.zone}.")
    for one in rows:
        call.tx.put(changed := replace(one, group="" if member_of else row.uid))
        call.tx.schedule(changed, "modify")
    call.tx.schedule(row, "apply")
    return {"InstancesSet": [{"InstanceId": one.name} for one in rows]}
