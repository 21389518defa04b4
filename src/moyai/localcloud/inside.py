"""What a cloud's namespace looks like inside: mounts, bridges, the other hypervisors' network namespaces, packet filter.

Made by the namespace's init when it starts, from nothing (the namespaces are new); nothing of it is seen by the host.
"""

from __future__ import annotations

from pathlib import Path

from moyai.linux.process import run
from moyai.localcloud.layout import PORTS, REACHABLE_BY_MACHINES, VXLAN_PORT, FlatNetwork, Hypervisor, LocalCloudConfig
from moyai.localcloud.services.network import MANAGEMENT_BRIDGE, card

#: The cloud's end of the veth to the host.
UPLINK = "host0"

_SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv6/conf/all/forwarding": "1",
    # replies to the host may come by another bridge than the one the request came by
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    # a hundred nodes' neighbours fit
    "net/ipv4/neigh/default/gc_thresh1": "1024",
    "net/ipv4/neigh/default/gc_thresh2": "4096",
    "net/ipv4/neigh/default/gc_thresh3": "8192",
}


def prepare(config: LocalCloudConfig, scratch: Path) -> None:
    """Make all of it; ``scratch``: a folder of the cloud's own. Raises ProcessError or OSError, with what failed."""
    _mounts(scratch)
    for name, value in _SYSCTLS.items():
        file = Path("/proc/sys") / name
        if file.exists():  # neighbour limits exist only on the host on some kernels
            file.write_text(value)
    for hypervisor in config.hypervisors:
        if hypervisor.netns:
            run(["ip", "netns", "add", hypervisor.netns])
    run(["ip", "-batch", "-"], stdin=links(config))
    for hypervisor in config.hypervisors:
        if hypervisor.netns:
            run(["ip", "-n", hypervisor.netns, "-batch", "-"], stdin=hypervisor_links(config, hypervisor))
    run(["nft", "-f", "-"], stdin=filter_rules(config))


def _mounts(scratch: Path) -> None:
    """A /sys of the new network namespace, without losing the control groups below it; private names of network namespaces."""
    run(["mount", "--make-rprivate", "/"])
    aside = scratch / "cgroup"
    aside.mkdir(exist_ok=True)
    # never a fresh cgroup2 mount: it would change the mount options of the whole host
    run(["mount", "--rbind", "/sys/fs/cgroup", aside])
    run(["mount", "-t", "sysfs", "sysfs", "/sys"])
    run(["mount", "--move", aside, "/sys/fs/cgroup"])
    aside.rmdir()
    Path("/run/netns").mkdir(exist_ok=True)
    run(["mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/run/netns"])


def links(config: LocalCloudConfig) -> str:
    """`ip -batch` commands for bridges and hypervisors."""
    lines = ["link set lo up"]
    for bridge, address, network in (
        (MANAGEMENT_BRIDGE, config.address, config.management),
        *((wire.bridge, wire.gateway, wire.network) for wire in config.wires),
    ):
        lines += [
            f"link add {bridge} type bridge forward_delay 0",
            f"address add {address}/{network.prefixlen} dev {bridge}",
            f"link set {bridge} up",
        ]
    for hypervisor in config.hypervisors:
        if hypervisor.netns:
            lines += [
                f"link add {hypervisor.netns} type veth peer name eth0 netns {hypervisor.netns}",
                f"link set {hypervisor.netns} master {MANAGEMENT_BRIDGE} up",
            ]
        for wire in filter(_is_shared, config.wires):
            end = f"{hypervisor.host}-{card(wire)}"
            where = f" netns {hypervisor.netns}" if hypervisor.netns else ""
            lines += [
                f"link add {end} type veth peer name {card(wire)}{where}",
                f"link set {end} master {wire.bridge} up",
                *([] if hypervisor.netns else [f"link set {card(wire)} up"]),
            ]
    # nothing leaves but to the host; with `outbound` this is replaced by a route to it
    lines.append("route add unreachable default metric 4278198272")
    if config.outbound:
        lines.append(f"route add default via {config.host_address} dev {MANAGEMENT_BRIDGE} onlink")
    return "\n".join(lines) + "\n"


def hypervisor_links(config: LocalCloudConfig, hypervisor: Hypervisor) -> str:
    """`ip -batch` commands in the network namespace of another hypervisor."""
    return (
        f"link set lo up\naddress add {hypervisor.address}/{config.management.prefixlen} dev eth0\n"
        f"link set eth0 up\nroute add default via {config.address}\n"
        + "".join(f"link set {card(wire)} up\n" for wire in filter(_is_shared, config.wires))
    )


def _is_shared(wire: FlatNetwork) -> bool:
    return wire.shared


def filter_rules(config: LocalCloudConfig) -> str:
    """nftables, replaced as a whole: which of the cloud's services machines, the host and hypervisors reach.

    Machines reach the services of ``REACHABLE_BY_MACHINES`` and nothing else: neither the message bus nor the tunnels between
    the hypervisors, into which anybody could send frames for any network. They open no connection to the host. The sender
    decides between the writable registry and the read-only one, so that both have the address in the catalog.

    ICMP and ICMPv6 stand as numbers, 1 and 58: a host without /etc/protocols does not know their names.
    """
    of_machines = "{ " + ", ".join(wire.bridge for wire in config.wires) + " }"
    outbound = (
        f"iifname {of_machines} oifname {MANAGEMENT_BRIDGE} ip daddr != {config.management} accept" if config.outbound else ""
    )
    reachable = ", ".join(str(PORTS[name]) for name in REACHABLE_BY_MACHINES)
    writable, readonly = PORTS["registry"], PORTS["registry-readonly"]
    return f"""add table inet moyai
delete table inet moyai
table inet moyai {{
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    iifname {of_machines} ip daddr {config.address} tcp dport {writable} dnat ip to {config.address}:{readonly}
  }}
  chain input {{
    type filter hook input priority -10; policy accept;
    iifname {of_machines} jump machines
    tcp dport {writable} iifname != lo ip saddr != {config.host_address} drop
    tcp dport {PORTS["rabbitmq"]} ip saddr {config.host_address} drop
    udp dport {VXLAN_PORT} ip saddr {config.host_address} drop
  }}
  chain machines {{
    ct state established,related accept
    meta l4proto {{ 1, 58 }} accept
    ip daddr {config.address} tcp dport {{ {reachable} }} accept
    drop
  }}
  chain forward {{
    type filter hook forward priority -10; policy accept;
    iifname {of_machines} oifname {MANAGEMENT_BRIDGE} ct state established,related accept
    {outbound}
    iifname {of_machines} oifname {MANAGEMENT_BRIDGE} drop
  }}
}}
"""
