"""Balancers of both kinds: a load balancer below with the pairs' listeners, changed by one call after the other.

A public balancer stands in the given public network, with a floating IP before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from moyai.cloud.load_balancers import BalancerState, LoadBalancer
from moyai.core.errors import NotFound, Terminal
from moyai.nifcloud_front.store.front_store import Transaction
from moyai.nifcloud_front.store.rows import (
    COMMON_GLOBAL,
    COMMON_PRIVATE,
    BalancerArmRow,
    BalancerRow,
    ElasticBalancerRow,
    InstanceRow,
    LanRow,
    PairRow,
    WorkRow,
)
from moyai.nifcloud_front.works import pair_listeners as tree
from moyai.nifcloud_front.works.common_networks import admit_balancer, common, dismiss_balancer
from moyai.nifcloud_front.works.step import Again, Change, WorkContext, WorkDone, mine, own_addresses, tag, tags

AnyBalancer = BalancerRow | ElasticBalancerRow
_PUBLIC_ARM = BalancerArmRow(COMMON_GLOBAL, vip=True)


def serve(context: WorkContext, work: WorkRow) -> Again | WorkDone:
    return _serve(context, work, row=context.row(BalancerRow, work.uid))


def change(context: WorkContext, work: WorkRow) -> Again | WorkDone:
    return _serve(context, work, row=context.row(ElasticBalancerRow, work.uid))


def _serve(context: WorkContext, work: WorkRow, *, row: AnyBalancer | None) -> Again | WorkDone:
    """One change, or one look whether the last one is made."""
    if row is None:
        return WorkDone()
    balancers = context.cloud.load_balancers
    found = mine(balancers.load_balancers(tag=tag(row.uid)) or balancers.load_balancers(name=row.uid), row.uid)
    if not row.pairs:
        return _end(context, work, row=row, there=found)
    if found is None:
        balancers.create(_wanted(context, row))
        return Again("serve", context.pace.poll)
    if found.state is BalancerState.FAILED:
        raise Terminal(f"the load balancer of {row.name} failed")
    if found.state is not BalancerState.ACTIVE:
        return Again("serve", context.pace.poll)
    if not row.vip:
        return Again("serve", change=_address(context, row, there=found))
    there = balancers.get(found.id)
    order = tree.next_change(there, _listeners(context, row))
    if order is not None:
        order(balancers)
        return Again("serve", context.pace.poll)
    left = context.early(work)
    if left > 0:
        return Again("serve", left)
    return WorkDone(_healthy(context, row, there=there), seen=row)


def _wanted(context: WorkContext, row: AnyBalancer) -> LoadBalancer:
    arm = vip_arm(row)
    return LoadBalancer(
        name=row.uid,
        vip_subnet_id=subnet_of(context, arm.network),
        vip_address=arm.address,
        tags=tags(row.uid),
        listeners=tuple(_listeners(context, row)),
    )


def vip_arm(row: AnyBalancer) -> BalancerArmRow:
    if isinstance(row, BalancerRow):
        return _PUBLIC_ARM
    return next((one for one in row.arms if one.vip), _PUBLIC_ARM)


def subnet_of(context: WorkContext, network: str) -> str:
    if network in (COMMON_GLOBAL, COMMON_PRIVATE):
        return common(context, network).subnet_id
    lan = context.row(LanRow, network)
    if lan is None:
        raise Terminal(f"the private LAN {network} is gone")
    return lan.subnet_id


def _listeners(context: WorkContext, row: AnyBalancer) -> list[tree.Listener]:
    return [tree.listener(row.uid, pair, backends=backends(context, row, pair=pair)) for pair in row.pairs]


def backends(context: WorkContext, row: AnyBalancer, *, pair: PairRow) -> list[tree.Backend]:
    """The members that have an address which the balancer reaches."""
    if isinstance(row, BalancerRow):
        reached: Sequence[str] = (COMMON_GLOBAL, COMMON_PRIVATE)
    else:
        # with two arms the machines are behind the arm without the VIP
        reached = [arm.network for arm in sorted(row.arms, key=lambda arm: arm.vip)]
    found: list[tree.Backend] = []
    for uid in pair.members:
        one = context.row(InstanceRow, uid)
        nics = {nic.network: nic for nic in one.nics if nic.address} if one else {}
        network = next((network for network in reached if network in nics), None)
        if one and network:
            running = one.state == "running"
            found.append(tree.Backend(uid, nics[network].address, subnet_of(context, network), running))
    return found


def _address(context: WorkContext, row: AnyBalancer, *, there: LoadBalancer) -> Change:
    """The VIP as users see it, and the way from it to the machines."""
    arm = vip_arm(row)
    vip = there.vip_address
    if arm.network == COMMON_GLOBAL:
        addresses = context.cloud.addresses
        found = addresses.floating_ips(port_ids=[there.vip_port_id]) or own_addresses(context, row.uid)
        external = common(context, COMMON_GLOBAL).external_id
        made = found[0] if found else None
        made = made or addresses.create_floating_ip(
            network_id=external, port_id=there.vip_port_id, description=row.uid, tags=tags(row.uid)
        )
        vip = made.address
        if made.port_id != there.vip_port_id:
            addresses.associate_floating_ip(made.id, there.vip_port_id)
    if isinstance(row, BalancerRow):
        # the users' firewall groups decide what an elastic balancer reaches
        admit_balancer(context, there.vip_address)
    kind, inner, cloud_id = type(row), there.vip_address, there.id

    def known(tx: Transaction) -> None:
        if found := tx.get(kind, row.uid):
            tx.put(replace(found, vip=vip, inner=inner, cloud_id=cloud_id))

    return known


def _end(context: WorkContext, work: WorkRow, *, row: AnyBalancer, there: LoadBalancer | None) -> Again | WorkDone:
    if there is not None:
        if there.state in (BalancerState.ACTIVE, BalancerState.FAILED):
            context.cloud.load_balancers.delete(there.id)
        return Again("serve", context.pace.poll)
    for address in own_addresses(context, row.uid):
        context.cloud.addresses.delete_floating_ip(address.id)
    if row.inner and isinstance(row, BalancerRow):
        dismiss_balancer(context, row.inner)
    return context.when_due(work, lambda tx: tx.drop(row), step="serve")


def _healthy(context: WorkContext, row: AnyBalancer, *, there: LoadBalancer) -> Change:
    found = {
        (pair.protocol, pair.port): tree.healthy(there, pair, backends=backends(context, row, pair=pair)) for pair in row.pairs
    }
    kind = type(row)

    def seen(tx: Transaction) -> None:
        now = tx.get(kind, row.uid)
        if now is None:
            return
        pairs = tuple(replace(pair, healthy=found.get((pair.protocol, pair.port), ())) for pair in now.pairs)
        if pairs != now.pairs:
            tx.put(replace(now, pairs=pairs))

    return seen


@dataclass(frozen=True)
class SeenBalancer:
    """``healthy`` notes which members answer now. ``differs``: the load balancer below is not as it should be."""

    healthy: Change
    differs: bool


def look(context: WorkContext, row: AnyBalancer) -> SeenBalancer | None:
    """The balancer as it is now; None where nobody can say."""
    try:
        there = context.cloud.load_balancers.get(row.cloud_id)
    except NotFound:
        return None
    settled = there.state is BalancerState.ACTIVE
    return SeenBalancer(
        _healthy(context, row, there=there), settled and tree.next_change(there, _listeners(context, row)) is not None
    )
