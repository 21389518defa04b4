"""Network namespaces by name (as `ip netns` keeps them in /run/netns) and the veth pairs that lead into them.

Programs are put into a namespace with nsenter, never with `ip netns exec`, which mounts a fresh /sys and hides the cgroups.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import struct
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from moyai.linux.process import run

FOLDER = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
# rtnetlink(7), linux/rtnetlink.h and linux/if_link.h
_NETLINK_ROUTE, _RTM_NEWLINK, _RTM_GETLINK, _NLM_F_REQUEST, _IFLA_MASTER = 0, 16, 18, 1, 10
_TABLES = 100  # the first routing table (and rule preference) of addresses that have gateways of their own
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class LinkAddress:
    """An address with its prefix length, and the gateway of its subnet (if it has one)."""

    address: str
    prefix: int
    gateway: str | None = None
    routes: tuple[tuple[str, str], ...] = ()  # (destination CIDR, next hop)


@dataclass(frozen=True)
class Link:
    """A veth pair: ``outside`` in the caller's namespace, ``inside`` in the machine's, with MAC address, MTU and addresses."""

    outside: str
    inside: str
    mac: str
    mtu: int
    addresses: tuple[LinkAddress, ...]


def path(name: str) -> Path:
    """Where the namespace of that name is mounted."""
    return FOLDER / name


def exists(name: str) -> bool:
    """Whether the namespace exists and is mounted. A plain file of that name is left over from a removed namespace."""
    return _inode(path(name)) is not None


def names(prefix: str = "") -> list[str]:
    """The names of all namespaces that begin with ``prefix``."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(entry.name for entry in FOLDER.iterdir() if entry.name.startswith(prefix))
    return []


def add(name: str) -> None:
    """Make the namespace with its loopback up; nothing happens when it exists."""
    if not exists(name):
        with contextlib.suppress(FileNotFoundError):
            path(name).unlink()
        run(["ip", "netns", "add", name], timeout=20)
    run(["ip", "-n", name, "link", "set", "lo", "up"], timeout=20)


def remove(name: str, *, empty: bool = False) -> None:
    """End all processes in the namespace, then take it away; nothing happens when it is not there.

    ``empty``: the caller knows that no process is in it. Then the machine's processes are not searched.
    """
    if not path(name).exists():
        return
    deadline = time.monotonic() + 5
    while not empty and (left := pids(name)) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    run(["ip", "netns", "delete", name], timeout=20)


def pids(name: str) -> list[int]:
    """The processes whose network namespace this is."""
    wanted = _inode(path(name))
    if wanted is None:
        return []
    entries = [one for one in Path("/proc").iterdir() if one.name.isdigit()]
    return [int(one.name) for one in entries if _inode(one / "ns" / "net") == wanted]


def prefix(name: str) -> list[str]:
    """The words to put before a command line so that it runs in the namespace."""
    return ["nsenter", f"--net={path(name)}", "--"]


@contextlib.contextmanager
def inside(name: str) -> Generator[None]:
    """Put the calling thread (only it) into the namespace. Sockets made meanwhile stay there for good."""
    with Path("/proc/thread-self/ns/net").open("rb") as home, path(name).open("rb") as there:
        _setns(there.fileno())
        try:
            yield
        finally:
            _setns(home.fileno())


def plug(name: str, link: Link) -> None:
    """Create the veth pair, again if need be, and give its inner end MAC, addresses and routes.

    ``arp_notify`` makes the kernel announce the addresses when the link comes up, so that neighbours forget an older place.
    """
    unplug(link.outside)
    pair = f"link add {link.outside} mtu {link.mtu} type veth peer name {link.inside} netns {name}"
    run(["ip", *pair.split(), "address", link.mac, "mtu", str(link.mtu)], timeout=20)
    for key in ("arp_notify", "ndisc_notify"):
        family = "ipv4" if key == "arp_notify" else "ipv6"
        sysctl(name, f"net/{family}/conf/{link.inside}/{key}", value="1")
    lines = [f"link set {link.inside} up"]
    lines += [
        f"address add {one.address}/{one.prefix} dev {link.inside}" + (" nodad" if ":" in one.address else "")
        for one in link.addresses
    ]
    for one in link.addresses:
        if one.gateway:
            lines.append(f"route replace default via {one.gateway} dev {link.inside} onlink")
        lines += [f"route replace {destination} via {hop} dev {link.inside} onlink" for destination, hop in one.routes]
    run(["ip", "link", "set", link.outside, "up"], timeout=20)
    run(["ip", "-n", name, "-batch", "-"], stdin="\n".join(lines) + "\n", timeout=20)


