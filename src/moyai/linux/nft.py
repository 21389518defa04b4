"""nftables: one table of ours, replaced as a whole in one transaction; and the connections that the kernel still remembers.

Commands are nftables' JSON (libnftables-json(5)), given on standard input. Between two rule sets no packet sees half of one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moyai.linux.netns import prefix
from moyai.linux.process import run

FAMILY = "inet"
Command = Mapping[str, Any]
_WORD = re.compile(r"(src|dst|sport|dport)=(\S+)")


@dataclass(frozen=True, order=True)
class Flow:
    """A UDP connection that the kernel remembers, without the client: its destination, and the member that answers."""

    address: str
    port: int
    answered_by: str
    answered_from: int


def replace_table(namespace: str, table: str, *, commands: Sequence[Command]) -> None:
    """Let the table hold exactly what ``commands`` add to it; without any, take the table away.

    The table is flushed, not deleted, so that the kernel's address translation never pauses. Raises ProcessError.
    """
    whole = {"table": {"family": FAMILY, "name": table}}
    begin: list[Command] = [{"add": whole}, {"flush": whole} if commands else {"delete": whole}]
    feed(namespace, [*begin, *commands])


def feed(namespace: str, commands: Sequence[Command]) -> None:
    """One transaction. Raises ProcessError with nft's words."""
    run([*prefix(namespace), "nft", "-j", "-f", "-"], stdin=json.dumps({"nftables": list(commands)}), timeout=30)


def chain(table: str, name: str, *, kind: str, hook: str, priority: int, policy: str = "accept") -> Command:
    """The command that adds a base chain."""
    what = {"family": FAMILY, "table": table, "name": name, "type": kind, "hook": hook, "prio": priority, "policy": policy}
    return {"add": {"chain": what}}


def rule(table: str, chain_name: str, *expressions: Command, comment: str | None = None) -> Command:
    """The command that appends a rule."""
    what = {"family": FAMILY, "table": table, "chain": chain_name, "expr": list(expressions)}
    return {"add": {"rule": {**what, "comment": comment} if comment else what}}


def match(left: Command, right: object, *, operator: str = "==") -> Command:
    """A comparison."""
    return {"match": {"op": operator, "left": left, "right": right}}


def payload(protocol: str, field: str) -> Command:
    """A field of the packet."""
    return {"payload": {"protocol": protocol, "field": field}}


def counters(namespace: str, table: str) -> dict[str, tuple[int, int]]:
    """(packets, bytes) of the table's counting rules, by comment."""
    shown = run([*prefix(namespace), "nft", "-j", "list", "table", FAMILY, table], timeout=30, check=False)
    found: dict[str, tuple[int, int]] = {}
    if shown.returncode:
        return found
    for item in json.loads(shown.stdout)["nftables"]:
        one = item.get("rule", {})
        for expression in one.get("expr", ()):
            if "counter" in expression and "comment" in one:
                found[one["comment"]] = (expression["counter"]["packets"], expression["counter"]["bytes"])
    return found


def udp_flows(namespace: str, destination: str) -> set[Flow]:
    """The UDP connections that were sent to this address, without their clients."""
    family = "ipv6" if ":" in destination else "ipv4"
    words = ["conntrack", "-L", "-f", family, "-p", "udp", "--orig-dst", destination]
    shown = run([*prefix(namespace), *words], timeout=30, check=False)
    return parse_flows(shown.stdout)


def parse_flows(text: str) -> set[Flow]:
    """The flows of conntrack's listing: the words of the question come first, then those of the answer."""
    found: set[Flow] = set()
    for line in text.splitlines():
        words = _WORD.findall(line)
        if len(words) >= 8:
            asked, answered = dict(words[:4]), dict(words[4:8])
            found.add(Flow(asked["dst"], int(asked["dport"]), answered["src"], int(answered["sport"])))
    return found


def forget(namespace: str, flow: Flow) -> None:
    """Make the kernel forget the connections of that kind, so that their next packet is looked at as a first one."""
    family = "ipv6" if ":" in flow.address else "ipv4"
    # fmt: off
    words = ["conntrack", "-D", "-f", family, "-p", "udp", "--orig-dst", flow.address, "--orig-port-dst", str(flow.port),
             "--reply-src", flow.answered_by, "--reply-port-src", str(flow.answered_from)]
    # fmt: on
    run([*prefix(namespace), *words], timeout=30, check=False)
