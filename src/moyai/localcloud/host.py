"""The host's side of a cloud: the veth, the routes, the way out of it where that was asked for, and whether the host will do.

All is derived from the configuration and can be made or removed any number of times. Behind each route into the cloud
stands an ``unreachable`` one with a worse metric: when the link is gone, nothing meant for the cloud leaves by the
default route. Unless ``outbound`` was asked for, nothing that a machine sends gets beyond the cloud's own namespace.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moyai.core.errors import MoyaiError, UsageError
from moyai.linux.process import ProcessError, run
from moyai.localcloud.inside import UPLINK, filter_rules
from moyai.localcloud.layout import LocalCloudConfig
from moyai.localcloud.services.network import MANAGEMENT_BRIDGE

#: The metric of the routes that stand behind the real ones.
FENCE_METRIC = 4278198272
#: State of a connection in /proc/net/tcp.
_ESTABLISHED = "01"
_HINT = "choose another one with --management-cidr or --external-cidr, or in the profile's file"


def _json(argv: list[str]) -> list[dict[str, Any]]:
    text = run(argv).stdout.strip()
    found: list[dict[str, Any]] = json.loads(text) if text else []
    return found


def links() -> dict[str, dict[str, Any]]:
    return {link["ifname"]: link for link in _json(["ip", "-json", "link", "show"]) if link.get("ifname")}


def routes() -> list[dict[str, Any]]:
    return _json(["ip", "-json", "-details", "route", "show", "table", "main"])


def addresses() -> list[tuple[str, ipaddress.IPv4Interface]]:
    return [
        (link["ifname"], ipaddress.IPv4Interface(f"{info['local']}/{info['prefixlen']}"))
        for link in _json(["ip", "-json", "-4", "address", "show"])
        for info in link.get("addr_info", [])
        if "local" in info
    ]


def _ranges(config: LocalCloudConfig) -> list[tuple[str, ipaddress.IPv4Network]]:
    """All ranges of the cloud that the host has routes to, each with its name."""
    more = ((f"network {wire.name}'s", wire.network) for wire in config.wires[1:])
    return [("management", config.management), ("external", config.external), *more]


def check_ranges(config: LocalCloudConfig) -> None:
    """Refuse ranges that the host itself uses. Raises UsageError."""
    for what, network in _ranges(config):
        for device, interface in addresses():
            if device != config.link and interface.network.overlaps(network):
                raise UsageError(
                    f"the {what} range {network} overlaps {interface.network} of the host's {device}",
                    hint=_HINT,
                )
        if what_for := _in_use(network, config):
            raise UsageError(
                f"the {what} range {network} holds what this host uses: {what_for}",
                hint=_HINT,
            )
        for route in routes():
            if route.get("dst", "default") == "default" or route.get("dev") == config.link or _is_fence(route, config):
                continue
            if ipaddress.IPv4Network(route["dst"], strict=False).overlaps(network):
                raise UsageError(
                    f"the {what} range {network} overlaps the host's route to {route['dst']} by {route.get('dev', '?')}",
                    hint=_HINT,
                )


def _in_use(network: ipaddress.IPv4Network, config: LocalCloudConfig) -> str:
    """An address of the range that the host speaks to now: a name server, or the far end of a connection; "" if none."""
    words = [line.split() for line in Path("/etc/resolv.conf").read_text().splitlines()]
    used = {f"name server {line[1]}": line[1] for line in words if len(line) > 1 and line[0] == "nameserver"}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        # of a cloud that just went, connections are left that lead from our own address there
        mine, other = (str(ipaddress.IPv4Address(bytes.fromhex(word.partition(":")[0])[::-1])) for word in line.split()[1:3])
        if mine != config.host_address and line.split()[3] == _ESTABLISHED:
            used.setdefault(f"a connection to {other}", other)
    for what, address in used.items():
        with contextlib.suppress(ValueError):
            if ipaddress.IPv4Address(address) in network:
                return what
    return ""


def _is_fence(route: Mapping[str, Any], config: LocalCloudConfig) -> bool:
    ranges = {str(network) for _, network in _ranges(config)}
    return route.get("type") == "unreachable" and route.get("metric") == FENCE_METRIC and route.get("dst") in ranges


def attach(config: LocalCloudConfig, init: int) -> None:
    """Connect the host to the cloud whose init has this pid; what stands already stays."""
    for _, network in _ranges(config):
        run(["ip", "route", "replace", "unreachable", str(network), "metric", str(FENCE_METRIC)])
    found = links().get(config.link)
    if found is not None and not _leads_into(found, init):
        run(["ip", "link", "delete", config.link])
        found = None
    if found is None:
        run(["ip", "link", "add", config.link, "type", "veth", "peer", "name", UPLINK, "netns", str(init)])
    inside = ["nsenter", f"--net=/proc/{init}/ns/net"]
    run([*inside, "ip", "link", "set", UPLINK, "master", MANAGEMENT_BRIDGE, "up"])
    # a cloud that an earlier version of moyai started has that version's packet filter
    run([*inside, "nft", "-f", "-"], stdin=filter_rules(config))
    ipv6 = Path(f"/proc/sys/net/ipv6/conf/{config.link}/disable_ipv6")
    if ipv6.exists():
        ipv6.write_text("1")
    run(["ip", "address", "replace", f"{config.host_address}/32", "dev", config.link])
    run(["ip", "link", "set", config.link, "up"])
    source = ["src", config.host_address]
    run(["ip", "route", "replace", str(config.management), "dev", config.link, *source])
    for wire in config.wires:
        run(["ip", "route", "replace", str(wire.network), "via", config.address, "dev", config.link, *source])
    if config.outbound:
        run(["nft", "-f", "-"], stdin=outbound_rules(config))


def _leads_into(link: Mapping[str, Any], init: int) -> bool:
    done = run(["nsenter", f"--net=/proc/{init}/ns/net", "ip", "-json", "link", "show", UPLINK], check=False)
    return done.returncode == 0 and json.loads(done.stdout)[0]["ifindex"] == link.get("link_index")


def table(config: LocalCloudConfig) -> str:
    return f"moyai-{config.name}"


def outbound_rules(config: LocalCloudConfig) -> str:
    """nftables for the host: machines' packets leave with the host's own address; to the host itself they open nothing."""
    name, sources = table(config), ", ".join(str(wire.network) for wire in config.wires)
    return f"""add table inet {name}