def route_by_source(name: str, link: Link) -> None:
    """Where a family has addresses of several subnets, let an answer leave by the gateway of the address that was asked."""
    for option, rules in _source_routing(link).items():
        # the rules of an earlier pair are still there, unlike its routes
        former = [f"rule delete {one.removeprefix('rule add ')}" for one in rules if one.startswith("rule add ")]
        run(["ip", "-n", name, option, "-force", "-batch", "-"], stdin="\n".join(former) + "\n", timeout=20, check=False)
        run(["ip", "-n", name, option, "-batch", "-"], stdin="\n".join(rules) + "\n", timeout=20)


def _source_routing(link: Link) -> dict[str, list[str]]:
    """The commands by ip's option for the family."""
    found: dict[str, list[str]] = {}
    for option, six in (("-4", False), ("-6", True)):
        addresses = [one for one in link.addresses if (":" in one.address) == six]
        for table, one in enumerate(addresses if len(addresses) > 1 else (), _TABLES):
            lines = found.setdefault(option, [])
            # what is nearer than a default route is the same for all
            lines.append(f"rule add from {one.address} lookup main suppress_prefixlength 0 pref {table}")
            if one.gateway:
                lines.append(f"route replace default via {one.gateway} dev {link.inside} onlink table {table}")
                lines.append(f"rule add from {one.address} lookup {table} pref {table + _TABLES}")
    return found


def unplug(outside: str) -> None:
    """Delete the pair by its outer end, if it exists. (The end of the namespace would free the pair only some time later.)"""
    if link_exists(outside):
        run(["ip", "link", "delete", outside], timeout=20, check=False)


def plugged(name: str, link: Link) -> bool:
    """Whether the pair exists, with its inner end in the namespace, up, and with the wanted addresses."""
    if not link_exists(link.outside) or not exists(name):
        return False
    shown = run(["ip", "-n", name, "-o", "address", "show", "up", "dev", link.inside], timeout=20, check=False)
    return shown.returncode == 0 and all(f" {one.address}/{one.prefix} " in shown.stdout for one in link.addresses)


def link_exists(interface: str) -> bool:
    """Whether the caller's namespace has an interface of that name. (/sys would show the namespace that mounted it.)"""
    try:
        socket.if_nametoindex(interface)
    except OSError:
        return False
    return True


def master(interface: str) -> str | None:
    """The bridge that an interface of the caller's namespace belongs to.

    The kernel answers directly: a caller that waits for a bridge asks often, and a program for each look would cost more than
    all else that is done for the interface.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_ROUTE) as kernel:
        try:
            index = socket.if_nametoindex(interface)
        except OSError:
            return None
        body = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, 0, 0)
        kernel.settimeout(5)
        kernel.sendto(struct.pack("=IHHII", 16 + len(body), _RTM_GETLINK, _NLM_F_REQUEST, 1, 0) + body, (0, 0))
        answer = kernel.recv(65536)
    if struct.unpack_from("=H", answer, 4)[0] != _RTM_NEWLINK:
        return None  # it went meanwhile
    # a header, the link's fixed part, then attributes: length, type, value, each padded to four bytes
    at = 32
    while at + 4 <= len(answer):
        length, kind = struct.unpack_from("=HH", answer, at)
        if length < 4:
            break
        if kind == _IFLA_MASTER:
            with contextlib.suppress(OSError):
                return socket.if_indextoname(struct.unpack_from("=I", answer, at + 4)[0])
        at += (length + 3) & ~3
    return None


def enslave(interface: str, bridge: str) -> None:
    """Put an interface of the caller's namespace into a bridge."""
    run(["ip", "link", "set", interface, "master", bridge], timeout=20)


def sysctl(name: str, key: str, *, value: str) -> None:
    """Set a network sysctl (``net/ipv4/ip_forward``) in the namespace; a key that this kernel lacks is left out."""
    with inside(name), contextlib.suppress(FileNotFoundError):
        (Path("/proc/sys") / key).write_text(value)  # /proc/sys/net is that of the thread which opens it


def _inode(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    # a name that is not mounted any more is an ordinary empty file of the tmpfs
    return (status.st_dev, status.st_ino) if status.st_dev != _folder_device() else None


def _folder_device() -> int | None:
    try:
        return FOLDER.stat().st_dev
    except OSError:
        return None


def _setns(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "setns")
