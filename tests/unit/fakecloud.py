"""A cloud in memory that behaves like Neutron, Nova and Octavia where it matters to a cluster's life.

Things become ACTIVE and go only after a few looks; making and tagging are two calls; deleting what is in use is refused as
the real ones refuse it. ``kill_at(n)``: the caller dies at the n-th change, before it or (``after=True``) after it took
effect but before the answer came; from then on every call of the dead caller fails, until ``revive``.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

from moyai.cloud.capabilities import Capability
from moyai.cloud.load_balancers import LoadBalancer
from moyai.cloud.model import (
    Address,
    Attachment,
    Flavor,
    FloatingIP,
    Image,
    Network,
    Port,
    PortUse,
    Power,
    Quota,
    Route,
    Router,
    SecurityGroup,
    SecurityGroupRule,
    Server,
    Snapshot,
    SourceAddress,
    Subnet,
    Volume,
)
from moyai.cloud.openstack import disk_states, octavia
from moyai.core.errors import Conflict, NotFound, Terminal

T = TypeVar("T")


class Killed(BaseException):
    """The process that called is dead."""


class FakeCloud:
    """Implements ``cloud.capabilities.Cloud``: all parts are this one object."""

    def __init__(self, *, zones: Sequence[str] = ("az1", "az2"), looks: int = 2) -> None:
        self.lock = threading.RLock()
        self.looks = looks
        self.zone_names = list(zones)
        self.flavor_list = [
            Flavor("f0", "m1.tiny", 1, 512, 5),
            Flavor("f1", "m1.small", 1, 2048, 20),
            Flavor("f2", "m1.medium", 2, 4096, 40),
        ]
        self.image_list = [Image("img", "moyai-node-1.37.1", "ACTIVE", properties={"moyai_kubernetes_version": "1.37.1"})]
        self.all: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
        self.keys: dict[str, str] = {}
        self.creds: dict[str, str] = {}
        self.interfaces: dict[str, set[str]] = {}
        self.countdown: dict[str, int] = {}
        self.faults: dict[str, str] = {}
        #: Names of volumes that were taken from a machine that still ran.
        self.torn: list[str] = []
        self.on_stop: Callable[[str], None] = lambda _: None
        self.quota: dict[str, Quota] = {}
        self.changes = 0
        self.kill_number: int | None = None
        self.kill_after = False
        self.dead = False
        self._ids = itertools.count(1)
        self.put("networks", Network(id="ext", name="public", external=True, subnet_ids=("extsub",)))

    # the parts are all this one
    name = "fake"

    def capabilities(self) -> frozenset[Capability]:
        return frozenset(Capability)

    @property
    def machines(self) -> Any:
        return _Compute(self)

    @property
    def networks(self) -> Any:
        return _Network(self)

    firewall = addresses = pod_routing = tags = networks

    @property
    def quotas(self) -> Any:
        return SimpleNamespace(quotas=lambda: [*_Compute(self).quotas(), *_Network(self).quotas()])

    @property
    def images(self) -> Any:
        return _Images(self)

    @property
    def disks(self) -> Any:
        return _Volumes(self)

    @property
    def account(self) -> Any:
        return _Identity(self)

    credentials = account

    @property
    def load_balancers(self) -> Any:
        return _Balancers(self)

    # ---- for tests

    def kill_at(self, number: int, *, after: bool) -> None:
        self.changes, self.kill_number, self.kill_after, self.dead = 0, number, after, False

    def revive(self) -> None:
        self.kill_number, self.dead = None, False

    def put(self, kind: str, item: T) -> T:
        if isinstance(item, Volume | Snapshot):
            item = replace(item, state=disk_states.state(item.status))
        self.all[kind][item.id] = item  # type: ignore[attr-defined]
        return item

    def names(self) -> list[str]:
        """Everything there but the external network: ``kind name``, sorted; ports of the cloud's own left out."""
        found = [
            f"{kind} {getattr(item, 'name', None) or getattr(item, 'description', '')}"
            for kind in KINDS
            if kind != "rules"
            for item in self.all[kind].values()
            if item.id != "ext" and getattr(item, "use", PortUse.NOTHING).deletable
        ]
        return sorted([*found, *(f"keypair {name}" for name in self.keys), *(f"credential {name}" for name in self.creds)])

    def new_id(self, kind: str) -> str:
        return f"{kind}-{next(self._ids)}"

    # ---- how calls live and die

    def look(self) -> None:
        if self.dead:
            raise Killed

    def change(self) -> _Change:
        return _Change(self)

    def attach(self, name: str, server_id: str, *, metadata: Mapping[str, str] | None = None) -> Volume:
        """A volume in use by a server."""
        identity = self.new_id("vol")
        attachment = Attachment(server_id, f"at-{identity}")
        volume = Volume(identity, name, "IN-USE", 1, metadata=metadata or {}, attached_server_ids=(server_id,))
        return self.put("volumes", replace(volume, attachments=(attachment,)))

    def let_go(self, volume: Volume, server_id: str) -> None:
        left = tuple(one for one in volume.attachments if one.server_id != server_id)
        servers = tuple(one for one in volume.attached_server_ids if one != server_id)
        status = "IN-USE" if servers else "AVAILABLE"
        self.put("volumes", replace(volume, attachments=left, attached_server_ids=servers, status=status))

    def find(self, kind: str, identity: str) -> Any:
        try:
            return self.all[kind][identity]
        except KeyError:
            raise NotFound(f"no {kind} {identity}") from None


