"""Firewall groups and their rules (``cloud.capabilities.Firewall``).

A group's id is its name in the cloud, and a rule's id is its content, since the API has neither. What always holds:

- A group is changed by one call at a time, in this process, and the next waits until the last is applied.
- A change whose reply was lost is read back before it is sent again.

- A cluster in several zones has each group in each of them, with the same rules. They are one group here, whose id is the name
  in the first zone, for whoever names the zones; a rule is listed once all of them have it.

A group belongs to a zone, a server has one group, and what no rule lets in is refused. A rule cannot name its own group:
traffic within a group is a rule for the range of its network.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal

from moyai.cloud.model import SecurityGroup, SecurityGroupRule
from moyai.cloud.nifcloud.error_codes import NoSuchObject
from moyai.cloud.nifcloud.group_calls import GroupCalls, WireGroup, WireRule, plain_range
from moyai.cloud.nifcloud.marks import DESCRIPTION_LENGTH, Mark, adopted, mark_of, read_mark, wire_name, zonal_name
from moyai.cloud.nifcloud.nifcloud_limits import GROUP_RULES, Terms
from moyai.cloud.nifcloud.wire import Wire
from moyai.core.errors import Conflict, NotFound, QuotaExceeded, Terminal
from moyai.core.waiting import NotYet

_APPLIED_SECONDS = 180.0
_EVERYBODY = "0.0.0.0/0"
#: moyai's word → the API's. Numbers are IANA's.
_PROTOCOLS = {
    "tcp": "TCP",
    "udp": "UDP",
    "icmp": "ICMP",
    "gre": "GRE",
    "esp": "ESP",
    "ah": "AH",
    "vrrp": "VRRP",
    "l2tp": "L2TP",
}
_NUMBERS = {"1": "icmp", "6": "tcp", "17": "udp", "47": "gre", "50": "esp", "51": "ah", "112": "vrrp", "115": "l2tp"}
#: Protocols of the API that stand for a port of TCP.
_NAMED = {"SSH": 22, "HTTP": 80, "HTTPS": 443, "RDP": 3389}


class NifcloudFirewall:
    """``terms``: of the groups that it makes."""

    def __init__(self, wire: Wire, *, terms: Terms) -> None:
        self._wire, self._terms = wire, terms
        self._calls = GroupCalls(wire)
        self._lock = threading.Lock()
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def security_groups(self, *, tag: str | None = None) -> list[SecurityGroup]:
        listed = self._calls.all()
        found = [_shown(one) for one in listed if not (self._terms.others and _counterpart(one, listed))]
        return [one for one in found if tag is None or tag in one.tags]

    def create_security_group(self, *, name: str, description: str = "", tags: Sequence[str]) -> SecurityGroup:
        """The description has no room for words beside the owner: ``description`` is left out."""
        mark = mark_of(name, tags)
        made = [self._made(mark, place) for place in self._terms.places]
        return _shown(made[0])

    def _made(self, mark: Mark, place: str) -> WireGroup:
        """The cluster's group in one zone."""
        called = zonal_name(mark, place) if place in self._terms.others else wire_name(mark)

        def own() -> WireGroup | None:
            found = self._find(called)
            if found is not None:
                adopted(read_mark(found.description), mark, what=f"a firewall group {found.name}")
            return found

        return self._wire.create(own, lambda: self._calls.create(called, description=mark.text, zone=place))

    def delete_security_group(self, group_id: str) -> None:
        # the first zone's goes last: by it the others are found
        for name in reversed(self._zonal(group_id)):
            self._delete(name)

    def _zonal(self, group: str) -> list[str]:
        """Names of a group and of its counterparts in further zones, itself first. A login without further zones, as the parts
        inside a cluster have it, deals with each group by itself."""
        if not self._terms.others:
            return [group]
        listed = self._calls.all()
        found = next((one for one in listed if one.name == group), None)
        mark = read_mark(found.description) if found else None
        if found is None or mark is None or found.name != wire_name(mark):
            return [group]
        return [group, *(one.name for one in listed if one.name != group and read_mark(one.description) == mark)]

    def _delete(self, group_id: str) -> None:
        with self._alone(group_id):
            found = self._find(group_id)
            if found is None:
                return
            if read_mark(found.description) is None:
                raise Conflict(f"firewall group {group_id} is not moyai's", object_id=group_id)
            if found.servers:
                raise Conflict(f"firewall group {group_id} is in use by {', '.join(found.servers)}", object_id=group_id)
            try:
                self._wire.settle(lambda: self._calls.delete(group_id), lambda: self._find(group_id) is None)
            except NoSuchObject:
                return

    def security_group_rules(self, group_ids: Collection[str]) -> list[SecurityGroupRule]:
        listed = self._calls.all()
        found: list[SecurityGroupRule] = []
        for one in (group for group in listed if group.name in set(group_ids)):
            shared = self._of_all_zones(one, listed)
            found += [_rule(one.name, rule, words=words) for rule, words in one.rules if shared is None or rule in shared]
        return found

    def _of_all_zones(self, group: WireGroup, listed: Sequence[WireGroup]) -> frozenset[WireRule] | None:
        """The rules that a group's counterparts have; None where there are no further zones."""
        mark = read_mark(group.description)
        if mark is None or group.name != wire_name(mark) or not self._terms.others:
            return None
        others = {one.zone: one for one in listed if one.name != group.name and read_mark(one.description) == mark}
        rules = [{rule for rule, _ in others[zone].rules} if zone in others else set[WireRule]() for zone in self._terms.others]
        return frozenset(set[WireRule].intersection(*rules))

    def create_security_group_rules(self, rules: Sequence[SecurityGroupRule]) -> list[SecurityGroupRule]:
        groups = {rule.group_id for rule in rules}
        if len(groups) > 1:
            raise Terminal("rules of several firewall groups are asked for in one call")
        if not groups:
            return []
        group = groups.pop()
        wanted = {wire_rule(rule): rule.description[:DESCRIPTION_LENGTH] for rule in rules}
        for name in self._complete(group):
            self._add(name, wanted)
        return [_rule(group, rule, words=words) for rule, words in wanted.items()]

    def _complete(self, group: str) -> list[str]:
        """As ``_zonal``, after counterparts were made that a run which died has left out."""
        found = self._find(group) if self._terms.others else None
        mark = read_mark(found.description) if found else None
        if found is not None and mark is not None and found.name == wire_name(mark):
            for zone in self._terms.others:
                self._made(mark, zone)
        return self._zonal(group)

    def _add(self, group: str, wanted: Mapping[WireRule, str]) -> None:
        with self._alone(group):
            has = {rule for rule, _ in self._at_rest(group).rules}
            missing = [(rule, words) for rule, words in wanted.items() if rule not in has]
            if len(has) + len(missing) > GROUP_RULES:
                raise QuotaExceeded(
                    f"firewall group {group} may have {GROUP_RULES} rules, and would have {len(has) + len(missing)}"
                )
            if missing:
                new = {rule for rule, _ in missing}
                self._applied(group, send=lambda: self._calls.authorize(group, missing), done=lambda now: new <= now)

    def delete_security_group_rule(self, rule_id: str) -> None:
        group, rule = _read_id(rule_id)
        for name in self._zonal(group):
            self._remove(name, rule)

    def _remove(self, group: str, rule: WireRule) -> None:
        with self._alone(group):
            try:
                has = {one for one, _ in self._at_rest(group).rules}
            except NotFound:
                return
            if rule in has:
                self._applied(group, send=lambda: self._calls.revoke(group, [rule]), done=lambda now: rule not in now)

    # ---- one change of a group at a time

    def _alone(self, group: str) -> threading.Lock:
        with self._lock:
            return self._locks[group]

    def _at_rest(self, group: str) -> WireGroup:
        """The group once no change is under way. Raises NotFound."""

        def look() -> WireGroup | NotYet:
            found = self._find(group)
            if found is None:
                raise NotFound(f"NIFCLOUD has no firewall group {group}", object_id=group)
            return found if found.applied else NotYet(f"firewall group {group} to be applied")

        return self._wire.wait(look, seconds=_APPLIED_SECONDS)

    def _applied(self, group: str, *, send: Callable[[], None], done: Callable[[frozenset[WireRule]], bool]) -> None:
        def has() -> frozenset[WireRule]:
            return frozenset(rule for rule, _ in self._at_rest(group).rules)

        try:
            self._wire.settle(send, lambda: done(has()))
        except Conflict:
            # a duplicate, or a rule that is gone: another process was faster
            if not done(has()):
                raise
        except NoSuchObject:
            if not done(has()):
                raise

        def look() -> bool | NotYet:
            return True if done(has()) else NotYet(f"firewall group {group} to show its rules")

        self._wire.wait(look, seconds=_APPLIED_SECONDS)

    def _find(self, name: str) -> WireGroup | None:
        return next((one for one in self._calls.all() if one.name == name), None)


