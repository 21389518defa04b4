"""NodePorts in the nodes' security groups: opens those of a Service to its load balancer, and closes them again.

What always holds: a rule belongs to the Service that its description names, every other rule stays; the rules of the groups are
listed once for all Services that ask within a short time, and own writes are entered into that list.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_network

from moyai.ccm.octavia.subnets import Subnets
from moyai.ccm.settings import CcmConfig
from moyai.cloud.load_balancers import LoadBalancer
from moyai.cloud.model import SecurityGroupRule
from moyai.core.ids import ClusterIdentity
from moyai.kube.objects import Service
from moyai.plan.load_balancer.service_settings import LoadBalancerSettings
from moyai.plan.node_ports import desired_rules, plan_rules, rule_description, service_of_rule
from moyai.runtime.calls import CloudCalls
from moyai.runtime.concurrency import side_by_side
from moyai.runtime.shared_reads import RecentList

#: How old the shared list may be. Only what somebody else did since then is not in it.
_RECENT_SECONDS = 10.0


class NodeRules:
    def __init__(self, calls: CloudCalls, *, cluster: ClusterIdentity, config: CcmConfig, subnets: Subnets) -> None:
        self._cloud, self._call = calls.cloud, calls.call
        self._subnets = subnets
        self._cluster = cluster
        self._groups = config.cluster.node_security_group_ids if config.load_balancer.manage_security_groups else ()
        self._rules: RecentList[SecurityGroupRule] = RecentList(
            lambda: self._call(self._cloud.firewall.security_group_rules, self._groups),
            key=lambda one: one.id,
            clock=calls.clock,
        )

    async def ensure(self, service: Service, settings: LoadBalancerSettings, *, found: LoadBalancer) -> None:
        """Open the Service's NodePorts to its load balancer, and close those that it has no more."""
        if not self._groups:
            return
        sources = await self._sources(settings, found)
        desired = desired_rules(service, self._cluster, group_ids=self._groups, sources=sources)
        add, remove = plan_rules(desired, await self._of(service.key, max_age=_RECENT_SECONDS))
        await self._create(add)
        for rule_id in remove:
            await self._delete(rule_id)

    async def remove(self, service_key: str) -> None:
        """Close the NodePorts of a Service."""
        if self._groups:
            for rule in await self._of(service_key, max_age=_RECENT_SECONDS):
                await self._delete(rule.id)

    async def service_keys(self) -> set[str]:
        """Services that have rules, whether they still exist or not."""
        if not self._groups:
            return set()
        rules = await self._rules.get(max_age=0)
        return {key for rule in rules if (key := service_of_rule(self._cluster, rule.description))}

    async def _of(self, service_key: str, *, max_age: float) -> list[SecurityGroupRule]:
        description = rule_description(self._cluster, service_key)
        return [rule for rule in await self._rules.get(max_age=max_age) if rule.description == description]

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

    async def _sources(self, settings: LoadBalancerSettings, found: LoadBalancer) -> list[str]:
        """Where packets to NodePorts come from: the load balancer's subnet, or, with a provider that keeps the clients'
        addresses (OVN), the clients too."""
        subnets = [one for one in (settings.member_subnet_id, settings.vip_subnet_id) if one]
        if not subnets and found.vip_subnet_id:
            subnets = [found.vip_subnet_id]
        ranges = [await self._subnets.cidr(one) for one in dict.fromkeys(subnets)]
        if (found.provider or settings.provider) == "ovn":
            everybody = "::/0" if ":" in found.vip_address else "0.0.0.0/0"
            ranges += settings.source_ranges or (everybody,)
        return sorted({str(ip_network(one, strict=False)) for one in ranges if one})