KINDS = (
    "networks", "subnets", "routers", "ports", "groups", "rules", "fips", "servers", "volumes", "snapshots", "balancers",
)  # fmt: skip


class _Change:
    """One change: counted, and the place where the caller may die."""

    def __init__(self, cloud: FakeCloud) -> None:
        self.cloud = cloud

    def __enter__(self) -> None:
        self.cloud.lock.acquire()
        try:
            self.cloud.look()
            self.cloud.changes += 1
            self._maybe_die(after=False)
        except BaseException:
            self.cloud.lock.release()
            raise

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is None:
                self._maybe_die(after=True)
        finally:
            self.cloud.lock.release()

    def _maybe_die(self, *, after: bool) -> None:
        if self.cloud.kill_after is after and self.cloud.changes == self.cloud.kill_number:
            self.cloud.dead = True
            raise Killed


class _Part:
    def __init__(self, cloud: FakeCloud) -> None:
        self.c = cloud

    def listed(self, kind: str, tag: str | None = None) -> list[Any]:
        with self.c.lock:
            self.c.look()
            return [item for item in self.c.all[kind].values() if tag is None or tag in item.tags]

    def make(self, kind: str, item: T, tags: Sequence[str]) -> T:
        """Make, then tag: two changes, as Neutron needs."""
        with self.c.change():
            self.c.put(kind, item)
        with self.c.change():
            return self.c.put(kind, replace(item, tags=tuple(tags)))  # type: ignore[type-var]


