"""One direction (ingress or egress) of a policy, compiled to rules of a chain and to the sets that the rules refer to.

Always holds: a rule of a namespace's policy only accepts. A packet that no rule of the pod's policies accepts is dropped at the
end of the pod's chain. A rule of a tier accepts, drops or returns, and the first rule that matches a packet decides.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from moyai.kube.objects.cluster_policy import Action, ClusterPolicy
from moyai.kube.objects.policy import Block, Peer, PodPeer, PolicyPort, PolicyRule
from moyai.plan.network_policy import table_names as names
from moyai.plan.network_policy.policy_counters import counter_name
from moyai.plan.network_policy.ruleset import ChainRule, Match, Ports, Verdict

FAMILIES = (4, 6)
#: (protocol, name, whether only pods of this node count)
NamedPort = tuple[str, str, bool]


@dataclass(frozen=True)
class Compiled:
    rules: tuple[ChainRule, ...]
    peers: frozenset[PodPeer]
    ports: frozenset[NamedPort]

    @property
    def counters(self) -> frozenset[str]:
        return frozenset(one.counter for one in self.rules if one.counter)


def compiled(rules: tuple[PolicyRule, ...], *, incoming: bool, key: str) -> Compiled:
    """``incoming``: the rules' peers are the senders. ``key``: the policy's, for the counter's comment."""
    counter = counter_name(key, incoming=incoming, verdict="accept")
    return _compiled((_Said(rule, Verdict.ACCEPT, key, counter) for rule in rules), incoming)


def compiled_tier(policies: Iterable[ClusterPolicy], *, incoming: bool) -> Compiled:
    """``policies``: of one tier, in their order. A rule that passes returns from the chain."""
    verdicts = {Action.ACCEPT: Verdict.ACCEPT, Action.DENY: Verdict.DROP, Action.PASS: Verdict.RETURN}
    words = {Action.ACCEPT: "accept", Action.DENY: "drop", Action.PASS: "pass"}
    rules = (
        _Said(
            one.rule,
            verdicts[one.action],
            f"{policy.tier} {policy.name} {one.name}",
            counter_name(policy.name, incoming=incoming, verdict=words[one.action]),
            note="denied" if policy.log and one.action is Action.DENY else "",
        )
        for policy in policies
        for one in policy.direction(incoming)
    )
    return _compiled(rules, incoming)


def compiled_tier_trial(policies: Iterable[ClusterPolicy], *, incoming: bool) -> Compiled:
    """``policies``: all of one tier that select the same pods, in their order. The first rule that is about a packet returns
    from the chain. Where it is a denial of a policy on trial, the flow is noted before."""
    rules = (
        _Said(
            one.rule,
            Verdict.RETURN,
            f"{policy.tier} {policy.name} {one.name}{' on trial' if policy.trial else ''}",
            note="trial" if policy.trial and one.action is Action.DENY else "",
        )
        for policy in policies
        for one in policy.direction(incoming)
    )
    return _compiled(rules, incoming)


def compiled_trial(policies: Iterable[tuple[PolicyRule, ...]], *, incoming: bool) -> Compiled:
    """``policies``: those on trial that select the same pods. What one of them permits returns from the chain; the flow of any
    other packet is noted at its end."""
    made = _compiled((_Said(rule, Verdict.RETURN, "on trial") for rules in policies for rule in rules), incoming)
    ends = (ChainRule(Match(family), note=names.trial(family), comment="would be dropped") for family in FAMILIES)
    return replace(made, rules=(*made.rules, *ends))


def noting(match: Match, name: Callable[[int], str] = names.denied) -> Iterator[ChainRule]:
    """Rules that note the flows of packets. ``name``: of the set, by the family."""
    for family in [match.family] if match.family else FAMILIES:
        yield ChainRule(replace(match, family=family), note=name(family))


_NOTES: Mapping[str, Callable[[int], str]] = {"denied": names.denied, "trial": names.trial}


@dataclass(frozen=True)
class _Said:
    """A rule with what it does to a packet, the comment of its own counter, and its policy's counter. ``note``: of ``_NOTES``,
    where the flows that it is about are noted; empty for nowhere."""

    rule: PolicyRule
    verdict: Verdict
    comment: str
    counter: str = ""
    note: str = ""


