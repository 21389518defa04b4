"""What nftables is told of egress addresses, in nft's own language: who is marked and translated, and who may be.

Pure. Always holds: a table is replaced as a whole in one transaction. Only while an address is held does a packet leave the
node with it as its source. Holding ends in the kernel by itself, at a moment that no stopped process can put off.

**The fence.** An address is an element with a time-out in the set ``held``. Before the owner looks at its clock it puts a
ticket, an element that ends after ``TICKET`` seconds. The transaction that holds the addresses also removes the ticket, and
fails as a whole where the ticket has ended. So it takes effect within ``TICKET`` seconds of the look at the clock, or never.
The time-out is what the clock said, less ``TICKET``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address

from moyai.plan.egress import ANSWER_NUMBER, MARK_MASK, MARK_SHIFT, TUNNEL, EgressFlow

TABLE, FENCE = TUNNEL, f"{TUNNEL}-fence"
#: Seconds from the look at the clock until its answer no longer counts.
TICKET = 0.2
_TICKET_ADDRESS = "0.0.0.0"
_OTHERS = ~MARK_MASK & 0xFFFFFFFF
ANSWER_MARK = ANSWER_NUMBER << MARK_SHIFT


def egress_rules(flows: Iterable[EgressFlow], inside: Iterable[str]) -> str:
    """The table of flows; its removal where there is none."""
    flows, ranges = tuple(flows), ", ".join(inside)
    if not flows:
        return f"table ip {TABLE}\ndelete table ip {TABLE}\n"
    mine, away = [one for one in flows if one.mine], [one for one in flows if not one.mine]
    lines = [f"table ip {TABLE}", f"delete table ip {TABLE}", f"table ip {TABLE} {{"]
    for one in flows:
        elements = f" elements = {{ {', '.join(sorted(one.pods, key=IPv4Address))} }};" if one.pods else ""
        lines.append(f" set pods{one.number} {{ type ipv4_addr;{elements} }}")
    lines += _chain("leaving", "filter hook prerouting priority mangle")
    for one in away:
        chosen = f"ip saddr @pods{one.number} ip daddr != {{ {ranges} }}"
        lines.append(f"  {chosen} {_marked(one.mark) if one.through else 'counter drop'}")
    # behind the translation of an answer back to the pod's address
    lines += [" }", *_chain("answers", "filter hook prerouting priority dstnat + 10")]
    lines += [f"  ct direction reply ip daddr @pods{one.number} {_marked(ANSWER_MARK)}" for one in mine]
    # behind the routing: the tunnel would send its own packet by the mark, into itself
    lines += [" }", *_chain("routed", "filter hook postrouting priority mangle")]
    lines += [f'  oifname "{TUNNEL}" meta mark & {MARK_MASK:#010x} != 0 {_marked(0)}']
    lines += [f"  ip daddr @pods{one.number} meta mark & {MARK_MASK:#010x} == {ANSWER_MARK:#010x} {_marked(0)}" for one in mine]
    lines += [" }", *_chain("translated", "nat hook postrouting priority srcnat - 5")]
    for one in flows:
        # a translation to what it is already: no later chain gives it the node's address
        target = one.address if one.mine else "ip saddr"
        lines.append(f"  ip saddr @pods{one.number} ip daddr != {{ {ranges} }} counter snat to {target}")
    # pods' links may carry more than the tunnel; many networks lose the messages by which ends would learn it
    lines += [" }", *_chain("sizes", "filter hook forward priority mangle")]
    lines += [f'  oifname "{TUNNEL}" tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu']
    return "\n".join([*lines, " }", "}", ""])


def _chain(name: str, hook: str) -> tuple[str, str]:
    return f" chain {name} {{", f"  type {hook}; policy accept;"


def _marked(mark: int) -> str:
    return f"meta mark set meta mark & {_OTHERS:#010x}" + (f" | {mark:#010x}" if mark else "")


def fence_rules(addresses: Iterable[str]) -> str:
    """The table that guards these addresses; its removal for none. What is held stays held."""
    guarded = ", ".join(sorted(addresses, key=IPv4Address))
    if not guarded:
        return f"table ip {FENCE}\ndelete table ip {FENCE}\n"
    chains = {"leaving": "postrouting priority 200", "strange": "forward priority mangle"}
    lines = [f"add table ip {FENCE}", f"add set ip {FENCE} guarded {{ type ipv4_addr; }}"]
    lines += [f"add set ip {FENCE} {name} {{ type ipv4_addr; flags timeout; }}" for name in ("held", "ticket")]
    for chain, hook in chains.items():
        lines += [
            f"add chain ip {FENCE} {chain} {{ type filter hook {hook}; policy accept; }}",
            f"flush chain ip {FENCE} {chain}",
        ]
    lines += [
        f"add rule ip {FENCE} leaving ip saddr @held accept",
        f"add rule ip {FENCE} leaving ip saddr @guarded counter drop",
        # no answer to a connection of ours: its address would be a pod's by now
        f"add rule ip {FENCE} strange ip daddr @guarded counter drop",
        f"flush set ip {FENCE} guarded",
        f"add element ip {FENCE} guarded {{ {guarded} }}",
    ]
    return "\n".join([*lines, ""])


def put_ticket() -> str:
    """Before the look at the clock."""
    return "\n".join(
        [
            f"flush set ip {FENCE} ticket",
            f"add element ip {FENCE} ticket {{ {_TICKET_ADDRESS} timeout {TICKET * 1000:.0f}ms }}",
            "",
        ]
    )


def hold(left: Mapping[str, float]) -> str:
    """After it. ``left``: address → seconds for which it is this node's, by the clock. Without a ticket the kernel refuses."""
    lines = [f"delete element ip {FENCE} ticket {{ {_TICKET_ADDRESS} }}", f"flush set ip {FENCE} held"]
    for address, seconds in sorted(left.items()):
        if (milliseconds := int((seconds - TICKET) * 1000)) > 0:
            lines.append(f"add element ip {FENCE} held {{ {address} timeout {milliseconds}ms }}")
    return "\n".join([*lines, ""])


def let_go() -> str:
    """Nothing is held any more. It needs no ticket."""
    return f"flush set ip {FENCE} held\n"
