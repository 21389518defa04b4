"""NodePorts in the nodes' security groups: opens those of a Service to its load balancer, and closes them again."""

from __future__ import annotations

from ipaddress import ip_network

from moyai.ccm.group_rules import GroupRules
from moyai.ccm.octavia.subnets import Subnets
from moyai.ccm.settings import CcmConfig
from moyai.cloud.load_balancers import LoadBalancer
from moyai.core.ids import ClusterIdentity
from moyai.kube.objects import Service
from moyai.plan.load_balancer.service_settings import LoadBalancerSettings
from moyai.plan.node_ports import desired_rules, rule_description, service_of_rule
from moyai.runtime.calls import CloudCalls


class NodeRules:
    def __init__(self, calls: CloudCalls, *, cluster: ClusterIdentity, config: CcmConfig, subnets: Subnets) -> None:
        self._subnets = subnets
        self._cluster = cluster
        self._rules = GroupRules(
            calls, config.cluster.node_security_group_ids if config.load_balancer.manage_security_groups else ()
        )

    async def ensure(self, service: Service, settings: LoadBalancerSettings, *, found: LoadBalancer) -> None:
        """Open the Service's NodePorts to its load balancer, and close those that it has no more."""
        if not self._rules.groups:
            return
        sources = await self._sources(settings, found)
        desired = desired_rules(service, self._cluster, group_ids=self._rules.groups, sources=sources)
        await self._rules.ensure(rule_description(self._cluster, service.key), desired)

    async def remove(self, service_key: str) -> None:
        """Close the NodePorts of a Service."""
        await self._rules.remove(rule_description(self._cluster, service_key))

    async def service_keys(self) -> set[str]:
        """Services that have rules, whether they still exist or not."""
        return {key for one in await self._rules.descriptions() if (key := service_of_rule(self._cluster, one))}

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
