"""Security groups and their rules, as Neutron has them: a rule that is there already is not made twice."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from moyai.cloud.memory.session import MemoryApi, api
from moyai.cloud.memory.store import rule_key
from moyai.cloud.model import SecurityGroup, SecurityGroupRule
from moyai.core.errors import Conflict, Terminal


class MemoryFirewall(MemoryApi):
    service = "firewall"

    @api
    def security_groups(self, *, tag: str | None = None) -> list[SecurityGroup]:
        return self._listed(self._store.groups, tag)

    @api
    def create_security_group(self, *, name: str, description: str = "", tags: Sequence[str]) -> SecurityGroup:
        store = self._store
        store.take("security_group")
        group = SecurityGroup(store.new_id(), name, description)

        def along() -> None:
            store.rules.put(SecurityGroupRule(group.id, direction="egress", ethertype="IPv4", id=store.new_id()))
            store.rules.put(SecurityGroupRule(group.id, direction="egress", ethertype="IPv6", id=store.new_id()))

        return self._make(store.groups, group, tags=tags, also=along)

    @api
    def delete_security_group(self, group_id: str) -> None:
        store = self._store
        if group_id not in store.groups:
            return
        if store.ports.count("group", group_id):
            raise self._refused(Conflict, f"Security Group {group_id} in use.", object_id=group_id)
        with self._change():
            store.groups.drop(group_id)
            for rule in (*store.rules.by("group", group_id), *store.rules.by("remote", group_id)):
                store.rules.drop(rule.id)

    @api
    def security_group_rules(self, group_ids: Collection[str]) -> list[SecurityGroupRule]:
        return [rule for group in sorted(set(group_ids)) for rule in self._store.rules.by("group", group)]

    @api
    def create_security_group_rules(self, rules: Sequence[SecurityGroupRule]) -> list[SecurityGroupRule]:
        store = self._store
        if len({rule.group_id for rule in rules}) > 1:
            raise self._refused(Terminal, "Only allowed to update rules for one security profile at a time")
        for group in {one for rule in rules for one in (rule.group_id, rule.remote_group_id) if one}:
            self._find(store.groups, group)
        wanted = {rule_key(rule): rule for rule in rules}
        there = {key: found[0] for key in wanted if (found := store.rules.by("key", key))}
        missing = [rule for key, rule in wanted.items() if key not in there]
        if missing:
            store.take("security_group_rule", len(missing))
            with self._change():
                missing = [store.rules.put(replace(rule, id=store.new_id())) for rule in missing]
        return [*there.values(), *missing]

    @api
    def delete_security_group_rule(self, rule_id: str) -> None:
        if self._store.rules.get(rule_id) is None:
            return
        with self._change():
            self._store.rules.drop(rule_id)
