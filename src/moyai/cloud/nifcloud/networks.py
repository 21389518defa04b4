"""Private LANs, and the network cards of servers as ports (``cloud.capabilities.Networks``).

NIFCLOUD has no network without a subnet, and no port without a machine. So a network is made with its subnet:
``create_network`` says what it will be called, and ``create_subnet`` makes it. A port without a machine is a value
(``nic_plans``). Neither is in a list before it exists, and a process that dies between the two leaves nothing.

The id of a cluster's LAN here is ``nic_plans.lan_id``, known before the LAN is made. Every other network has the API's own.

A cluster in several zones has a LAN in each, which a private bridge joins. They are one network here: all of them have the
same id, and its subnet is listed once there is one in each zone.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from ipaddress import ip_address, ip_network

from moyai.cloud.model import Network, Port, PortUse, SourceAddress, Subnet
from moyai.cloud.nifcloud.error_codes import NoSuchObject
from moyai.cloud.nifcloud.instance_calls import InstanceCalls, WireInstance, WireNic
from moyai.cloud.nifcloud.lan_calls import LanCalls, NewLan, WireLan
from moyai.cloud.nifcloud.marks import Mark, adopted, mark_of, read_mark, wire_name, zonal_name
from moyai.cloud.nifcloud.nic_plans import GIVEN_NETWORKS, PUBLIC, NicPlan, is_plan, lan_id, lan_mark, read_plan
from moyai.cloud.nifcloud.nifcloud_limits import Terms
from moyai.cloud.nifcloud.wire import Wire
from moyai.core.errors import Conflict, NotFound, Terminal
from moyai.core.waiting import NotYet

_LAN_SECONDS = 300.0
_NO_SOURCES = "NIFCLOUD does not let a server send from other addresses than its own"


class NifcloudNetworks:
    """``terms``: of the LANs that it makes."""

    def __init__(self, wire: Wire, *, terms: Terms) -> None:
        self._wire, self._terms = wire, terms
        self._lans, self._instances = LanCalls(wire), InstanceCalls(wire)

    def networks(self, *, tag: str | None = None, external: bool | None = None) -> list[Network]:
        given = [Network(one, one, external=one == PUBLIC) for one in GIVEN_NETWORKS]
        own = {network.id: network for network in (_network(one) for one in ([] if external else self._lans.all()))}
        found = [*given, *own.values()]
        return [one for one in found if external in (None, one.external) and (tag is None or tag in one.tags)]

    def create_network(self, *, name: str, tags: Sequence[str]) -> Network:
        """Makes nothing yet. Raises Conflict where the name that it will have is taken."""
        mark = mark_of(name, tags)
        found = [one for place in self._terms.places if (one := self._own(mark, place))]
        return _network(found[0]) if found else Network(lan_id(mark), name, tags=mark.tags)

    def delete_network(self, network_id: str) -> None:
        for found in self._all(network_id):
            if read_mark(found.description) is None:
                raise Conflict(f"private LAN {found.name or found.id} is not moyai's", object_id=network_id)
            if found.users:
                raise Conflict(f"private LAN {found.name} is in use by {', '.join(found.users)}", object_id=network_id)
        for found in self._all(network_id):
            self._delete(found)

    def _delete(self, lan: WireLan) -> None:
        def gone() -> bool:
            return all(one.id != lan.id for one in self._lans.all())

        try:
            self._wire.settle(lambda: self._lans.delete(lan.id), gone)
        except NoSuchObject:
            return
        self._wire.wait(lambda: gone() or NotYet(f"private LAN {lan.name} to go"), seconds=_LAN_SECONDS)

    def subnets(self, *, tag: str | None = None, network_id: str | None = None) -> list[Subnet]:
        listed = self._lans.all()
        whole: dict[str, Subnet] = {}
        for one in map(_subnet, listed):
            zones = {lan.zone for lan in listed if _network(lan).id == one.network_id}
            # a run that died may have made it in some of the zones
            if lan_mark(one.id) is None or zones >= set(self._terms.others):
                whole[one.id] = one
        found = whole.values()
        return [one for one in found if network_id in (None, one.network_id) and (tag is None or tag in one.tags)]

    def create_subnet(
        self,
        *,
        name: str,
        network_id: str,
        cidr: str,
        dns: Sequence[str] = (),
        allocation_pools: Sequence[tuple[str, str]] = (),
        gateway: bool = True,
        tags: Sequence[str],
    ) -> Subnet:
        """Makes the network with it. Its only subnet has the network's name. A LAN has neither DHCP nor name servers of its
        own: ``dns``, ``allocation_pools`` and ``gateway`` are the machines' and the planner's to keep."""
        mark = lan_mark(network_id)
        if mark is None or mark.tags != tuple(tags):
            raise Terminal(f"private LAN {network_id} has its subnet, and takes no other", object_id=network_id)
        made = [self._made(mark, place, cidr=cidr) for place in self._terms.places]
        return _subnet(made[0])

    def _made(self, mark: Mark, place: str, *, cidr: str) -> WireLan:
        """The cluster's LAN in one zone."""
        wanted = NewLan(self._called(mark, place), mark.text, str(ip_network(cidr)), place, self._terms.accounting)
        made = self._wire.create(lambda: self._own(mark, place), lambda: self._lans.create(wanted))
        if ip_network(made.cidr) != ip_network(cidr):
            where = lan_id(mark)
            raise Conflict(f"private LAN {made.name} has the range {made.cidr}, and {cidr} is asked for", object_id=where)

        def available() -> WireLan | NotYet:
            found = self._own(mark, place)
            return found if found and found.state == "available" else NotYet(f"private LAN {wanted.name} to be available")

        return self._wire.wait(available, seconds=_LAN_SECONDS)

    def delete_subnet(self, subnet_id: str) -> None:
        self.delete_network(subnet_id)

    def ports(
        self,
        *,
        tag: str | None = None,
        network_id: str | None = None,
        device_ids: Collection[str] | None = None,
        ids: Collection[str] | None = None,
    ) -> list[Port]:
        found = self._cards()
        if device_ids is not None:
            found = [one for one in found if one.device_id in device_ids]
        elif ids is not None:
            places = {read_plan(one).place for one in ids if is_plan(one)}
            found = [one for one in found if read_plan(one.id).place in places]
        return [one for one in found if network_id in (None, one.network_id) and (tag is None or tag in one.tags)]

    def create_port(
        self,
        *,
        name: str,
        network_id: str,
        subnet_id: str,
        fixed_ip: str = "",
        security_group_ids: Sequence[str] = (),
        send_from: Sequence[SourceAddress] = (),
        transit: bool = False,
        tags: Sequence[str],
    ) -> Port:
        """Makes nothing yet. Raises Conflict where a server has the address, Terminal for what no server can have."""
        if send_from or transit:
            raise Terminal(_NO_SOURCES)
        if len(security_group_ids) > 1:
            raise Terminal(f"a server of NIFCLOUD has one firewall group, and {name} is asked for with several")
        mark = mark_of(name, tags)
        if network_id not in GIVEN_NETWORKS:
            self._check_address(network_id, fixed_ip, name=name)
        plan = NicPlan(network_id, mark.uid, name, next(iter(security_group_ids), ""), fixed_ip)
        return Port(
            plan.id,
            name,
            network_id,
            "PLANNED",
            fixed_ips=(fixed_ip,) if fixed_ip else (),
            subnet_ids=(subnet_id,) if subnet_id else (),
            security_group_ids=tuple(security_group_ids),
            tags=mark.tags,
        )

    def _check_address(self, network_id: str, address: str, *, name: str) -> None:
        lan = self._find(network_id)
        if lan is None:
            raise NotFound(f"NIFCLOUD has no private LAN {network_id}", object_id=network_id)
        if address and ip_address(address) not in ip_network(lan.cidr):
            raise Terminal(f"{address} is not in {lan.cidr}, the range of private LAN {lan.name}", object_id=network_id)
        for port in self.ports(network_id=network_id) if address else ():
            if address in port.fixed_ips and port.name != name:
                raise Conflict(f"{address} is the address of server {port.name}", object_id=network_id)

    def update_port(
        self,
        port_id: str,
        *,
        send_from: Sequence[SourceAddress] | None = None,
        security_group_ids: Sequence[str] | None = None,
    ) -> Port:
        """Of a server's card: another firewall group, which is the whole server's."""
        if send_from:
            raise Terminal(_NO_SOURCES)
        found = self._card(port_id)
        if security_group_ids is None or tuple(security_group_ids) == found.security_group_ids:
            return found
        if len(security_group_ids) != 1:
            number = len(security_group_ids)
            raise Terminal(f"a server of NIFCLOUD has one firewall group, and {found.name} is asked for with {number}")
        name = next((one.name for one in self._instances.all() if one.id == found.device_id), "")
        self._instances.set_attribute(name, attribute="groupId", value=security_group_ids[0])
        return self._card(port_id)

    def _card(self, port_id: str) -> Port:
        if found := self.ports(ids=[port_id]):
            return found[0]
        raise NotFound(f"NIFCLOUD has no port {port_id}", object_id=port_id)

    def _cards(self) -> list[Port]:
        servers = self._instances.all()
        private = any(nic.network_name for one in servers for nic in one.nics)
        names = {one.id: _network(one).id for one in self._lans.all()} if private else {}
        return [_port(one, nic, network=names.get(nic.network, nic.network)) for one in servers for nic in one.nics]

    def delete_port(self, port_id: str) -> None:
        """A card goes with its server. Raises Conflict while there is one."""
        if found := self.ports(ids=[port_id]):
            raise Conflict(f"server {found[0].name} has the port, which goes with it", object_id=port_id)

    def sources_allowed(self, network_id: str = "") -> bool:
        return False

    # ---- LANs by names and by ids

    def _called(self, mark: Mark, place: str) -> str:
        return zonal_name(mark, place) if place in self._terms.others else wire_name(mark)

    def _own(self, mark: Mark, place: str) -> WireLan | None:
        """The cluster's LAN in a zone. Raises Conflict where its name is somebody else's."""
        name = self._called(mark, place)
        found = next((one for one in self._lans.all() if one.name == name), None)
        if found is not None:
            adopted(read_mark(found.description), mark, what=f"a private LAN {name}")
        return found

    def _find(self, network_id: str) -> WireLan | None:
        return next(iter(self._all(network_id)), None)

    def _all(self, network_id: str) -> list[WireLan]:
        return [one for one in self._lans.all() if network_id in (one.id, _network(one).id)]


def _network(found: WireLan) -> Network:
    mark = read_mark(found.description)
    # somebody may have written our description at a LAN of another name
    if mark is None or found.name not in (wire_name(mark), zonal_name(mark, found.zone)):
        return Network(found.id, found.name or found.id, (found.id,))
    return Network(lan_id(mark), mark.name, (lan_id(mark),), tags=mark.tags)


def _subnet(found: WireLan) -> Subnet:
    network = _network(found)
    return Subnet(network.id, network.name, network.id, found.cidr, tags=network.tags)


def _port(server: WireInstance, nic: WireNic, *, network: str) -> Port:
    mark = read_mark(server.description)
    name = mark.name if mark else server.name
    plan = NicPlan(network, mark.uid if mark else "", name, next(iter(server.groups), ""), nic.address)
    return Port(
        plan.id,
        name,
        network,
        server.state.upper(),
        fixed_ips=(nic.address,) if nic.address else (),
        subnet_ids=() if network in GIVEN_NETWORKS else (network,),
        mac=nic.mac,
        device_id=server.id,
        use=PortUse.MACHINE,
        security_group_ids=server.groups,
        tags=mark.tags if mark else (),
    )