class _Network(_Part):
    def add_tags(self, kind: str, object_id: str, tags: Sequence[str]) -> None:
        store = {"security_group": "groups", "floating_ip": "fips"}.get(kind, kind + "s")
        with self.c.change():
            item = self.c.find(store, object_id)
            self.c.put(store, replace(item, tags=tuple(sorted({*item.tags, *tags}))))

    def networks(self, *, tag: str | None = None, external: bool | None = None) -> list[Network]:
        return [n for n in self.listed("networks", tag) if external is None or n.external == external]

    def create_network(self, *, name: str, tags: Sequence[str]) -> Network:
        return self.make("networks", Network(id=self.c.new_id("net"), name=name, mtu=1450), tags)

    def delete_network(self, network_id: str) -> None:
        with self.c.change():
            if any(p.network_id == network_id and p.use is not PortUse.CLOUD for p in self.c.all["ports"].values()):
                raise Conflict(f"network {network_id} is in use")
            for subnet in [s for s in self.c.all["subnets"].values() if s.network_id == network_id]:
                self._drop_subnet(subnet.id)
            self.c.all["networks"].pop(network_id, None)

    def subnets(self, *, tag: str | None = None, network_id: str | None = None) -> list[Subnet]:
        return [s for s in self.listed("subnets", tag) if network_id in (None, s.network_id)]

    def create_subnet(
        self,
        *,
        name: str,
        network_id: str,
        cidr: str,
        dns: Sequence[str] = (),
        allocation_pools: Sequence[tuple[str, str]] = (),
        tags: Sequence[str],
    ) -> Subnet:
        self.c.find("networks", network_id)
        subnet = Subnet(self.c.new_id("sub"), name, network_id, cidr, str(IPv4Network(cidr)[1]))
        made = self.make("subnets", subnet, tags)
        dhcp = allocation_pools[0][0] if allocation_pools else str(IPv4Network(cidr)[2])
        with self.c.lock:
            self.c.put(
                "ports",
                Port(
                    self.c.new_id("dhcp"),
                    "",
                    network_id,
                    "ACTIVE",
                    (dhcp,),
                    (subnet.id,),
                    use=PortUse.CLOUD,
                    device_id="dhcp",
                ),
            )
        return made

    def _drop_subnet(self, subnet_id: str) -> None:
        self.c.all["subnets"].pop(subnet_id, None)
        for port in [p for p in self.c.all["ports"].values() if subnet_id in p.subnet_ids]:
            self.c.all["ports"].pop(port.id)

    def delete_subnet(self, subnet_id: str) -> None:
        with self.c.change():
            used = [p for p in self.c.all["ports"].values() if subnet_id in p.subnet_ids and p.use is not PortUse.CLOUD]
            if used:
                raise Conflict(f"subnet {subnet_id} has ports in use: {used[0].id}")
            self._drop_subnet(subnet_id)

    def routers(self, *, tag: str | None = None) -> list[Router]:
        return self.listed("routers", tag)

    def router(self, router_id: str) -> Router:
        return self.c.find("routers", router_id)

    def create_router(self, *, name: str, tags: Sequence[str]) -> Router:
        return self.make("routers", Router(self.c.new_id("rtr"), name), tags)

    def set_router_gateway(self, router_id: str, network_id: str) -> Router:
        with self.c.change():
            found = self.c.find("routers", router_id)
            changed = replace(found, external_network_id=network_id, external_address="203.0.113.2")
            self.c.all["routers"][router_id] = changed
            return changed

    def delete_router(self, router_id: str) -> None:
        with self.c.change():
            if self.c.interfaces.get(router_id):
                raise Conflict(f"router {router_id} still has ports")
            self.c.all["routers"].pop(router_id, None)

    def add_router_interface(self, router_id: str, subnet_id: str) -> None:
        with self.c.change():
            subnet = self.c.find("subnets", subnet_id)
            self.c.find("routers", router_id)
            plugged = self.c.interfaces.setdefault(router_id, set())
            if subnet_id in plugged:
                return
            plugged.add(subnet_id)
            port = Port(self.c.new_id("rif"), "", subnet.network_id, "ACTIVE", (subnet.gateway,), (subnet_id,))
            self.c.put("ports", replace(port, device_id=router_id, use=PortUse.ROUTER))

    def remove_router_interface(self, router_id: str, subnet_id: str) -> None:
        with self.c.change():
            router, subnet = self.c.find("routers", router_id), self.c.find("subnets", subnet_id)
            inside = IPv4Network(subnet.cidr)
            if any(IPv4Address(route.nexthop) in inside for route in router.routes):
                raise Conflict("RouterInterfaceInUseByRoute")
            ports = {p.id for p in self.c.all["ports"].values() if subnet_id in p.subnet_ids}
            if any(fip.port_id in ports for fip in self.c.all["fips"].values() if fip.port_id):
                raise Conflict("RouterInterfaceInUseByFloatingIP")
            self.c.interfaces[router_id].discard(subnet_id)
            for port in [p for p in self.c.all["ports"].values() if p.device_id == router_id and subnet_id in p.subnet_ids]:
                self.c.all["ports"].pop(port.id)

    def add_routes(self, router_id: str, routes: Collection[Route]) -> Router:
        with self.c.change():
            router = self.c.find("routers", router_id)
            inside = [IPv4Network(self.c.find("subnets", s).cidr) for s in self.c.interfaces.get(router_id, ())]
            for route in routes:
                if not any(IPv4Address(route.nexthop) in cidr for cidr in inside):
                    raise Terminal(f"the nexthop {route.nexthop} is not connected with the router")
            return self.c.put("routers", replace(router, routes=tuple(sorted({*router.routes, *routes}))))

    def remove_routes(self, router_id: str, routes: Collection[Route]) -> Router:
        with self.c.change():
            router = self.c.find("routers", router_id)
            return self.c.put("routers", replace(router, routes=tuple(r for r in router.routes if r not in set(routes))))

    def ports(
        self, *, tag: str | None = None, network_id: str | None = None, device_ids: Collection[str] | None = None
    ) -> list[Port]:
        found = [p for p in self.listed("ports", tag) if network_id in (None, p.network_id)]
        return [p for p in found if device_ids is None or p.device_id in device_ids]

    def create_port(
        self,
        *,
        name: str,
        network_id: str,
        subnet_id: str,
        fixed_ip: str = "",
        security_group_ids: Sequence[str] = (),
        send_from: Sequence[SourceAddress] = (),
        tags: Sequence[str],
    ) -> Port:
        self.c.find("subnets", subnet_id)
        for group in security_group_ids:
            self.c.find("groups", group)
        with self.c.lock:
            if any(fixed_ip in p.fixed_ips and p.network_id == network_id for p in self.c.all["ports"].values()):
                raise Conflict(f"IP address {fixed_ip} already allocated")
        port = Port(
            id=self.c.new_id("port"),
            name=name,
            network_id=network_id,
            status="DOWN",
            fixed_ips=(fixed_ip,),
            subnet_ids=(subnet_id,),
            send_from=tuple(send_from),
            security_group_ids=tuple(security_group_ids),
        )
        return self.make("ports", port, tags)

    def update_port(
        self,
        port_id: str,
        *,
        send_from: Sequence[SourceAddress] | None = None,
        security_group_ids: Sequence[str] | None = None,
    ) -> Port:
        with self.c.change():
            port = self.c.find("ports", port_id)
            if send_from is not None:
                port = replace(port, send_from=tuple(send_from))
            return self.c.put("ports", port)

    def delete_port(self, port_id: str) -> None:
        with self.c.change():
            port = self.c.all["ports"].get(port_id)
            if port is not None and not port.use.deletable:
                raise Conflict(f"port {port_id} cannot be deleted directly via the port API")
            self.c.all["ports"].pop(port_id, None)
            for fip in [f for f in self.c.all["fips"].values() if f.port_id == port_id]:
                self.c.put("fips", replace(fip, port_id="", fixed_ip=""))

    def security_groups(self, *, tag: str | None = None) -> list[SecurityGroup]:
        return self.listed("groups", tag)

    def create_security_group(self, *, name: str, description: str = "", tags: Sequence[str]) -> SecurityGroup:
        return self.make("groups", SecurityGroup(self.c.new_id("grp"), name, description), tags)

    def delete_security_group(self, group_id: str) -> None:
        with self.c.change():
            if any(group_id in p.security_group_ids for p in self.c.all["ports"].values()):
                raise Conflict(f"security group {group_id} is in use")
            self.c.all["groups"].pop(group_id, None)
            for rule in [r for r in self.c.all["rules"].values() if group_id in (r.group_id, r.remote_group_id)]:
                self.c.all["rules"].pop(rule.id)

    def security_group_rules(self, group_ids: Collection[str]) -> list[SecurityGroupRule]:
        return [rule for rule in self.listed("rules") if rule.group_id in group_ids]

    def create_security_group_rules(self, rules: Sequence[SecurityGroupRule]) -> list[SecurityGroupRule]:
        with self.c.change():
            if len({rule.group_id for rule in rules}) > 1:
                raise Terminal("Only allowed to update rules for one security profile at a time")
            for rule in rules:
                self.c.find("groups", rule.group_id)
                bare = replace(rule, id="", description="")
                if not any(replace(have, id="", description="") == bare for have in self.c.all["rules"].values()):
                    self.c.put("rules", replace(rule, id=self.c.new_id("rule")))
            return list(self.c.all["rules"].values())

    def delete_security_group_rule(self, rule_id: str) -> None:
        with self.c.change():
            self.c.all["rules"].pop(rule_id, None)

    def floating_ips(self, *, tag: str | None = None, port_ids: Collection[str] | None = None) -> list[FloatingIP]:
        return [f for f in self.listed("fips", tag) if port_ids is None or f.port_id in port_ids]

    def create_floating_ip(
        self,
        *,
        network_id: str,
        subnet_id: str = "",
        port_id: str = "",
        address: str = "",
        description: str = "",
        tags: Sequence[str],
    ) -> FloatingIP:
        number = next(self.c._ids)  # pyright: ignore[reportPrivateUsage]
        fip = FloatingIP(f"fip-{number}", f"203.0.113.{number % 250}", "DOWN", description=description, network_id=network_id)
        return self.make("fips", fip, tags)

    def associate_floating_ip(self, floating_ip_id: str, port_id: str | None) -> FloatingIP:
        with self.c.change():
            fip = self.c.find("fips", floating_ip_id)
            if port_id:
                port = self.c.find("ports", port_id)
                if not any(port.subnet_ids[0] in plugged for plugged in self.c.interfaces.values()):
                    raise NotFound("external network is not reachable from subnet")
            return self.c.put("fips", replace(fip, port_id=port_id or "", status="ACTIVE" if port_id else "DOWN"))

    def delete_floating_ip(self, floating_ip_id: str) -> None:
        with self.c.change():
            self.c.all["fips"].pop(floating_ip_id, None)

    def quotas(self) -> list[Quota]:
        counts = {"network": "networks", "port": "ports", "router": "routers", "floatingip": "fips", "security_group": "groups"}
        return [replace(quota, used=len(self.c.all[counts[name]])) for name, quota in self.c.quota.items() if name in counts]