def _compiled(rules: Iterable[_Said], incoming: bool) -> Compiled:
    made: list[ChainRule] = []
    peers: set[PodPeer] = set()
    named: set[NamedPort] = set()
    for said in rules:
        rule = said.rule
        for peer in _peers(rule.peers, incoming):
            for ports in _ports(rule.ports, incoming):
                if said.note:
                    made += [one for match in _joined(peer, ports) for one in noting(match, _NOTES[said.note])]
                made += [
                    ChainRule(match, said.verdict, counted=True, counter=said.counter, comment=names.comment(said.comment))
                    for match in _joined(peer, ports)
                ]
        peers.update(one for one in rule.peers or () if isinstance(one, PodPeer))
        named.update((one.protocol, one.name, incoming) for one in rule.ports or () if one.name)
    return Compiled(tuple(dict.fromkeys(made)), frozenset(peers), frozenset(named))


def permits(
    rules: Iterable[PolicyRule],
    *,
    peer: str,
    port: tuple[str, int],
    is_one_of: Callable[[PodPeer], bool],
    named: Callable[[str], int | None],
) -> bool:
    """Whether a rule accepts a packet. ``port``: (protocol, destination port). ``is_one_of``: whether the pod at ``peer`` is
    such a one. ``named``: the number of the receiver's port of that name and protocol."""
    return any(_is_peer(rule.peers, peer, is_one_of=is_one_of) and _is_port(rule.ports, port, named=named) for rule in rules)


def _is_peer(peers: tuple[Peer, ...] | None, address: str, *, is_one_of: Callable[[PodPeer], bool]) -> bool:
    if peers is None:
        return True
    return any(_within(one, address) if isinstance(one, Block) else is_one_of(one) for one in peers)


def _within(block: Block, address: str) -> bool:
    one = ipaddress.ip_address(address)
    return one in ipaddress.ip_network(block.cidr) and not any(one in ipaddress.ip_network(no) for no in block.excepts)


def _is_port(ports: tuple[PolicyPort, ...] | None, port: tuple[str, int], *, named: Callable[[str], int | None]) -> bool:
    if ports is None:
        return True
    protocol, number = port
    for one in ports:
        if one.protocol != protocol:
            continue
        if one.name:
            if named(one.name) == number:
                return True
        elif not one.first or one.first <= number <= one.last:
            return True
    return False


def _peers(peers: tuple[Peer, ...] | None, incoming: bool) -> Iterator[Match]:
    if peers is None:
        yield Match(source=incoming)
        return
    for one in peers:
        if isinstance(one, Block):
            family = ipaddress.ip_network(one.cidr).version
            # a range of another family takes nothing away, and the kernel does not compare with it
            excepts = _collapsed(cidr for cidr in one.excepts if names.family_of(cidr) == family)
            yield Match(family, incoming, cidr=one.cidr, excepts=excepts)
        else:
            yield from (Match(family, incoming, addresses=names.pods(one, family)) for family in FAMILIES)


def _ports(ports: tuple[PolicyPort, ...] | None, incoming: bool) -> Iterator[Match]:
    """What a packet's port may be; ``family`` is set where the form depends on it."""
    if ports is None:
        yield Match()
        return
    for protocol in sorted({one.protocol for one in ports}):
        mine = [one for one in ports if one.protocol == protocol]
        ranges = [(one.first, one.last) for one in mine if not one.name]
        if ranges:
            yield Match(ports=Ports(protocol, () if (0, 0) in ranges else _merged(ranges)))
        for name in sorted({one.name for one in mine if one.name}):
            for family in FAMILIES:
                yield Match(family, named=(protocol, names.named_port(protocol, name, local=incoming, family=family)))


def _joined(peer: Match, ports: Match) -> Iterator[Match]:
    if not peer.family or not ports.family or peer.family == ports.family:
        yield replace(peer, family=peer.family or ports.family, ports=ports.ports, named=ports.named)


def _merged(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Without overlaps, which an nftables set refuses."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return tuple(found)


def _collapsed(cidrs: Iterable[str]) -> tuple[str, ...]:
    networks = [ipaddress.ip_network(one) for one in cidrs]
    four = ipaddress.collapse_addresses(one for one in networks if isinstance(one, ipaddress.IPv4Network))
    six = ipaddress.collapse_addresses(one for one in networks if isinstance(one, ipaddress.IPv6Network))
    return tuple(str(one) for one in (*four, *six))