def _counterpart(group: WireGroup, listed: Sequence[WireGroup]) -> bool:
    """Whether it is that of a further zone, and the first zone's is there."""
    mark = read_mark(group.description)
    return mark is not None and group.name != wire_name(mark) and any(one.name == wire_name(mark) for one in listed)


def _shown(found: WireGroup) -> SecurityGroup:
    mark = read_mark(found.description)
    if mark is None:
        return SecurityGroup(found.name, found.name, found.description)
    return SecurityGroup(found.name, mark.name, tags=mark.tags)


def wire_rule(rule: SecurityGroupRule) -> WireRule:
    """Raises Terminal for what no rule of NIFCLOUD says."""
    if rule.ethertype != "IPv4":
        raise Terminal(f"rules of NIFCLOUD for {rule.ethertype} are not made by moyai")
    if rule.remote_group_id == rule.group_id:
        hint = "give the range of the group's network instead"
        raise Terminal(f"a rule of firewall group {rule.group_id} names its own group", hint=hint)
    word = (rule.protocol or "").lower()
    protocol = _PROTOCOLS.get(_NUMBERS.get(word, word)) if word else "ANY"
    if protocol is None:
        raise Terminal(f"rules of NIFCLOUD cannot name the protocol {rule.protocol}")
    direction = "IN" if rule.direction == "ingress" else "OUT"
    first = last = 0
    if protocol in ("TCP", "UDP"):
        # a rule without ports is one for all of them
        first, last = rule.port_min or 1, rule.port_max or 65535
    if rule.remote_group_id:
        return WireRule(direction, protocol, first, last, rule.remote_group_id, by_group=True)
    return WireRule(direction, protocol, first, last, plain_range(rule.remote_cidr or _EVERYBODY))