class _Compute(_Part):
    def flavors(self) -> list[Flavor]:
        self.c.look()
        return self.c.flavor_list

    def zones(self) -> list[str]:
        return self.c.zone_names

    def servers(self, *, tag: str | None = None) -> list[Server]:
        with self.c.lock:
            for server in list(self.c.all["servers"].values()):
                self._age(server)
            return self.listed("servers", tag)

    def settled_servers(self, *, tag: str) -> frozenset[str]:
        return frozenset(one.name for one in self.servers(tag=tag) if one.power in (Power.RUNNING, Power.FAILED))

    def _age(self, server: Server) -> None:
        left = self.c.countdown.get(server.id, 0) - 1
        self.c.countdown[server.id] = left
        if left > 0:
            return
        if server.status == "BUILD":
            fault = self.c.faults.get(server.name, "")
            self.c.put(
                "servers",
                replace(
                    server, status="ERROR" if fault else "ACTIVE", power=Power.FAILED if fault else Power.RUNNING, fault=fault
                ),
            )
        elif server.status == "DELETING":
            self.c.all["servers"].pop(server.id)
            for port in [p for p in self.c.all["ports"].values() if p.device_id == server.id]:
                self.c.put("ports", replace(port, device_id="", use=PortUse.NOTHING, status="DOWN"))
            for volume in [v for v in self.c.all["volumes"].values() if server.id in v.attached_server_ids]:
                self.c.torn.append(volume.name)
                self.c.let_go(volume, server.id)

    def server(self, server_id: str) -> Server:
        with self.c.lock:
            self.c.look()
            self._age(self.c.find("servers", server_id))
            return self.c.find("servers", server_id)

    def create_server(
        self,
        *,
        name: str,
        image_id: str,
        flavor_id: str,
        port_ids: Sequence[str],
        user_data: str,
        zone: str = "",
        key_name: str = "",
        metadata: Mapping[str, str],
        tags: Sequence[str],
    ) -> Server:
        with self.c.change():
            if key_name not in self.c.keys:
                raise Terminal(f"key pair {key_name} not found")
            port = self.c.find("ports", port_ids[0])
            if port.device_id:
                raise Conflict(f"port {port.id} is in use")
            flavor = next(f for f in self.c.flavor_list if f.id == flavor_id)
            server = Server(
                id=self.c.new_id("srv"),
                name=name,
                status="BUILD",
                power=Power.STARTING,
                zone=zone,
                flavor_name=flavor.name,
                addresses=(Address(port.fixed_ips[0], "fixed", "net"),),
                metadata=dict(metadata),
                tags=tuple(tags),
            )
            self.c.countdown[server.id] = self.c.looks
            self.c.put("ports", replace(port, device_id=server.id, use=PortUse.MACHINE, status="ACTIVE"))
            return self.c.put("servers", server)

    def delete_server_metadata(self, server_id: str, keys: Collection[str]) -> None:
        with self.c.change():
            server = self.c.find("servers", server_id)
            left = {key: value for key, value in server.metadata.items() if key not in keys}
            self.c.put("servers", replace(server, metadata=left))

    def delete_server(self, server_id: str) -> None:
        with self.c.change():
            server = self.c.all["servers"].get(server_id)
            if server is not None and server.status != "DELETING":
                self.c.countdown[server_id] = self.c.looks
                self.c.put("servers", replace(server, status="DELETING", power=Power.UNKNOWN))

    def stop_server(self, server_id: str) -> None:
        with self.c.change():
            self.c.on_stop(server_id)
            self.c.put("servers", replace(self.c.find("servers", server_id), status="SHUTOFF", power=Power.OFF))

    def start_server(self, server_id: str) -> None:
        with self.c.change():
            self.c.put("servers", replace(self.c.find("servers", server_id), status="ACTIVE", power=Power.RUNNING))

    def console_log(self, server_id: str, lines: int = 100) -> str:
        return "boot\nmoyai: kubeadm init\nkernel: something\n"

    def attach_volume(self, server_id: str, volume_id: str) -> None:
        raise NotImplementedError

    def detach_volume(self, server_id: str, volume_id: str) -> None:
        with self.c.change():
            volume = self.c.all["volumes"].get(volume_id)
            if volume is None or server_id not in volume.attached_server_ids:
                return
            if self.c.find("servers", server_id).power is Power.RUNNING:
                self.c.torn.append(volume.name)
            self.c.let_go(volume, server_id)

    def keypairs(self) -> list[str]:
        self.c.look()
        return list(self.c.keys)

    def create_keypair(self, name: str, public_key: str) -> None:
        with self.c.change():
            if name in self.c.keys:
                raise Conflict(f"key pair {name} exists")
            self.c.keys[name] = public_key

    def delete_keypair(self, name: str) -> None:
        with self.c.change():
            self.c.keys.pop(name, None)

    def quotas(self) -> list[Quota]:
        return [quota for name, quota in self.c.quota.items() if name in ("cores", "ram", "instances")]


