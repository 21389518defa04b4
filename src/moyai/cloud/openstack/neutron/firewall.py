"""Neutron: security groups and their rules, many in one call. ``cloud.capabilities.Firewall``."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Sequence
from typing import Any

from moyai.cloud.model import SecurityGroup, SecurityGroupRule
from moyai.cloud.openstack import parse
from moyai.cloud.openstack.neutron.parts import IDS_PER_QUERY, NeutronBase
from moyai.core.errors import Conflict
from moyai.core.keys import Kind

_TRIES = 4


class NeutronFirewall(NeutronBase):
    def security_groups(self, *, tag: str | None = None) -> list[SecurityGroup]:
        # without the fields Neutron reads every rule of every group
        query = {**self._own(), "fields": ["id", "name", "description", "tags"]}
        rows = self._list(Kind.SECURITY_GROUP, "list security groups", tag=tag, query=query)
        return [parse.security_group(row) for row in rows]

    def create_security_group(self, *, name: str, description: str = "", tags: Sequence[str]) -> SecurityGroup:
        return parse.security_group(
            self._create(Kind.SECURITY_GROUP, name, body={"name": name, "description": description}, tags=tags)
        )

    def delete_security_group(self, group_id: str) -> None:
        self._delete(Kind.SECURITY_GROUP, group_id)

    def security_group_rules(self, group_ids: Collection[str]) -> list[SecurityGroupRule]:
        found: list[SecurityGroupRule] = []
        for ids in parse.chunks(group_ids, IDS_PER_QUERY):
            rows = self._neutron.list(
                "/security-group-rules",
                "security_group_rules",
                operation="list security group rules",
                params={"security_group_id": ids},
            )
            found += [parse.security_group_rule(row) for row in rows]
        return found

    def create_security_group_rules(self, rules: Sequence[SecurityGroupRule]) -> list[SecurityGroupRule]:
        """One call for all; returns them all, those that were there before included.

        Neutron makes all or, when one is there already, none: then the existing ones are read and the rest sent.
        """
        wanted = {rule_key(rule): rule for rule in rules}
        missing = dict(wanted)
        there: list[SecurityGroupRule] = []
        for attempt in range(_TRIES):
            if not missing:
                return there
            body = {"security_group_rules": [_rule_body(rule) for rule in missing.values()]}
            try:
                made = self._neutron.post("/security-group-rules", body, operation="create security group rules")
            except Conflict:
                if attempt == _TRIES - 1:
                    raise
                listed = self.security_group_rules({rule.group_id for rule in wanted.values()})
                there = [rule for rule in listed if rule_key(rule) in wanted]
                known = {rule_key(rule) for rule in there}
                missing = {key: rule for key, rule in wanted.items() if key not in known}
                continue
            return there + [parse.security_group_rule(row) for row in made["security_group_rules"]]
        raise AssertionError("unreachable")

    def delete_security_group_rule(self, rule_id: str) -> None:
        self._delete(Kind.RULES, rule_id)


def rule_key(rule: SecurityGroupRule) -> tuple[Any, ...]:
    """What makes two rules the same one to Neutron: all but id and description."""
    cidr = str(ipaddress.ip_network(rule.remote_cidr, strict=False)) if rule.remote_cidr else None
    if cidr in ("0.0.0.0/0", "::/0"):
        cidr = None
    protocol = None if rule.protocol in (None, "any", "0") else rule.protocol.lower()
    ports = rule.port_min, rule.port_max
    return rule.group_id, rule.direction, rule.ethertype, protocol, *ports, cidr, rule.remote_group_id


def _rule_body(rule: SecurityGroupRule) -> dict[str, Any]:
    return {
        "security_group_id": rule.group_id,
        "direction": rule.direction,
        "ethertype": rule.ethertype,
        "protocol": rule.protocol,
        "port_range_min": rule.port_min,
        "port_range_max": rule.port_max,
        "remote_ip_prefix": rule.remote_cidr,
        "remote_group_id": rule.remote_group_id,
        "description": rule.description,
    }
