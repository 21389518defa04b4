# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false
# (pyright takes this folder for OpenStack's package of the same name)
"""What a machine is given from outside before it boots: files of the guest, its config drive, its network links.

Runs inside nova-compute.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from nova import exception, objects
from nova.api.metadata import base as instance_metadata
from nova.network import neutron
from nova.virt import driver

from moyai.linux import netns
from moyai.linux.nspawn import NspawnMachine
from moyai.linux.process import run

SEED = "var/lib/cloud/seed/config_drive"
_DEFAULT_MTU = 1450


@dataclass(frozen=True)
class GuestPort:
    """A Neutron port on its way into a machine: the veth pair and the L2 agent's bridge."""

    port_id: str
    bridge: str
    link: netns.Link

    @staticmethod
    def of(vif, index: int) -> GuestPort:
        if vif["type"] != "bridge":
            raise exception.VirtualInterfacePlugException(f"port {vif['id']} is bound as {vif['type']!r}, not as a bridge")
        network = vif["network"]
        addresses = tuple(_addresses(network["subnets"]))
        mtu = network["meta"].get("mtu") or _DEFAULT_MTU
        link = netns.Link(tap(vif["id"]), f"eth{index}", vif["address"], int(mtu), addresses)
        return GuestPort(vif["id"], network["bridge"] or f"brq{network['id'][:11]}", link)

    @staticmethod
    def load(stored) -> GuestPort:
        link = dict(stored["link"])
        link["addresses"] = tuple(
            netns.LinkAddress(**{**one, "routes": tuple(map(tuple, one["routes"]))}) for one in link["addresses"]
        )
        return GuestPort(stored["port_id"], stored["bridge"], netns.Link(**link))

    def dump(self) -> dict:
        return asdict(self)


def _addresses(subnets) -> Iterator[netns.LinkAddress]:
    for subnet in subnets:
        gateway = (subnet.get("gateway") or {}).get("address")
        routes = [(route["cidr"], route["gateway"]["address"]) for route in subnet.get("routes") or []]
        dhcp = subnet.get("meta", {}).get("dhcp_server")
        if not gateway and dhcp and ":" not in dhcp:  # an isolated network's metadata service stands beside its DHCP server
            routes.append(("169.254.169.254/32", dhcp))
        for number, ip in enumerate(subnet["ips"]):
            prefix = ipaddress.ip_network(subnet["cidr"]).prefixlen
            first = number == 0
            yield netns.LinkAddress(ip["address"], prefix, gateway if first else None, tuple(routes) if first else ())


def tap(port_id: str) -> str:
    """The name by which the L2 agent knows the port's outer end."""
    return f"tap{port_id[:11]}"


def plug(namespace: str, port: GuestPort) -> None:
    """Wire the port: veth into the machine's namespace, the other end into the bridge that the L2 agent watches."""
    netns.plug(namespace, port.link)
    if not netns.link_exists(port.bridge):  # the L2 agent creates the bridge too; either may be first
        run(["ip", "link", "add", port.bridge, "type", "bridge"], check=False)
    run(["ip", "link", "set", port.bridge, "up"])
    netns.enslave(port.link.outside, port.bridge)


def write_files(machine: NspawnMachine, instance, *, network_info, injected_files, admin_password) -> None:
    """Put the guest's files into the overlay's upper layer, before it is mounted."""
    machine.put("etc/hostname", f"{instance.hostname}\n")
    machine.put("etc/resolv.conf", resolv_conf(nameservers(network_info)))
    extra = {"admin_pass": admin_password} if admin_password else {}
    metadata = instance_metadata.InstanceMetadata(
        instance, content=injected_files or [], extra_md=extra, network_info=network_info
    )
    for path, data in metadata.metadata_for_config_drive():
        # One version is enough: cloud-init reads "latest" where the dated ones are missing.
        if path.startswith(("openstack/latest/", "openstack/content/", "ec2/latest/")):
            text = data if isinstance(data, bytes | str) else json.dumps(data)
            machine.put(f"{SEED}/{path}", text, mode=0o600)


def resolv_conf(servers: Iterable[str]) -> str:
    return "".join(f"nameserver {server}\n" for server in servers)


def dhcp_servers(context, network_info) -> list[str]:
    """Ask Neutron for the networks' DHCP servers: in a network just made they come after the port was allocated."""
    client = neutron.get_client(context, admin=True)
    networks = _unique(vif["network"]["id"] for vif in network_info)
    ports = client.list_ports(network_id=networks, device_owner="network:dhcp")["ports"] if networks else []
    return _unique(ip["ip_address"] for port in ports for ip in port["fixed_ips"])


def nameservers(network_info) -> list[str]:
    """The subnets' own name servers; without any, their DHCP servers, which answer DNS too."""
    subnets = [subnet for vif in network_info or [] for subnet in vif["network"]["subnets"]]
    named = [server["address"] for subnet in subnets for server in subnet.get("dns") or []]
    served = [subnet["meta"]["dhcp_server"] for subnet in subnets if subnet.get("meta", {}).get("dhcp_server")]
    return _unique(named or served)


def _unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def device_metadata(context, instance):
    """The devices that were given a tag, as the metadata service lists them; None without any."""
    ports = objects.VirtualInterfaceList.get_by_instance_uuid(context, instance.uuid)
    found = [
        objects.NetworkInterfaceMetadata(mac=port.address, tags=[port.tag]) for port in ports if "tag" in port and port.tag
    ]
    disks = objects.BlockDeviceMappingList.get_by_instance_uuid(context, instance.uuid)
    found += [
        objects.DiskMetadata(serial=disk.volume_id, path=disk.device_name, tags=[disk.tag])
        for disk in disks
        if disk.tag and disk.volume_id
    ]
    return objects.InstanceDeviceMetadata(devices=found) if found else None


def volume_of(connection_info, mountpoint: str) -> tuple[str, dict]:
    if connection_info.get("driver_volume_type") != "local" or connection_info["data"].get("encrypted"):
        raise exception.VolumeDriverNotFound(driver_type=connection_info.get("driver_volume_type"))
    return connection_info["serial"], {"file": connection_info["data"]["device_path"], "name": Path(mountpoint).name}


def refuse_disks(instance, block_device_info) -> None:
    """A machine's root is a folder on an image: other kinds of root and local disks are not offered."""
    wrong = None
    if not instance.image_ref:
        wrong = "a machine boots from an image, not from a volume"
    elif driver.block_device_info_get_ephemerals(block_device_info):
        wrong = "ephemeral disks are not offered"
    elif driver.swap_is_usable(driver.block_device_info_get_swap(block_device_info)):
        wrong = "swap disks are not offered"
    if wrong:
        raise exception.ImageUnacceptable(image_id=instance.image_ref or "none", reason=wrong)
