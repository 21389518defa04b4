"""The table as nftables' JSON commands (libnftables-json(5)), to be given to the kernel as one transaction.

Always holds: commands come in the order that nftables demands: what refers to something comes after it and goes before it.

The frame: two chains at hook forward, for what this node's pods send and for what is sent to them. Forward comes after address
translation of Services, so rules see pods. Packets between the node itself and its pods never pass it, so nothing keeps the
kubelet's probes away. The verdict accept ends one chain alone, so a packet passes when both accept it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from moyai.plan.network_policy import table_names as names
from moyai.plan.network_policy.ruleset import ChainRule, Delta, Element, Form, Match, Ports, SetKind, Verdict

Command = dict[str, Any]
_IN_TABLE = {"family": "inet", "table": names.TABLE}
_COUNTED_TABLE: Command = {"family": "inet", "table": names.TABLE}
_TABLE: Command = {"table": {"family": "inet", "name": names.TABLE}}
#: Before the chains of priority filter (0): a packet that is dropped here costs those chains nothing.
_PRIORITIES = {"sent": -2, "received": -1}
_IP = {4: "ip", 6: "ip6"}
#: Elements in one command; one of many thousands needs memory for all of them at once.
_BATCH = 1000
#: How long the kernel keeps a flow that it noted, and how many of them.
FLOW_SECONDS = 3600
_MOST_FLOWS = 4096


def removal() -> list[Command]:
    """The table goes, whether or not it is there."""
    return [{"add": _TABLE}, {"delete": _TABLE}]


def flows(name: str) -> list[Command]:
    """The question for the flows in a set that the kernel fills."""
    return [{"list": {"set": {**_IN_TABLE, "name": name}}}]


def counters() -> list[Command]:
    """The question for the counters that have names."""
    return [{"list": {"counters": _COUNTED_TABLE}}]


def whole(everything: Delta) -> list[Command]:
    """The table becomes this, whatever it was before. ``everything``: of a table that holds nothing."""
    sets = [_set(name, kind) for name, kind in everything.new_sets.items()]
    rest = replace(everything, new_sets={})
    return [*removal(), {"add": _TABLE}, *sets, *_frame(), *changes(rest)]


def changes(delta: Delta) -> list[Command]:
    """The table that stands becomes what is desired."""
    return [
        *(_set(name, kind) for name, kind in delta.new_sets.items()),
        *({"add": {"counter": {**_IN_TABLE, "name": name}}} for name in delta.new_counters),
        *({"add": {"chain": {**_IN_TABLE, "name": name}}} for name in delta.new_chains),
        *_elements("delete", delta.removed, kinds=delta.kinds),
        *({"flush": {"chain": {**_IN_TABLE, "name": name}}} for name in (*delta.gone_chains, *_rewritten(delta))),
        *(_rule(name, rule) for name, rules in delta.chains.items() for rule in rules),
        *_elements("add", delta.added, kinds=delta.kinds),
        *({"delete": {"chain": {**_IN_TABLE, "name": name}}} for name in delta.gone_chains),
        *({"delete": {"set": {**_IN_TABLE, "name": name}}} for name in delta.gone_sets),
        *({"delete": {"counter": {**_IN_TABLE, "name": name}}} for name in delta.gone_counters),
    ]


def _rewritten(delta: Delta) -> Iterator[str]:
    new = set(delta.new_chains)
    return (name for name in delta.chains if name not in new)


def _set(name: str, kind: SetKind) -> Command:
    return {"add": {"map" if kind.form is Form.MAP else "set": {**_IN_TABLE, "name": name, **_type(kind)}}}


def _type(kind: SetKind) -> Command:
    address = f"ipv{kind.family}_addr"
    match kind.form:
        case Form.ADDRESS:
            return {"type": address}
        case Form.PORT:
            return {"type": [address, "inet_service"]}
        case Form.PAIR:
            return {"type": [address, address]}
        case Form.RANGE:
            return {"type": address, "flags": ["interval"]}
        case Form.MAP:
            return {"type": address, "map": "verdict"}
        case Form.FLOW:
            kinds = [address, address, "inet_proto", "inet_service"]
            return {"type": kinds, "flags": ["timeout"], "timeout": FLOW_SECONDS, "size": _MOST_FLOWS}


def _elements(verb: str, of: Mapping[str, Mapping[Element, str]], *, kinds: Mapping[str, SetKind]) -> Iterator[Command]:
    for name, held in of.items():
        elements = [_element(element, target, kind=kinds[name]) for element, target in held.items()]
        for start in range(0, len(elements), _BATCH):
            yield {verb: {"element": {**_IN_TABLE, "name": name, "elem": elements[start : start + _BATCH]}}}


def _element(element: Element, target: str, *, kind: SetKind) -> Any:
    if kind.form is Form.MAP:
        return [element, {"goto": {"target": target}}]
    if isinstance(element, tuple):
        return {"concat": list(element)}
    return _prefix(element) if kind.form is Form.RANGE else element


def _rule(chain: str, rule: ChainRule) -> Command:
    expressions = _match(rule.match)
    if rule.counted:
        expressions.append({"counter": None})
    if rule.counter:
        expressions.append({"counter": rule.counter})
    if rule.note:
        # the ports of other protocols are none
        expressions.append(_is({"meta": {"key": "l4proto"}}, {"set": ["tcp", "udp", "sctp"]}))
        expressions.append({"set": {"op": "update", "elem": _flow(rule.match.family), "set": f"@{rule.note}"}})
    else:
        expressions.append({"jump": {"target": rule.jump}} if rule.jump else {(rule.verdict or Verdict.RETURN).value: None})
    return _add(chain, *expressions, comment=rule.comment)


def _flow(family: int) -> Command:
    ends = [_field(_IP[family], field) for field in ("saddr", "daddr")]
    return {"concat": [*ends, {"meta": {"key": "l4proto"}}, _field("th", "dport")]}


def _match(match: Match) -> list[Command]:
    found: list[Command] = []
    if match.addresses or match.cidr:
        address = _field(_IP[match.family], "saddr" if match.source else "daddr")
        if match.addresses:
            found.append(_is(address, f"@{match.addresses}"))
        elif ipaddress.ip_network(match.cidr).prefixlen:
            found.append(_is(address, _prefix(match.cidr)))
        else:
            # nftables has no match for the whole family but the family itself
            found.append(_is({"meta": {"key": "nfproto"}}, f"ipv{match.family}"))
        if match.excepts:
            found.append(_is(address, {"set": [_prefix(one) for one in match.excepts]}, operator="!="))
    if match.ports:
        found.append(_port(match.ports))
    if match.named:
        protocol, name = match.named
        pair = {"concat": [_field(_IP[match.family], "daddr"), _field(protocol, "dport")]}
        found.append(_is(pair, f"@{name}"))
    return found


def _port(ports: Ports) -> Command:
    if not ports.ranges:
        return _is({"meta": {"key": "l4proto"}}, ports.protocol)
    said = [first if first == last else {"range": [first, last]} for first, last in ports.ranges]
    return _is(_field(ports.protocol, "dport"), said[0] if len(said) == 1 else {"set": said})


def _frame() -> Iterator[Command]:
    """The base chains; their sets have to exist."""
    for name, priority in _PRIORITIES.items():
        chain = {**_IN_TABLE, "name": name, "type": "filter", "hook": "forward", "prio": priority, "policy": "accept"}
        yield {"add": {"chain": chain}}
        side = "saddr" if name == "sent" else "daddr"
        yield _add(
            name, {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}}, _ACCEPT
        )
        # neighbours on the pods' bridge find each other with these
        yield _add(name, _is(_field("icmpv6", "type"), {"set": _DISCOVERY}), _ACCEPT)
        for family, ip in _IP.items():
            mine = _field(ip, side)
            yield _add(
                name,
                _is(mine, f"@{names.ranges(family)}"),
                _is(mine, f"@{names.here(family)}", operator="!="),
                {"counter": None},
                _DROP,
                comment="a pod that is not known yet",
            )
        for family, ip in _IP.items():
            # otherwise a connection that was cut would begin again in its middle, from the side that may send
            for end in ("saddr", "daddr") if name == "sent" else ():
                yield _add(
                    name,
                    {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "new"}},
                    {"match": {"op": "!=", "left": {"&": [_field("tcp", "flags"), _HANDSHAKE]}, "right": "syn"}},
                    _is(_field(ip, end), f"@{names.isolated(family)}"),
                    {"counter": None},
                    _DROP,
                    comment="the middle of a connection",
                )
        for family, ip in _IP.items():
            pair = {"concat": [_field(ip, "saddr"), _field(ip, "daddr")]}
            yield _add(name, _is(pair, f"@{names.itself(family)}"), _ACCEPT)
        for family, ip in _IP.items():
            data = names.isolated_from(family) if name == "sent" else names.isolated_to(family)
            yield _add(name, {"vmap": {"key": _field(ip, side), "data": f"@{data}"}})


_ACCEPT: Command = {"accept": None}
_DROP: Command = {"drop": None}
_HANDSHAKE = {"|": [{"|": ["fin", "syn"]}, {"|": ["rst", "ack"]}]}
_DISCOVERY = ["nd-router-solicit", "nd-router-advert", "nd-neighbor-solicit", "nd-neighbor-advert"]


def _add(chain: str, *expressions: Command, comment: str = "") -> Command:
    what = {**_IN_TABLE, "chain": chain, "expr": list(expressions)}
    return {"add": {"rule": {**what, "comment": comment} if comment else what}}


def _is(left: Command, right: object, *, operator: str = "==") -> Command:
    return {"match": {"op": operator, "left": left, "right": right}}


def _field(protocol: str, name: str) -> Command:
    return {"payload": {"protocol": protocol, "field": name}}


def _prefix(cidr: str) -> Any:
    address, _, length = cidr.partition("/")
    full = 128 if ":" in address else 32
    return address if int(length) == full else {"prefix": {"addr": address, "len": int(length)}}
