"""Pure: a load balancer's tree and its members' health → nftables rules: UDP is balanced by the kernel, and allowed_cidrs hold.

UDP: the first datagram of a client's socket picks a member (a counter or a hash over the weights, in a map), the kernel
remembers it; answers come back by the VIP. Where the choice follows from the client (SOURCE_IP, session persistence), a
member that comes or goes moves only the clients that it gains or loses (weighted rendezvous hashing).
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

from moyai.linux import nft
from moyai.linux.nft import Command
from moyai.localcloud.drivers.octavia.balancer_tree import Listener, LoadBalancer, Member, Pool

TABLE = "moyai_lb"
SLOTS = 512  # the grain of a hash: a member's share is right to about 1/512
_SEED = 0x6D6F79
_GUARD, _DISPATCH, _RETURN, _FORWARD = "guard", "dispatch", "return", "forward"
Health = Mapping[str, bool | None]


@dataclass(frozen=True)
class Rules:
    """``commands``: nftables' JSON commands; none if no rule is needed. ``answering``: by UDP port, the members that answer."""

    commands: tuple[Command, ...]
    answering: Mapping[int, frozenset[tuple[str, int]]]


def render(balancer: LoadBalancer, health: Health) -> Rules:
    """The rules, and which members' remembered connections may go on (also those that are being drained)."""
    guard: list[Command] = []
    dispatch: list[Command] = []
    count: list[Command] = []
    answering: dict[int, frozenset[tuple[str, int]]] = {}
    for listener in balancer.live_listeners:
        for vip in balancer.vips:
            guard += _guard(vip, listener)
        if listener.protocol != "UDP":
            continue
        if listener.connection_limit is not None:
            many = {"ct count": {"val": listener.connection_limit, "inv": True}}
            guard.append(nft.rule(TABLE, _GUARD, *_new(listener), many, {"drop": None}))
        pool = balancer.pool(listener.pool_id)
        members = pool.live_members if pool else ()
        answering[listener.port] = frozenset((one.address, one.port) for one in members if health.get(one.id) is not False)
        for vip in balancer.vips:
            # the kernel translates within a family only
            chosen = choose([one for one in members if _ip(one.address) == _ip(vip)], health)
            if pool is None or not chosen:
                guard.append(nft.rule(TABLE, _GUARD, *_to(vip, listener), {"drop": None}))
            else:
                dispatch.append(nft.rule(TABLE, _DISPATCH, *_to(vip, listener), _dnat(vip, pool, members=chosen)))
        count += [_count(listener, direction) for direction in ("original", "reply")]
    if not guard and not dispatch:
        return Rules((), answering)
    commands = [nft.chain(TABLE, _GUARD, kind="filter", hook="prerouting", priority=-150), *guard]
    if answering:
        translated = nft.match({"ct": {"key": "status"}}, "dnat", operator="in")
        commands += [
            nft.chain(TABLE, _DISPATCH, kind="nat", hook="prerouting", priority=-100),
            *dispatch,
            nft.chain(TABLE, _RETURN, kind="nat", hook="postrouting", priority=100),
            nft.rule(TABLE, _RETURN, translated, {"masquerade": None}),
            # the namespace forwards what it translated and nothing else
            nft.chain(TABLE, _FORWARD, kind="filter", hook="forward", priority=0, policy="drop"),
            *count,
            nft.rule(TABLE, _FORWARD, translated, {"accept": None}),
        ]
    return Rules(tuple(commands), answering)


def choose(members: Sequence[Member], health: Health) -> tuple[Member, ...]:
    """The members that get new clients: those that work (or are not checked yet), backups only when no other does."""
    able = [one for one in members if one.weight > 0 and health.get(one.id) is not False]
    return tuple([one for one in able if not one.backup] or able)


def slots(members: Sequence[Member]) -> list[Member]:
    """A member for each slot of the hash, by weighted rendezvous: each slot goes to its highest bidder."""
    return [max(members, key=lambda one: (_bid(slot, one), one.id)) for slot in range(SLOTS)]


