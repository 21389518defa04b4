"""The host's side of a cloud: the veth, the routes, and the kernel settings that had to be changed.

All is derived from the configuration and can be made or removed any number of times. Behind each route into the cloud
stands an ``unreachable`` one with a worse metric: when the link is gone, nothing meant for the cloud leaves by the
default route. What was changed on the host is recorded before it is changed, in ``host.json``, and put back by ``restore``.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moyai.core.errors import MoyaiError, UsageError
from moyai.linux.process import ProcessError, run
from moyai.localcloud.config import CloudConfig
from moyai.localcloud.inside import UPLINK
from moyai.localcloud.secrets import write_private
from moyai.localcloud.services.network import MANAGEMENT_BRIDGE

#: The metric of the routes that stand behind the real ones.
FENCE_METRIC = 4278198272
#: Lower limits: containerd, kubelet and systemd of each machine watch files.
_AT_LEAST = {"fs/inotify/max_user_instances": 8192, "fs/inotify/max_user_watches": 1048576}
#: Kernel modules: what needs them. All but br_netfilter load by themselves where modules exist at all.
_MODULES = ("br_netfilter", "overlay", "vxlan", "veth", "bridge", "loop", "nf_tables", "ip_set")
_BRIDGE_CALLS = (
    "net/bridge/bridge-nf-call-iptables",
    "net/bridge/bridge-nf-call-ip6tables",
    "net/bridge/bridge-nf-call-arptables",
)


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


def check_ranges(config: CloudConfig) -> None:
    """Refuse ranges that the host itself uses. Raises UsageError."""
    for what, network in (("management", config.management), ("external", config.external)):
        for device, interface in addresses():
            if device != config.link and interface.network.overlaps(network):
                raise UsageError(
                    f"the {what} range {network} overlaps {interface.network} of the host's {device}",
                    hint="choose another one with --management-cidr or --external-cidr",
                )
        if what_for := _in_use(network):
            raise UsageError(
                f"the {what} range {network} holds what this host uses: {what_for}",
                hint="choose another one with --management-cidr or --external-cidr",
            )
        for route in routes():
            if route.get("dst", "default") == "default" or route.get("dev") == config.link or _is_fence(route, config):
                continue
            if ipaddress.IPv4Network(route["dst"], strict=False).overlaps(network):
                raise UsageError(
                    f"the {what} range {network} overlaps the host's route to {route['dst']} by {route.get('dev', '?')}",
                    hint="choose another one with --management-cidr or --external-cidr",
                )


def _in_use(network: ipaddress.IPv4Network) -> str:
    """An address of the range that the host speaks to now: a name server, or the far end of a connection; "" if none."""
    words = [line.split() for line in Path("/etc/resolv.conf").read_text().splitlines()]
    used = {f"name server {line[1]}": line[1] for line in words if len(line) > 1 and line[0] == "nameserver"}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        address = str(ipaddress.IPv4Address(bytes.fromhex(line.split()[2].partition(":")[0])[::-1]))
        used.setdefault(f"a connection to {address}", address)
    for what, address in used.items():
        with contextlib.suppress(ValueError):
            if ipaddress.IPv4Address(address) in network:
                return what
    return ""


def _is_fence(route: Mapping[str, Any], config: CloudConfig) -> bool:
    ranges = {str(config.management), str(config.external)}
    return route.get("type") == "unreachable" and route.get("metric") == FENCE_METRIC and route.get("dst") in ranges


def attach(config: CloudConfig, init: int) -> None:
    """Connect the host to the cloud whose init has this pid; what stands already stays."""
    for network in (config.management, config.external):
        run(["ip", "route", "replace", "unreachable", str(network), "metric", str(FENCE_METRIC)])
    found = links().get(config.link)
    if found is not None and not _leads_into(found, init):
        run(["ip", "link", "delete", config.link])
        found = None
    if found is None:
        run(["ip", "link", "add", config.link, "type", "veth", "peer", "name", UPLINK, "netns", str(init)])
    run(["nsenter", f"--net=/proc/{init}/ns/net", "ip", "link", "set", UPLINK, "master", MANAGEMENT_BRIDGE, "up"])
    ipv6 = Path(f"/proc/sys/net/ipv6/conf/{config.link}/disable_ipv6")
    if ipv6.exists():
        ipv6.write_text("1")
    run(["ip", "address", "replace", f"{config.host_address}/32", "dev", config.link])
    run(["ip", "link", "set", config.link, "up"])
    source = ["src", config.host_address]
    run(["ip", "route", "replace", str(config.management), "dev", config.link, *source])
    run(["ip", "route", "replace", str(config.external), "via", config.address, "dev", config.link, *source])


def _leads_into(link: Mapping[str, Any], init: int) -> bool:
    done = run(["nsenter", f"--net=/proc/{init}/ns/net", "ip", "-json", "link", "show", UPLINK], check=False)
    return done.returncode == 0 and json.loads(done.stdout)[0]["ifindex"] == link.get("link_index")


def detach(config: CloudConfig) -> None:
    """Take the link and all routes away; what is not there is no error."""
    if config.link in links():
        run(["ip", "link", "delete", config.link])
    for route in routes():
        if _is_fence(route, config):
            run(["ip", "route", "delete", "unreachable", route["dst"], "metric", str(FENCE_METRIC)])


def leftovers(config: CloudConfig) -> list[str]:
    found = [f"link {config.link}"] if config.link in links() else []
    found += [f"route to {route['dst']}" for route in routes() if route.get("dev") == config.link or _is_fence(route, config)]
    return found


@dataclass(frozen=True)
class Settings:
    """What was changed on the host: sysctl → its former value, and modules that were loaded."""

    sysctls: dict[str, str]
    modules: tuple[str, ...]

    @classmethod
    def load(cls, file: Path) -> Settings:
        try:
            data = json.loads(file.read_text())
        except FileNotFoundError:
            return cls({}, ())
        return cls(dict(data["sysctls"]), tuple(data["modules"]))

    def save(self, file: Path) -> None:
        write_private(file, json.dumps({"sysctls": self.sysctls, "modules": self.modules}) + "\n")


def tune(file: Path) -> list[str]:
    """Set what machines need of the host's kernel, recording in ``file`` what was. Returns what cannot be had, a line each."""
    missing: list[str] = []
    settings = Settings.load(file)
    for module in _MODULES:
        if _has_module(module):
            continue
        Settings(settings.sysctls, (*settings.modules, module)).save(file)
        try:
            run(["modprobe", module])
        except ProcessError:
            if not _has_module(module):
                missing.append(f"kernel module {module} cannot be loaded")
                settings.save(file)
                continue
        settings = Settings.load(file)
        if module == "br_netfilter":
            # loading it turns these on in every namespace; the host's own bridges (Docker's, libvirt's) must not notice
            for name in _BRIDGE_CALLS:
                sysctl = Path("/proc/sys") / name
                if sysctl.exists():
                    sysctl.write_text("0")
    for name, least in _AT_LEAST.items():
        sysctl = Path("/proc/sys") / name
        value = sysctl.read_text().strip()
        if int(value) < least:
            settings = Settings({name: value, **settings.sysctls}, settings.modules)
            settings.save(file)
            try:
                sysctl.write_text(str(least))
            except OSError as error:
                missing.append(f"sysctl {name} cannot be raised to {least}: {error.strerror}")
    return missing


