"""Machines: a port for each interface, the server, its public address; and their states."""

from __future__ import annotations

import base64
from dataclasses import replace

from moyai.cloud.model import Activity, FloatingIP, Power, Server, SourceAddress
from moyai.core.errors import NotFound, Terminal
from moyai.nifcloud_front.store.front_store import Transaction
from moyai.nifcloud_front.store.rows import (
    COMMON_GLOBAL,
    COMMON_PRIVATE,
    AddressRow,
    BalancerRow,
    DiskRow,
    ElasticBalancerRow,
    GroupRow,
    ImageRow,
    InstanceRow,
    InstanceState,
    KeyRow,
    LanRow,
    NicRow,
    WorkRow,
    ZoneRow,
)
from moyai.nifcloud_front.works.common_networks import BALANCERS_GROUP, OPEN_GROUP, common, given_group
from moyai.nifcloud_front.works.step import (
    FRONT_TAG,
    Again,
    WorkContext,
    WorkDone,
    changed,
    mine,
    nothing,
    own_addresses,
    tag,
    tags,
)

#: Sizes in names of instance types, the smallest first; each takes the flavor of its place, the last for all above.
_SIZES = ("mini", "small", "medium", "large")
#: Seconds that a machine has to end by itself before a stop fails.
STOP_SECONDS = 120


def create(context: WorkContext, work: WorkRow) -> Again | WorkDone:
    row = context.row(InstanceRow, work.uid)
    if row is None:
        return WorkDone()
    match work.step:
        case "":
            made = tuple(_port(context, row, place=place) for place in range(len(row.nics)))
            return Again("server", change=changed(InstanceRow, row.uid, nics=made))
        case "server":
            server = mine(context.cloud.machines.servers(tag=tag(row.uid)), row.uid) or _server(context, row)
            return Again("wait", context.pace.poll, changed(InstanceRow, row.uid, cloud_id=server.id))
        case "wait":
            server = context.cloud.machines.server(row.cloud_id)
            if server.power.broken:
                return WorkDone(changed(InstanceRow, row.uid, state="warning"))
            if server.power is not Power.RUNNING:
                return Again("wait", context.pace.poll)
            return Again("address", change=nothing)
        case _:
            public = _public(context, row)
            return context.when_due(work, changed(InstanceRow, row.uid, state="running", public=public), step="address")


def _port(context: WorkContext, row: InstanceRow, *, place: int) -> NicRow:
    nic, networks = row.nics[place], context.cloud.networks
    network_id, subnet_id, free = _place_of(context, nic)
    name = f"{row.uid}.{place}"
    found = next((one for one in networks.ports(tag=tag(row.uid)) if one.name == name), None)
    # a crash may have left the port without its tags
    found = found or next((one for one in networks.ports(network_id=network_id) if one.name == name), None)
    port = found or networks.create_port(
        name=name,
        network_id=network_id,
        subnet_id=subnet_id,
        fixed_ip="" if nic.asked in ("", "static") else nic.asked,
        security_group_ids=_groups(context, row),
        # in a private LAN a machine chooses its addresses itself, and several may share one by VRRP
        send_from=(SourceAddress(free),) if free else (),
        tags=tags(row.uid),
    )
    return replace(nic, port_id=port.id, mac=port.mac, address=port.fixed_ips[0] if port.fixed_ips else "")


def _place_of(context: WorkContext, nic: NicRow) -> tuple[str, str, str]:
    """Network and subnet below, and the CIDR from which the machine may send."""
    if nic.network in (COMMON_GLOBAL, COMMON_PRIVATE):
        row = common(context, nic.network)
        return row.cloud_id, row.subnet_id, ""
    lan = context.row(LanRow, nic.network)
    if lan is None:
        raise Terminal(f"the private LAN {nic.network} is gone")
    return lan.cloud_id, lan.subnet_id, lan.cidr


def _groups(context: WorkContext, row: InstanceRow) -> tuple[str, ...]:
    own = context.row(GroupRow, row.group) if row.group else None
    first = own.cloud_id if own else given_group(context, OPEN_GROUP).id
    return first, given_group(context, BALANCERS_GROUP).id