def turns(members: Sequence[Member]) -> list[Member]:
    """A member for each count of a round, by weight."""
    unit = reduce(math.gcd, (one.weight for one in members))
    return [one for one in members for _ in range(one.weight // unit)]


def counter_name(listener_id: str, direction: str) -> str:
    """The comment of the rule that counts a UDP listener's packets."""
    return f"{listener_id} {direction}"


def _bid(slot: int, member: Member) -> float:
    digest = hashlib.blake2b(f"{slot} {member.address} {member.port}".encode(), digest_size=8).digest()
    return -member.weight / math.log((int.from_bytes(digest, "big") + 1) / (2**64 + 1))


def _ip(address: str) -> str:
    return "ip6" if ":" in address else "ip"


def _new(listener: Listener) -> tuple[Command, ...]:
    """New connections to this listener, at any VIP."""
    protocol = "udp" if listener.protocol == "UDP" else "tcp"
    state = nft.match({"ct": {"key": "state"}}, "new", operator="in")
    return state, nft.match(nft.payload(protocol, "dport"), listener.port)


def _to(vip: str, listener: Listener) -> tuple[Command, ...]:
    """New connections to this listener at this VIP."""
    return (*_new(listener), nft.match(nft.payload(_ip(vip), "daddr"), vip))


def _guard(vip: str, listener: Listener) -> Iterable[Command]:
    to = _to(vip, listener)
    if listener.allowed_cidrs:
        allowed = _networks(listener.allowed_cidrs, ipaddress.ip_address(vip).version)
        if not any(one.prefixlen == 0 for one in allowed):
            inside = {"set": [{"prefix": {"addr": str(one.network_address), "len": one.prefixlen}} for one in allowed]}
            others = (nft.match(nft.payload(_ip(vip), "saddr"), inside, operator="!="),) if allowed else ()
            yield nft.rule(TABLE, _GUARD, *to, *others, {"drop": None})


def _networks(cidrs: Iterable[str], version: int) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """Without overlaps (nftables refuses them), and only those of the VIP's family."""
    all_of_them = [ipaddress.ip_network(one, strict=False) for one in cidrs]
    if version == 4:
        return [*ipaddress.collapse_addresses(one for one in all_of_them if isinstance(one, ipaddress.IPv4Network))]
    return [*ipaddress.collapse_addresses(one for one in all_of_them if isinstance(one, ipaddress.IPv6Network))]


def _dnat(vip: str, pool: Pool, *, members: Sequence[Member]) -> Command:
    source = nft.payload(_ip(vip), "saddr")
    if pool.persistence is not None or pool.algorithm == "SOURCE_IP":
        table, key = slots(members), {"jhash": {"mod": SLOTS, "seed": _SEED, "expr": source}}
    elif pool.algorithm == "SOURCE_IP_PORT":
        both = {"concat": [source, nft.payload("udp", "sport")]}
        table, key = slots(members), {"jhash": {"mod": SLOTS, "seed": _SEED, "expr": both}}
    else:
        table = turns(members)
        key = {"numgen": {"mode": "inc", "mod": len(table), "offset": 0}}
    if len(set(table)) == 1:
        return {"dnat": {"family": _ip(vip), "addr": members[0].address, "port": members[0].port}}
    return {"dnat": {"family": _ip(vip), "addr": {"map": {"key": key, "data": {"set": _ranges(table)}}}}}


def _ranges(table: Sequence[Member]) -> list[list[object]]:
    """The map's elements, neighbours with the same member drawn together."""
    found: list[list[object]] = []
    begin = 0
    for n in range(1, len(table) + 1):
        if n == len(table) or table[n] != table[begin]:
            key: object = begin if n - 1 == begin else {"range": [begin, n - 1]}
            found.append([key, {"concat": [table[begin].address, table[begin].port]}])
            begin = n
    return found


def _count(listener: Listener, direction: str) -> Command:
    return nft.rule(
        TABLE,
        _FORWARD,
        nft.match({"meta": {"key": "l4proto"}}, "udp"),
        nft.match({"ct": {"key": "proto-dst", "dir": "original"}}, listener.port),
        nft.match({"ct": {"key": "direction"}}, direction),
        {"counter": None},
        comment=counter_name(listener.id, direction),
    )