delete table inet {name}
table inet {name} {{
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {{ {sources} }} oifname != "{config.link}" masquerade
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    iifname "{config.link}" ct state new drop
  }}
}}
"""


def nameservers() -> tuple[str, ...]:
    """The name servers that the host itself asks, as far as machines could ask them too (no loopback addresses)."""
    # systemd-resolved hides them behind a loopback address; this is where it keeps them
    for file in (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf")):
        with contextlib.suppress(FileNotFoundError):
            words = [line.split() for line in file.read_text().splitlines()]
            found = [line[1] for line in words if len(line) > 1 and line[0] == "nameserver" and ":" not in line[1]]
            if usable := tuple(address for address in found if not address.startswith("127.")):
                return usable
    return ()


def _has_table(config: LocalCloudConfig) -> bool:
    done = run(["nft", "list", "tables", "inet"], check=False)
    return f"table inet {table(config)}" in done.stdout.splitlines()


def detach(config: LocalCloudConfig) -> None:
    """Remove the link, all routes and moyai's packet filter. An absent object is no error."""
    if _has_table(config):
        run(["nft", "delete", "table", "inet", table(config)])
    if config.link in links():
        try:
            run(["ip", "link", "delete", config.link])
        except ProcessError:
            # the namespace at its other end takes it along when it ends, a moment after its last process
            if config.link in links():
                raise
    for route in routes():
        if _is_fence(route, config):
            run(["ip", "route", "delete", "unreachable", route["dst"], "metric", str(FENCE_METRIC)])


def leftovers(config: LocalCloudConfig) -> list[str]:
    found = [f"link {config.link}"] if config.link in links() else []
    found += [f"packet filter table {table(config)}"] if _has_table(config) else []
    found += [f"route to {route['dst']}" for route in routes() if route.get("dev") == config.link or _is_fence(route, config)]
    return found


def check_capacity(memory_mb: int, disk_gb: int, *, folder: Path) -> None:
    """Refuse to start on a host that is too small. Raises MoyaiError."""
    info = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(info["MemAvailable"].split()[0]) // 1024
    if available < memory_mb:
        raise MoyaiError(
            f"{available} MB of memory are free, the cloud needs {memory_mb} MB", hint="end something, or use a bigger machine"
        )
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free >> 30
    if free < disk_gb:
        raise MoyaiError(
            f"{free} GB are free at {folder}, the cloud needs {disk_gb} GB",
            hint="free some, or set MOYAI_STATE_DIR to another disk",
        )
