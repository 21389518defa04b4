"""Rules by which an elastic load balancer reaches its members: it is a proxy, so that clients' packets and checks come from its
own addresses, and a firewall group lets in nobody whom no rule names.

A rule is the load balancer's if its one remote is an address of the load balancer and it opens one port of TCP: the cloud's own
controller manager makes the same rules, and they are taken over. What always holds: rules are compared for all members
together, so that a member that goes closes no port of the others.
"""

from __future__ import annotations

from collections.abc import Collection

from moyai.cloud.model import SecurityGroupRule
from moyai.cloud.nifcloud.balancer_model import PairBalancer
from moyai.cloud.nifcloud.firewall import NifcloudFirewall


class BalancerRules:
    def __init__(self, firewall: NifcloudFirewall) -> None:
        self._firewall = firewall

    def open(self, balancer: PairBalancer, *, groups: Collection[str], ports: Collection[int]) -> None:
        """Lets the load balancer reach these ports of the members in these groups."""
        sources = own_addresses(balancer)
        has = {(one.group_id, one.port_min, one.remote_cidr) for one in self._own(sources)}
        for group in sorted(groups):
            missing = [
                SecurityGroupRule(
                    group_id=group,
                    direction="ingress",
                    ethertype="IPv4",
                    protocol="tcp",
                    port_min=port,
                    port_max=port,
                    remote_cidr=source,
                    description=f"load balancer {balancer.name}",
                )
                for port in sorted(set(ports))
                for source in sorted(sources)
                if (group, port, source) not in has
            ]
            self._firewall.create_security_group_rules(missing)

    def close(self, balancer: PairBalancer, *, groups: Collection[str], ports: Collection[int]) -> None:
        """Takes away all of its rules but those for these ports in these groups."""
        for one in self._own(own_addresses(balancer)):
            if one.group_id not in groups or one.port_min not in ports:
                self._firewall.delete_security_group_rule(one.id)

    def _own(self, sources: Collection[str]) -> list[SecurityGroupRule]:
        if not sources:
            return []
        groups = [one.id for one in self._firewall.security_groups()]
        return [
            one
            for one in self._firewall.security_group_rules(groups)
            if one.remote_cidr in sources
            and (one.direction, one.protocol) == ("ingress", "tcp")
            and one.port_min is not None
            and one.port_min == one.port_max
        ]


def own_addresses(balancer: PairBalancer) -> frozenset[str]:
    """From which it speaks: of each arm the address and the system addresses."""
    found = {balancer.address}
    for arm in balancer.arms:
        found |= {arm.address, *arm.system_addresses}
    return frozenset(found - {""})
