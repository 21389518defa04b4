"""How a load balancer is reached and how it reaches the nodes: its floating IP, and the rules of the nodes' security groups.

What always holds: a floating IP that the user made is used and let go, never deleted; one that we made (cluster tag or our
description) is deleted with its Service unless it is to be kept; a rule belongs to the Service that its description names.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from ipaddress import ip_network

from moyai.ccm.settings import CloudConfig
from moyai.cloud.load_balancers import LoadBalancer
from moyai.cloud.model import FloatingIP
from moyai.core.errors import NotFound, UsageError
from moyai.core.ids import cluster_tag
from moyai.kube.objects import Service
from moyai.plan.load_balancer import (
    ClusterIdentity,
    LoadBalancerSettings,
    floating_ip_description,
)
from moyai.plan.node_ports import desired_rules, plan_rules, rule_description
from moyai.runtime.calls import CloudCalls

#: Tag of a floating IP that outlives its Service and its cluster.
KEEP_TAG = "moyai.keep=true"


class FloatingIPs:
    def __init__(self, calls: CloudCalls, cluster: ClusterIdentity) -> None:
        self._cloud, self._call = calls.cloud, calls.call
        self._cluster = cluster
        self._external: str = ""

    async def all(self) -> list[FloatingIP]:
        """All of the project: one call answers every question about them."""
        return await self._call(self._cloud.addresses.floating_ips)

    def made_for(self, found: FloatingIP, service: Service) -> bool:
        return found.description == floating_ip_description(self._cluster, service.key)

    async def service_keys(self) -> set[str]:
        """Services for which we made a floating IP that is not to be kept, whether they still exist or not."""
        head, _, tail = floating_ip_description(self._cluster, "/").partition("/")
        return {
            one.description.removeprefix(head).removesuffix(tail)
            for one in await self.all()
            if one.description.startswith(head) and KEEP_TAG not in one.tags
        }

    async def ensure(self, service: Service, settings: LoadBalancerSettings, port_id: str, known: list[FloatingIP]) -> str:
        """The floating address of the load balancer's port, made or found; empty for an internal one."""
        current = next((one for one in known if one.port_id == port_id), None)
        if settings.internal:
            if current:
                await self.release(service, settings, port_id, known)
            return ""
        wanted = settings.floating_address
        if current and wanted in ("", current.address):
            await self._mark_kept(current, service, settings)
            return current.address
        if current:
            await self.release(service, settings, port_id, known)
        chosen = self._choose(service, wanted, known)
        if chosen:
            await self._call(self._cloud.addresses.associate_floating_ip, chosen.id, port_id)
            await self._mark_kept(chosen, service, settings)
            return chosen.address
        network = settings.floating_network_id or await self._external_network()
        made = await self._call(
            self._cloud.addresses.create_floating_ip,
            network_id=network,
            subnet_id=settings.floating_subnet_id or await self._subnet(network, settings.floating_subnet),
            port_id=port_id,
            address=wanted,
            description=floating_ip_description(self._cluster, service.key),
            tags=[cluster_tag(self._cluster.uid), *([KEEP_TAG] if settings.keep_floating_ip else [])],
        )
        return made.address

    async def _mark_kept(self, found: FloatingIP, service: Service, settings: LoadBalancerSettings) -> None:
        if settings.keep_floating_ip and self.made_for(found, service) and KEEP_TAG not in found.tags:
            await self._call(self._cloud.tags.add_tags, "floating_ip", found.id, [KEEP_TAG])

    def _choose(self, service: Service, wanted: str, known: list[FloatingIP]) -> FloatingIP | None:
        """One that is there: the one that is asked for, or one left over from before."""
        if not wanted:
            return next((one for one in known if not one.port_id and self.made_for(one, service)), None)
        named = next((one for one in known if one.address == wanted), None)
        if named and named.port_id:
            raise UsageError(
                f"floating IP {wanted} is in use by port {named.port_id}",
                hint="ask for one that is free in spec.loadBalancerIP",
            )
        return named

    async def release(
        self, service: Service, settings: LoadBalancerSettings, port_id: str, known: list[FloatingIP]
    ) -> list[str]:
        """Let go of what the Service has; returns the addresses that are kept."""
        kept: list[str] = []
        for found in known:
            ours = self.made_for(found, service)
            if not (ours or (port_id and found.port_id == port_id)):
                continue
            if ours and not settings.keep_floating_ip:
                await self._call(self._cloud.addresses.delete_floating_ip, found.id)
                continue
            kept.append(found.address)
            await self._mark_kept(found, service, settings)
            if found.port_id:
                try:
                    await self._call(self._cloud.addresses.associate_floating_ip, found.id, None)
                except NotFound:
                    continue
        return kept

    async def _subnet(self, network_id: str, pattern: str) -> str:
        if not pattern:
            return ""
        found = await self._call(self._cloud.networks.subnets, network_id=network_id)
        for one in sorted(found, key=lambda subnet: subnet.name):
            if fnmatchcase(one.name, pattern):
                return one.id
        names = ", ".join(sorted(one.name for one in found)) or "there is none that you may see"
        raise UsageError(f"no subnet of the external network is called {pattern!r} ({names})")

    async def _external_network(self) -> str:
        if not self._external:
            found = await self._call(self._cloud.networks.networks, external=True)
            if len(found) != 1:
                names = ", ".join(sorted(one.name for one in found)) or "there is none"
                raise UsageError(
                    f"which external network the floating IP shall come from is not clear ({names})",
                    hint="set floating-network-id in [LoadBalancer] of the cloud config or the annotation "
                    "loadbalancer.openstack.org/floating-network-id, or make the load balancer internal",
                )
            self._external = found[0].id
        return self._external