class _Images(_Part):
    def images(self, *, name: str | None = None) -> list[Image]:
        return [image for image in self.c.image_list if name in (None, image.name)]

    def upload(self, *, name: str, file: Path, disk_format: str, container_format: str, properties: Mapping[str, str]) -> Image:
        raise NotImplementedError

    def delete_image(self, image_id: str) -> None:
        raise NotImplementedError


class _Volumes(_Part):
    def volumes(self, *, metadata: Mapping[str, str] | None = None, name: str | None = None) -> list[Volume]:
        return self.listed("volumes")

    def volume(self, volume_id: str) -> Volume:
        self.c.look()
        return self.c.find("volumes", volume_id)

    def delete_volume(self, volume_id: str) -> None:
        with self.c.change():
            volume = self.c.all["volumes"].get(volume_id)
            # Cinder calls neither a conflict
            if volume is not None and volume.attached_server_ids:
                raise Terminal(f"volume {volume_id} is attached")
            if any(snap.volume_id == volume_id for snap in self.c.all["snapshots"].values()):
                raise Terminal(f"volume {volume_id} has snapshots")
            self.c.all["volumes"].pop(volume_id, None)

    def forget_attachment(self, attachment_id: str) -> None:
        with self.c.change():
            for volume in list(self.c.all["volumes"].values()):
                for attachment in volume.attachments:
                    if attachment.id == attachment_id:
                        if attachment.server_id in self.c.all["servers"]:
                            raise Conflict(f"server {attachment.server_id} uses volume {volume.id}")
                        self.c.let_go(volume, attachment.server_id)

    def snapshots(self, *, volume_id: str | None = None, name: str | None = None) -> list[Snapshot]:
        return self.listed("snapshots")

    def snapshot(self, snapshot_id: str) -> Snapshot:
        with self.c.lock:
            self.c.look()
            snap = self.c.find("snapshots", snapshot_id)
            left = self.c.countdown.get(snapshot_id, 0) - 1
            self.c.countdown[snapshot_id] = left
            if snap.status == "DELETING" and left <= 0:
                self.c.all["snapshots"].pop(snapshot_id)
                raise NotFound(snapshot_id)
            return snap

    def delete_snapshot(self, snapshot_id: str) -> None:
        with self.c.change():
            if snapshot_id in self.c.all["snapshots"]:
                snap = self.c.find("snapshots", snapshot_id)
                self.c.countdown.setdefault(snapshot_id, self.c.looks)
                self.c.put("snapshots", replace(snap, status="DELETING"))

    def quotas(self) -> list[Quota]:
        return []


