"""Rules of security groups that Services have: made, listed and taken away for one Service at a time.

What always holds: a rule belongs to the Service that its description names, every other rule stays; the rules of the groups are
listed once for all Services that ask within a short time, and own writes are entered into that list.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from moyai.cloud.model import SecurityGroupRule
from moyai.plan.node_ports import plan_rules
from moyai.runtime.calls import CloudCalls
from moyai.runtime.concurrency import side_by_side
from moyai.runtime.shared_reads import RecentList

#: How old the shared list may be. Only what somebody else did since then is not in it.
_RECENT_SECONDS = 10.0


class GroupRules:
    """``groups``: ids of the security groups."""

    def __init__(self, calls: CloudCalls, groups: tuple[str, ...]) -> None:
        self._cloud, self._call = calls.cloud, calls.call
        self.groups = groups
        self._rules: RecentList[SecurityGroupRule] = RecentList(
            lambda: self._call(self._cloud.firewall.security_group_rules, self.groups),
            key=lambda one: one.id,
            clock=calls.clock,
        )

    async def ensure(self, description: str, desired: Iterable[SecurityGroupRule]) -> None:
        """The rules of this description are those that are desired, but for what others' rules let through already: a cloud
        refuses the same rule under another description."""
        known = await self._rules.get(max_age=_RECENT_SECONDS)
        others = {_allowance(one) for one in known if one.description != description}
        wanted = [one for one in desired if _allowance(one) not in others]
        add, remove = plan_rules(wanted, [one for one in known if one.description == description])
        await self._create(add)
        for rule_id in remove:
            await self._delete(rule_id)

    async def remove(self, description: str) -> None:
        for rule in await self._of(description):
            await self._delete(rule.id)

    async def descriptions(self) -> set[str]:
        """Of all rules, as the groups are now."""
        return {rule.description for rule in await self._rules.get(max_age=0)} if self.groups else set()

    async def _of(self, description: str) -> list[SecurityGroupRule]:
        if not self.groups:
            return []
        return [rule for rule in await self._rules.get(max_age=_RECENT_SECONDS) if rule.description == description]

    async def _create(self, rules: Iterable[SecurityGroupRule]) -> None:
        """One call for each group: a call takes rules of one group only."""
        by_group: dict[str, list[SecurityGroupRule]] = {}
        for rule in rules:
            by_group.setdefault(rule.group_id, []).append(rule)
        async with side_by_side() as calls:
            for of_group in by_group.values():
                calls.create_task(self._create_in_group(of_group))

    async def _create_in_group(self, rules: list[SecurityGroupRule]) -> None:
        try:
            self._rules.put(*await self._call(self._cloud.firewall.create_security_group_rules, rules))
        except BaseException:
            # some may have been made all the same
            self._rules.forget()
            raise

    async def _delete(self, rule_id: str) -> None:
        try:
            await self._call(self._cloud.firewall.delete_security_group_rule, rule_id)
        except BaseException:
            self._rules.forget()
            raise
        self._rules.drop(rule_id)


def _allowance(rule: SecurityGroupRule) -> SecurityGroupRule:
    return replace(rule, id="", description="")