def _rule(group: str, rule: WireRule, *, words: str) -> SecurityGroupRule:
    direction: Literal["ingress", "egress"] = "egress" if rule.direction == "OUT" else "ingress"
    port = _NAMED.get(rule.protocol)
    protocol = "tcp" if port else rule.protocol.lower()
    first, last = (port, port) if port else (rule.first or None, rule.last or None)
    everything = (first, last) == (1, 65535)
    v6 = not rule.by_group and ":" in rule.remote
    return SecurityGroupRule(
        group_id=group,
        direction=direction,
        ethertype="IPv6" if v6 else "IPv4",
        protocol=None if rule.protocol == "ANY" else protocol,
        port_min=None if everything else first,
        port_max=None if everything else last,
        remote_cidr=None if rule.by_group or rule.remote in (_EVERYBODY, "::/0") else rule.remote,
        remote_group_id=rule.remote if rule.by_group else None,
        description=words,
        id=_id(group, rule),
    )


def _id(group: str, rule: WireRule) -> str:
    kind = "group" if rule.by_group else "range"
    return "|".join((group, rule.direction, rule.protocol, str(rule.first), str(rule.last), kind, rule.remote))


def _read_id(rule_id: str) -> tuple[str, WireRule]:
    parts = rule_id.split("|")
    if len(parts) != 7 or not (parts[3].isdigit() and parts[4].isdigit()):
        raise NotFound(f"NIFCLOUD has no rule {rule_id}", object_id=rule_id)
    group, direction, protocol, first, last, kind, remote = parts
    return group, WireRule(direction, protocol, int(first), int(last), remote, by_group=kind == "group")