class _Identity(_Part):
    def project_id(self) -> str:
        return "project"

    def region(self) -> str:
        return "RegionOne"

    def create_credential(self, *, name: str, roles: Sequence[str], description: str) -> tuple[str, str]:
        with self.c.change():
            if name in self.c.creds:
                raise Conflict(f"application credential {name} exists")
            self.c.creds[name] = self.c.new_id("cred")
            return self.c.creds[name], "secret-of-" + self.c.creds[name]

    def credentials(self, *, name_prefix: str) -> dict[str, str]:
        self.c.look()
        return {name: identity for name, identity in self.c.creds.items() if name.startswith(name_prefix)}

    def delete_credential(self, credential_id: str) -> None:
        with self.c.change():
            for name in [name for name, identity in self.c.creds.items() if identity == credential_id]:
                self.c.creds.pop(name)

    def login_url(self) -> str:
        return "http://10.255.0.1:5000/v3"

    def image_mirror(self) -> str:
        return "http://10.255.0.1:5001"


def at(found: LoadBalancer, status: str) -> LoadBalancer:
    """The load balancer with this status of Octavia."""
    return replace(found, status=status, state=octavia.state(status))


class _Balancers(_Part):
    def load_balancers(self, *, tag: str | None = None, name: str | None = None) -> list[LoadBalancer]:
        return [lb for lb in self.listed("balancers", tag) if name in (None, lb.name)]

    def create(self, wanted: LoadBalancer) -> LoadBalancer:
        """As Octavia does: with a port of its own on the subnet."""
        with self.c.lock:
            subnet = self.c.find("subnets", wanted.vip_subnet_id)
            made = replace(at(wanted, "ACTIVE"), id=self.c.new_id("lb"), vip_port_id=self.c.new_id("vip"))
            port = Port(made.vip_port_id, f"octavia-lb-{made.id}", subnet.network_id, "ACTIVE", ("10.8.0.200",), (subnet.id,))
            self.c.put("ports", replace(port, device_id=f"lb-{made.id}", use=PortUse.OTHER))
            return self.c.put("balancers", made)

    def head(self, load_balancer_id: str) -> LoadBalancer:
        with self.c.lock:
            lb = self.c.find("balancers", load_balancer_id)
            left = self.c.countdown.get(lb.id, 0) - 1
            self.c.countdown[lb.id] = left
            if lb.status == "PENDING_DELETE" and left <= 0:
                self.c.all["balancers"].pop(lb.id)
                self.c.all["ports"].pop(lb.vip_port_id, None)
                raise NotFound(f"no load balancer {load_balancer_id}")
            if lb.status == "PENDING_UPDATE" and left <= 0:
                lb = self.c.put("balancers", at(lb, "ACTIVE"))
            return lb

    def get(self, load_balancer_id: str) -> LoadBalancer:
        return self.c.find("balancers", load_balancer_id)

    def delete(self, load_balancer_id: str) -> None:
        with self.c.change():
            lb = self.c.all["balancers"].get(load_balancer_id)
            if lb is None:
                return
            if lb.status == "PENDING_UPDATE":
                self.head(load_balancer_id)
                raise Conflict(f"load balancer {load_balancer_id} is immutable")
            self.c.countdown[lb.id] = self.c.looks
            self.c.put("balancers", at(lb, "PENDING_DELETE"))