def _has_module(name: str) -> bool:
    """Whether the kernel has it, loaded or built in."""
    if Path(f"/sys/module/{name}").exists():
        return True
    signs = {
        "br_netfilter": Path("/proc/sys/net/bridge"),
        "overlay": None,
        "loop": Path("/sys/block/loop0"),
        "vxlan": None,
        "veth": None,
        "bridge": None,
        "nf_tables": None,
        "ip_set": None,
    }
    sign = signs.get(name)
    if sign is not None:
        return sign.exists()
    if name == "overlay":
        return "\toverlay\n" in Path("/proc/filesystems").read_text()
    return _built_in_by_use(name)


def _built_in_by_use(name: str) -> bool:
    """Some built-in parts show nowhere in /sys: try them out in a network namespace that is thrown away."""
    trial = {
        "vxlan": ["ip", "link", "add", "t0", "type", "vxlan", "id", "1", "dstport", "4789", "local", "127.0.0.1"],
        "veth": ["ip", "link", "add", "t0", "type", "veth", "peer", "name", "t1"],
        "bridge": ["ip", "link", "add", "t0", "type", "bridge"],
        "nf_tables": ["nft", "add", "table", "inet", "t0"],
        "ip_set": ["ipset", "create", "t0", "hash:net"],
    }[name]
    return run(["unshare", "--net", *trial], check=False).returncode == 0


def restore(file: Path) -> list[str]:
    """Put back what ``tune`` changed, as far as nobody else changed it since. Returns what could not be put back."""
    settings = Settings.load(file)
    failed: list[str] = []
    for name, value in settings.sysctls.items():
        sysctl = Path("/proc/sys") / name
        if sysctl.read_text().strip() == str(_AT_LEAST.get(name)):
            try:
                sysctl.write_text(value)
            except OSError as error:
                failed.append(f"sysctl {name} stays at {_AT_LEAST.get(name)}: {error.strerror}")
    for module in reversed(settings.modules):
        # still used by somebody: then it is not only ours
        run(["modprobe", "--remove", module], check=False)
    file.unlink(missing_ok=True)
    return failed


def check_capacity(memory_mb: int, disk_gb: int, folder: Path) -> None:
    """Refuse to start on a host that is too small. Raises MoyaiError."""
    info = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(info["MemAvailable"].split()[0]) // 1024
    if available < memory_mb:
        raise MoyaiError(
            f"{available} MB of memory are free, the cloud needs {memory_mb} MB", hint="end something, or use a bigger machine"
        )
    while not folder.exists():
        folder = folder.parent
    import shutil

    free = shutil.disk_usage(folder).free >> 30
    if free < disk_gb:
        raise MoyaiError(
            f"{free} GB are free at {folder}, the cloud needs {disk_gb} GB",
            hint="free some, or set MOYAI_STATE_DIR to another disk",
        )