def _server(context: WorkContext, row: InstanceRow) -> Server:
    with context.store.transaction() as tx:
        image, zone, key = tx.get(ImageRow, row.image), tx.get(ZoneRow, row.zone), tx.named(KeyRow, row.key)
    if image is None or zone is None:
        raise Terminal(f"the image {row.image} or the zone {row.zone} is gone")
    # the last interface has the default route, and the way out is by the public one
    ordered = sorted(row.nics, key=lambda nic: nic.network == COMMON_GLOBAL)
    return context.cloud.machines.create_server(
        name=row.name,
        image_id=image.cloud_id,
        flavor_id=_flavor(context, row.type),
        port_ids=[nic.port_id for nic in ordered],
        user_data=machine_script(row.user_data),
        zone=zone.cloud_id,
        key_name=key.uid if key else "",
        metadata={FRONT_TAG: row.uid},
        tags=tags(row.uid),
    )


def _flavor(context: WorkContext, instance_type: str) -> str:
    flavors = sorted(context.cloud.machines.flavors(), key=lambda one: (one.memory_mb, one.vcpus))
    place = next((place for place, size in enumerate(_SIZES) if size in instance_type), len(_SIZES) - 1)
    return flavors[min(place, len(flavors) - 1)].id


def machine_script(user_data: str) -> str:
    """A script runs. Anything else is only written to a file, whatever a machine below would do with it."""
    if not user_data or user_data.startswith("#!"):
        return user_data
    text = base64.b64encode(user_data.encode()).decode()
    return f"#!/bin/sh\numask 077\necho {text} | base64 -d >/.niftycloud_user_data\n"


def _public(context: WorkContext, row: InstanceRow) -> str:
    """Put the public address in its place; returns it, empty for none."""
    port_id = next((nic.port_id for nic in row.nics if nic.network == COMMON_GLOBAL), "")
    if not port_id:
        return ""
    wanted = _address(context, row)
    there = context.cloud.addresses.floating_ips(port_ids=[port_id])
    for one in there:
        if wanted is None or one.id != wanted.id:
            _take_off(context, row, address=one)
    if wanted is None:
        return ""
    if wanted.port_id != port_id:
        context.cloud.addresses.associate_floating_ip(wanted.id, port_id)
    return wanted.address


def _address(context: WorkContext, row: InstanceRow) -> FloatingIP | None:
    addresses = context.cloud.addresses
    if row.ip_type == "none":
        return None
    if row.elastic:
        elastic = context.row(AddressRow, row.elastic)
        found = [one for one in own_addresses(context, row.elastic) if elastic and one.id == elastic.cloud_id]
        if not found:
            raise Terminal(f"the address of {row.elastic} is gone")
        return found[0]
    if found := own_addresses(context, row.uid):
        return found[0]
    external = common(context, COMMON_GLOBAL).external_id
    return addresses.create_floating_ip(network_id=external, description=row.uid, tags=tags(row.uid))


def _take_off(context: WorkContext, row: InstanceRow, *, address: FloatingIP) -> None:
    """An elastic address is kept; the machine's own one goes."""
    if tag(row.uid) in address.tags or address.description == row.uid:
        context.cloud.addresses.delete_floating_ip(address.id)
    else:
        context.cloud.addresses.associate_floating_ip(address.id, None)


# ---- states


def start(context: WorkContext, work: WorkRow) -> Again | WorkDone:
    return _powered(context, work, order=context.cloud.machines.start_server)


def reboot(context: WorkContext, work: WorkRow) -> Again | WorkDone:
    return _powered(context, work, order=context.cloud.machines.reboot_server)


def _powered(context: WorkContext, work: WorkRow, *, order: object) -> Again | WorkDone:
    row = context.row(InstanceRow, work.uid)
    if row is None:
        return WorkDone()
    if work.step == "":
        assert callable(order)
        order(row.cloud_id)
        return Again("wait", context.pace.poll)
    power = context.cloud.machines.server(row.cloud_id).power
    if power.broken:
        return WorkDone(changed(InstanceRow, row.uid, state="warning"))
    if power is not Power.RUNNING:
        return Again("wait", context.pace.poll)
    return context.when_due(work, changed(InstanceRow, row.uid, state="running"), step="wait")