_CLASSES = "/apis/storage.k8s.io/v1/storageclasses"


class FakeKube:
    """The Kubernetes API of a cluster on a ``FakeCloud``: its nodes are the machines that run."""

    def __init__(self, cloud: FakeCloud, tag: str) -> None:
        self.cloud, self.tag = cloud, tag
        self.server = "https://203.0.113.9:6443"
        self.pods: list[dict[str, Any]] = []
        self.evicted: list[str] = []
        self.protected: set[str] = set()
        #: Deployments of kube-system that do not come up.
        self.down: set[str] = set()
        self.cordoned: list[str] = []
        self.nodes: set[str] = set()
        self.tokens: list[str] = []
        self.services: list[dict[str, Any]] = []
        #: PersistentVolumes; as long as a pod uses its claim, a volume is attached.
        self.volumes: list[dict[str, Any]] = []
        #: Disks of other drivers: a node, and how many looks they stay there.
        self.mounted: dict[str, int] = {}
        #: What the add-ons made, by path.
        self.objects: dict[str, dict[str, Any]] = {f"{_CLASSES}/csi-cinder": {"reclaimPolicy": "Delete"}}

    def _machines(self) -> list[Server]:
        servers = [server for server in self.cloud.machines.servers(tag=self.tag) if server.power is Power.RUNNING]
        return servers if any("control-plane" in server.name for server in servers) else []

    def ready(self, *, timeout: float = 2.0) -> bool:
        return bool(self._machines())

    def items(self, path: str, *, timeout: float | None = None) -> list[dict[str, Any]]:
        if path == "/api/v1/nodes":
            running = {server.name for server in self._machines()}
            if not running:
                return []
            # a Node object outlives its machine
            self.nodes |= running
            return [
                {
                    "metadata": {"name": name},
                    "spec": {},
                    "status": {"conditions": [{"type": "Ready", "status": str(name in running)}]},
                }
                for name in sorted(self.nodes)
            ]
        if path.endswith("/deployments"):
            status = {"updatedReplicas": 1, "availableReplicas": 1}
            names = ("moyai-cloud-controller-manager", "coredns", "csi-cinder-controllerplugin", "snapshot-controller")
            return [
                {"metadata": {"name": name}, "spec": {"replicas": 1}, "status": {} if name in self.down else status}
                for name in names
            ]
        if path.endswith("/daemonsets"):
            status = {"numberReady": 3, "desiredNumberScheduled": 3}
            return [{"metadata": {"name": name}, "status": status} for name in ("kube-proxy", "csi-cinder-nodeplugin")]
        if path.startswith("/api/v1/pods?"):
            return [pod for pod in self.pods if path.endswith(pod["spec"]["nodeName"])]
        if path in ("/api/v1/pods", "/api/v1/namespaces/kube-system/pods"):
            return self.pods
        if path == "/api/v1/services":
            return self.services
        if path == "/api/v1/persistentvolumes":
            return self.volumes
        if path.endswith("/volumeattachments"):
            return self._attachments()
        raise AssertionError(path)

    def get(self, path: str, *, timeout: float | None = None) -> dict[str, Any]:
        if path not in self.objects:
            raise NotFound(path)
        return self.objects[path]

    def claim(self, name: str, volume: Volume) -> None:
        """A pod with a claim, bound to a volume of the cloud."""
        ref = {"namespace": "default", "name": f"claim-of-{name}"}
        source = {"driver": "cinder.csi.openstack.org", "volumeHandle": volume.id}
        self.volumes.append({"metadata": {"name": f"pv-of-{name}"}, "spec": {"claimRef": ref, "csi": source}})
        used = [{"name": "data", "persistentVolumeClaim": {"claimName": ref["name"]}}]
        self.pods.append({"metadata": {"name": name, "namespace": "default"}, "spec": {"volumes": used}, "status": {}})

    def _attachments(self) -> list[dict[str, Any]]:
        """As the CSI driver does it: a volume that no pod uses any more comes off its machine."""
        found: list[dict[str, Any]] = []
        for node, looks in self.mounted.items():
            if looks:
                self.mounted[node] = looks - 1
                found.append({"spec": {"attacher": "other", "source": {}, "nodeName": node}})
        for pv in self.volumes:
            claim = pv["spec"]["claimRef"]["name"]
            used = any(claim in str(pod["spec"].get("volumes")) for pod in self.pods)
            volume: Volume = self.cloud.find("volumes", pv["spec"]["csi"]["volumeHandle"])
            if used:
                source = {"persistentVolumeName": pv["metadata"]["name"]}
                found.append({"spec": {"attacher": "cinder.csi.openstack.org", "source": source}})
            else:
                for server in volume.attached_server_ids:
                    self.cloud.let_go(volume, server)
        return found

    def patch(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        self.cordoned.append(path.rpartition("/")[2])
        return {}

    def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        if path == _CLASSES:
            self.objects[f"{path}/{body['metadata']['name']}"] = dict(body)
        elif path.endswith("/secrets"):
            self.tokens.append(body["metadata"]["name"])
        elif path.endswith("/eviction"):
            name = body["metadata"]["name"]
            if name in self.protected:
                from moyai.core.errors import Retriable

                raise Retriable("Kubernetes refused: Cannot evict pod as it would violate the pod's disruption budget.")
            self.evicted.append(name)
            self.pods = [pod for pod in self.pods if pod["metadata"]["name"] != name]
        return {}

    def delete(self, path: str, body: Mapping[str, Any] | None = None) -> None:
        self.objects.pop(path, None)
        name = path.rpartition("/")[2]
        self.services = [service for service in self.services if service["metadata"]["name"] != name]
        if path.startswith("/api/v1/nodes/"):
            self.nodes.discard(name)
        if "/pods/" in path:
            self.pods = [pod for pod in self.pods if pod["metadata"]["name"] != name]
