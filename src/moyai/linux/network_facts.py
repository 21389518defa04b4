"""A program that runs on a node, with the node's own network, and prints what the kernel has, as JSON. It changes nothing.

It travels as text into pods whose image has Python, whatever version of moyai is in it: standard library and pyroute2 only,
nothing of moyai. Argument: addresses of pods, with commas between; those found on the node are described from within.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

#: Where the container runtime keeps the namespaces of pods.
NAMESPACES = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
_SIOCGIFADDR = 0x8915
_JSON = 1 << 4
#: Tables of nftables that are printed whole; of the others, chains alone.
WHOLE = (("ip", "moyai"), ("ip", "kube-proxy"))
_AF_INET = 2
_KINDS = {1: "unicast", 2: "local", 3: "broadcast", 6: "blackhole", 7: "unreachable", 8: "prohibit", 9: "throw"}
#: linux/neighbour.h
_STATES = ((0x80, "permanent"), (0x40, "noarp"), (0x02, "reachable"), (0x04, "stale"), (0x20, "failed"), (0x01, "incomplete"))


def facts(pods: list[str], namespaces: Path = NAMESPACES) -> dict[str, Any]:
    with _netlink() as route:
        found: dict[str, Any] = {
            "links": [_link(one) for one in route.get_links()],
            "addresses": [_address(one) for one in route.get_addr(family=_AF_INET)],
            "routes": [one for message in route.get_routes(family=_AF_INET) for one in _routes(message)],
            "rules": [_rule(one) for one in route.get_rules(family=_AF_INET)],
            "neighbours": [_neighbour(one) for one in route.get_neighbours(family=_AF_INET)],
            "entries": [_neighbour(one) for one in route.fdb("dump")],
        }
    found["forwards"] = Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "1"
    found["tables"], found["unreadable"] = _tables()
    found["pods"] = {one: shown for one, path in _homes(pods, namespaces) if (shown := _pod(path, one))}
    found["searched"] = namespaces.is_dir()
    return found


def _netlink(path: Path | None = None) -> Any:
    from pyroute2 import IPRoute  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

    return cast("Any", IPRoute)(**({"netns": str(path)} if path else {}))


def _link(message: Any) -> dict[str, Any]:
    information = message.get_attr("IFLA_LINKINFO")
    kind = (information.get_attr("IFLA_INFO_KIND") or "") if information else ""
    data = information.get_attr("IFLA_INFO_DATA") if kind == "vxlan" else None
    made: dict[str, Any] = {
        "index": message["index"],
        "name": message.get_attr("IFLA_IFNAME"),
        "kind": kind,
        "mtu": message.get_attr("IFLA_MTU") or 0,
        "mac": message.get_attr("IFLA_ADDRESS") or "",
        "up": bool(message["flags"] & 1),
        "master": message.get_attr("IFLA_MASTER") or 0,
        "peer": message.get_attr("IFLA_LINK") or 0,
    }
    if data:
        made["vxlan"] = {
            "vni": data.get_attr("IFLA_VXLAN_ID") or 0,
            "port": data.get_attr("IFLA_VXLAN_PORT") or 0,
            "local": data.get_attr("IFLA_VXLAN_LOCAL") or "",
            "parent": data.get_attr("IFLA_VXLAN_LINK") or 0,
        }
    return made


def _address(message: Any) -> dict[str, Any]:
    address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS") or ""
    return {"index": message["index"], "address": address, "prefix": message["prefixlen"]}


def _routes(message: Any) -> Iterator[dict[str, Any]]:
    """One for each next hop."""
    shared = {
        "destination": f"{message.get_attr('RTA_DST') or '0.0.0.0'}/{message['dst_len']}",
        "table": message.get_attr("RTA_TABLE") or message["table"],
        "protocol": message["proto"],
        "metric": message.get_attr("RTA_PRIORITY") or 0,
        "kind": _KINDS.get(message["type"], str(message["type"])),
        "source": message.get_attr("RTA_PREFSRC") or "",
    }
    several = message.get_attr("RTA_MULTIPATH")
    if several:
        for one in several:
            gateway = dict(one.get("attrs", ())).get("RTA_GATEWAY", "")
            yield {**shared, "gateway": gateway, "index": one["oif"]}
    else:
        yield {**shared, "gateway": message.get_attr("RTA_GATEWAY") or "", "index": message.get_attr("RTA_OIF") or 0}


def _rule(message: Any) -> dict[str, Any]:
    source, target = message.get_attr("FRA_SRC") or "", message.get_attr("FRA_DST") or ""
    return {
        "priority": message.get_attr("FRA_PRIORITY") or 0,
        "table": message.get_attr("FRA_TABLE") or message["table"],
        "source": f"{source}/{message['src_len']}" if source else "",
        "target": f"{target}/{message['dst_len']}" if target else "",
        "mark": message.get_attr("FRA_FWMARK") or 0,
        "device": message.get_attr("FRA_IIFNAME") or "",
    }


def _neighbour(message: Any) -> dict[str, Any]:
    state = message["state"]
    return {
        "index": message["ifindex"],
        "address": message.get_attr("NDA_DST") or "",
        "mac": message.get_attr("NDA_LLADDR") or "",
        "state": next((word for bit, word in _STATES if state & bit), ""),
    }


def _tables() -> tuple[list[dict[str, Any]], str]:
    """What nftables has; why it cannot be read, empty where it can."""
    try:
        library = ctypes.CDLL("libnftables.so.1")
    except OSError as error:
        return [], str(error)
    for name in ("nft_ctx_new", "nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).restype = ctypes.c_char_p if name.endswith("buffer") else ctypes.c_void_p
    context = ctypes.c_void_p(library.nft_ctx_new(0))
    library.nft_ctx_buffer_output(context)
    library.nft_ctx_buffer_error(context)
    library.nft_ctx_output_set_flags(context, _JSON)

    def ask(command: str) -> list[dict[str, Any]]:
        failed = library.nft_run_cmd_from_buffer(context, command.encode())
        said = library.nft_ctx_get_output_buffer(context) or b""
        why = library.nft_ctx_get_error_buffer(context) or b""
        if failed:
            raise OSError(why.decode(errors="replace").strip().splitlines()[-1] if why else "nftables gives no reason")
        return list(json.loads(said)["nftables"]) if said.strip() else []

    try:
        found = ask("list chains")
        for family, name in WHOLE:
            with suppress(OSError):  # there is no such table
                found += ask(f"list table {family} {name}")
    except OSError as error:
        return [], str(error)
    finally:
        library.nft_ctx_free(context)
    return found, ""


def _homes(pods: list[str], namespaces: Path) -> Iterator[tuple[str, Path]]:
    """Address → the namespace that has it."""
    wanted = set(pods)
    if not wanted or not namespaces.is_dir():
        return
    for path in sorted(namespaces.iterdir()):
        with suppress(OSError):
            address = _inside(path)
            if address in wanted:
                yield address, path


def _inside(path: Path) -> str:
    """The address of eth0 in a namespace."""
    library = ctypes.CDLL(None, use_errno=True)
    home, there = os.open("/proc/thread-self/ns/net", os.O_RDONLY), os.open(path, os.O_RDONLY)
    try:
        if library.setns(there, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
                request = struct.pack("16s24x", b"eth0")
                return socket.inet_ntoa(fcntl.ioctl(asking.fileno(), _SIOCGIFADDR, request)[20:24])
        finally:
            library.setns(home, _CLONE_NEWNET)
    finally:
        os.close(home)
        os.close(there)


def _pod(path: Path, address: str) -> dict[str, Any] | None:
    with suppress(OSError), _netlink(path) as route:
        links = {one["index"]: one for one in map(_link, route.get_links())}
        index = next((one["index"] for one in map(_address, route.get_addr(family=_AF_INET)) if one["address"] == address), 0)
        routes = [one for message in route.get_routes(family=_AF_INET) for one in _routes(message)]
        if index in links:
            return {"namespace": path.name, "link": links[index], "routes": routes}
    return None


def main(words: list[str]) -> None:
    json.dump(facts([one for one in (words[0] if words else "").split(",") if one]), sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])
