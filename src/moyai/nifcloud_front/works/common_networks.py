"""The two given networks, the router that leads from both to the outside, and the firewall group of the balancers.

They are made when the first machine or balancer needs them, and stay.
"""

from __future__ import annotations

from dataclasses import replace

from moyai.cloud.model import Network, SecurityGroup, SecurityGroupRule
from moyai.core.errors import Terminal
from moyai.nifcloud_front.store.rows import COMMON_GLOBAL, COMMON_PRIVATE, CommonNetworkRow
from moyai.nifcloud_front.works.step import WorkContext, mine, tags

#: The first is carrier-grade NAT's (RFC 6598): its addresses are not seen by users, who see the public ones before them.
RANGES = {COMMON_GLOBAL: "100.64.0.0/18", COMMON_PRIVATE: "172.28.0.0/18"}
_ROUTER = "nifcloud-common"
#: Lets balancers reach machines, whatever the machines' own groups say.
BALANCERS_GROUP = "nifcloud-balancers"
#: What a machine without a firewall group has.
OPEN_GROUP = "nifcloud-open"


def common(context: WorkContext, network: str) -> CommonNetworkRow:
    """The row of a given network, complete. Makes what is missing."""
    with context.shared:
        row = context.row(CommonNetworkRow, network)
        return row if row and row.router_id else _made(context, network)


def _made(context: WorkContext, network: str) -> CommonNetworkRow:
    cloud = context.cloud
    found = mine(cloud.networks.networks(), network) or cloud.networks.create_network(name=network, tags=tags(network))
    subnets = cloud.networks.subnets(network_id=found.id)
    subnet = subnets[0] if subnets else None
    subnet = subnet or cloud.networks.create_subnet(name=network, network_id=found.id, cidr=RANGES[network], tags=tags(network))
    external = outside(context)
    router = mine(cloud.routers.routers(), _ROUTER) or cloud.routers.create_router(name=_ROUTER, tags=tags(_ROUTER))
    if not router.external_network_id:
        cloud.routers.set_router_gateway(router.id, external.id)
    legs = cloud.networks.ports(device_ids=[router.id])
    if not any(subnet.id in leg.subnet_ids for leg in legs):
        cloud.routers.add_router_interface(router.id, subnet.id)
    row = CommonNetworkRow(network, network, found.id, subnet.id, router.id, external.id)
    with context.store.transaction() as tx:
        tx.put(row)
    return row


def outside(context: WorkContext) -> Network:
    """The network of public addresses. Raises Terminal where the cloud has none."""
    found = context.cloud.networks.networks(external=True)
    if not found:
        raise Terminal("the cloud has no external network")
    return found[0]


def given_group(context: WorkContext, name: str) -> SecurityGroup:
    """One of the two groups above."""
    firewall = context.cloud.firewall
    with context.shared:
        found = mine(firewall.security_groups(), name) or firewall.create_security_group(name=name, tags=tags(name))
    if name == OPEN_GROUP:
        firewall.create_security_group_rules([SecurityGroupRule(found.id)])
    return found


def admit_balancer(context: WorkContext, address: str) -> None:
    """Let a balancer's inner address reach all machines."""
    group = given_group(context, BALANCERS_GROUP)
    context.cloud.firewall.create_security_group_rules([replace(SecurityGroupRule(group.id), remote_cidr=f"{address}/32")])


def dismiss_balancer(context: WorkContext, address: str) -> None:
    group = given_group(context, BALANCERS_GROUP)
    for rule in context.cloud.firewall.security_group_rules([group.id]):
        if rule.remote_cidr == f"{address}/32":
            context.cloud.firewall.delete_security_group_rule(rule.id)