def stop(context: WorkContext, work: WorkRow) -> Again | WorkDone:
    """Stopped is a machine whose parts all say that it is off, not one that was asked to end."""
    row = context.row(InstanceRow, work.uid)
    if row is None:
        return WorkDone()
    try:
        server = context.cloud.machines.server(row.cloud_id)
    except NotFound:
        return WorkDone(changed(InstanceRow, row.uid, state="warning"))
    if server.power.broken:
        # a machine that failed can only be deleted
        off = server.evidence.activity is Activity.OFF
        return WorkDone(changed(InstanceRow, row.uid, state="stopped" if off else "warning"))
    if work.step == "":
        context.cloud.machines.stop_server(row.cloud_id)
        return Again("wait", context.pace.poll)
    if server.power is Power.OFF and server.evidence.activity is Activity.OFF:
        return context.when_due(work, changed(InstanceRow, row.uid, state="stopped"), step="wait")
    if context.now() - work.began > STOP_SECONDS:
        return WorkDone(changed(InstanceRow, row.uid, state="warning"))
    return Again("wait", context.pace.poll)


def modify(context: WorkContext, work: WorkRow) -> Again | WorkDone:
    """The firewall group of each interface."""
    row = context.row(InstanceRow, work.uid)
    if row is None:
        return WorkDone()
    groups = _groups(context, row)
    for nic in row.nics:
        context.cloud.networks.update_port(nic.port_id, security_group_ids=groups)
    return context.when_due(work, nothing, step=work.step)


def readdress(context: WorkContext, work: WorkRow) -> Again | WorkDone:
    row = context.row(InstanceRow, work.uid)
    if row is None:
        return WorkDone()
    if work.step == "":
        public = _public(context, row)
        step = "reboot" if work.wish.get("reboot") else "end"
        return Again(step, change=changed(InstanceRow, row.uid, public=public))
    if work.step == "end":
        return WorkDone()
    inner = replace(work, verb="reboot", step="" if work.step == "reboot" else work.step)
    return reboot(context, inner)


def terminate(context: WorkContext, work: WorkRow) -> Again | WorkDone:
    row = context.row(InstanceRow, work.uid)
    if row is None:
        return WorkDone()
    machines, networks = context.cloud.machines, context.cloud.networks
    match work.step:
        case "":
            server = mine(machines.servers(tag=tag(row.uid)), row.uid)
            if server is not None:
                for volume in server.volume_ids:
                    machines.detach_volume(server.id, volume)
                machines.delete_server(server.id)
            return Again("gone", context.pace.poll)
        case "gone":
            if mine(machines.servers(tag=tag(row.uid)), row.uid):
                return Again("gone", context.pace.poll)
            return Again("ports")
        case "ports":
            for nic in row.nics:
                for address in context.cloud.addresses.floating_ips(port_ids=[nic.port_id]) if nic.port_id else ():
                    _take_off(context, row, address=address)
                networks.delete_port(nic.port_id)
            for address in own_addresses(context, row.uid):
                context.cloud.addresses.delete_floating_ip(address.id)
            return Again("end")
        case _:
            return context.when_due(work, lambda tx: _forget(tx, row), step="end")


def _forget(tx: Transaction, row: InstanceRow) -> None:
    """The instance, and what other objects say of it."""
    for disk in tx.all(DiskRow):
        if disk.instance == row.uid:
            tx.put(replace(disk, instance="", attachment="", slot=0, status="available"))
    for address in tx.all(AddressRow):
        if address.instance == row.uid:
            tx.put(replace(address, instance=""))
    for kind, verb in ((BalancerRow, "serve"), (ElasticBalancerRow, "change")):
        for balancer in tx.all(kind):
            pairs = tuple(
                replace(pair, members=tuple(one for one in pair.members if one != row.uid)) for pair in balancer.pairs
            )
            if pairs != balancer.pairs:
                tx.put(changed := replace(balancer, pairs=pairs))
                tx.schedule(changed, verb)
    tx.drop(row)


def seen_state(row: InstanceRow, server: Server | None) -> InstanceState:
    """What an instance without work is, by the machine below."""
    if server is None or server.power.broken:
        return "warning"
    if server.power is Power.OFF and server.evidence.activity is Activity.OFF:
        return "stopped"
    return "running" if server.power is Power.RUNNING else row.state