class NodeRules:
    """NodePorts in the nodes' security groups."""

    def __init__(self, calls: CloudCalls, cluster: ClusterIdentity, config: CloudConfig) -> None:
        self._cloud, self._call = calls.cloud, calls.call
        self._cluster = cluster
        self._groups = config.moyai.node_security_group_ids if config.load_balancer.manage_security_groups else ()
        self._subnets: dict[str, str] = {}

    async def ensure(self, service: Service, settings: LoadBalancerSettings, found: LoadBalancer | None) -> None:
        """Open the Service's NodePorts to its load balancer, and close those that it has no more."""
        if not self._groups:
            return
        sources = await self._sources(settings, found)
        desired = desired_rules(service, self._cluster, group_ids=self._groups, sources=sources)
        description = rule_description(self._cluster, service.key)
        observed = await self._call(self._cloud.firewall.security_group_rules, self._groups)
        add, remove = plan_rules(desired, [rule for rule in observed if rule.description == description])
        if add:
            await self._call(self._cloud.firewall.create_security_group_rules, add)
        for rule_id in remove:
            await self._call(self._cloud.firewall.delete_security_group_rule, rule_id)

    async def remove(self, service_key: str) -> None:
        if not self._groups:
            return
        description = rule_description(self._cluster, service_key)
        for rule in await self._call(self._cloud.firewall.security_group_rules, self._groups):
            if rule.description == description:
                await self._call(self._cloud.firewall.delete_security_group_rule, rule.id)

    async def service_keys(self) -> set[str]:
        """Services that have rules, whether they still exist or not."""
        if not self._groups:
            return set()
        prefix = rule_description(self._cluster, "")
        rules = await self._call(self._cloud.firewall.security_group_rules, self._groups)
        return {rule.description[len(prefix) :] for rule in rules if rule.description.startswith(prefix)}

    async def _sources(self, settings: LoadBalancerSettings, found: LoadBalancer | None) -> list[str]:
        """Where packets to NodePorts come from: the load balancer's subnet, or, with a provider that keeps the clients'
        addresses (OVN), the clients too."""
        subnets = [one for one in (settings.member_subnet_id, settings.vip_subnet_id) if one]
        if not subnets and found and found.vip_subnet_id:
            subnets = [found.vip_subnet_id]
        ranges = [await self._cidr(one) for one in dict.fromkeys(subnets)]
        provider = (found.provider if found else "") or settings.provider
        if provider == "ovn":
            ranges += settings.source_ranges or ("0.0.0.0/0",)
        return sorted({str(ip_network(one, strict=False)) for one in ranges if one})

    async def _cidr(self, subnet_id: str) -> str:
        if subnet_id not in self._subnets:
            self._subnets.update({one.id: one.cidr for one in await self._call(self._cloud.networks.subnets)})
        if subnet_id not in self._subnets:
            raise UsageError(f"subnet {subnet_id} is not in the cloud", hint="check subnet-id and member-subnet-id")
        return self._subnets[subnet_id]
