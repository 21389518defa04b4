"""What policies on trial would have dropped on this node, as its kernel noted it. `moyai policy audit` asks in the agent's pod.

Always holds: a flow is named once, however many packets it had; one that has been quiet for an hour is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from moyai.core.errors import Terminal
from moyai.kube.objects.meta import part, rows
from moyai.linux.libnftables import Nftables, NftError
from moyai.plan.network_policy import table_names as names
from moyai.plan.network_policy.compiled import FAMILIES
from moyai.plan.network_policy.nft_commands import FLOW_SECONDS, flows

#: nftables writes the number where the machine has no list of protocols, as in the agent's image.
_NAMES: Mapping[object, str] = {6: "tcp", "6": "tcp", 17: "udp", "17": "udp", 132: "sctp", "132": "sctp"}


@dataclass(frozen=True)
class NotedFlow:
    """``seconds``: since its last packet."""

    source: str
    destination: str
    protocol: str
    port: int
    seconds: int


def noted_flows() -> list[NotedFlow]:
    """Raises Terminal where the kernel cannot be asked, or has no table of policies."""
    try:
        tables = Nftables()
        try:
            answers = [one for family in FAMILIES for one in tables.run(flows(names.trial(family)))]
        finally:
            tables.close()
    except NftError as error:
        raise Terminal(f"the flows of policies on trial cannot be read ({error})") from error
    return [flow for answer in answers for flow in parse_flows(answer)]


def parse_flows(answer: Mapping[str, Any]) -> Iterator[NotedFlow]:
    """``answer``: one of nftables' to ``flows``."""
    for one in rows(part(answer, "set"), "elem"):
        found = part(one, "elem")
        ends: object = part(found, "val").get("concat")
        if isinstance(ends, list) and len(cast("list[object]", ends)) == 4:
            source, destination, protocol, port = cast("list[Any]", ends)
            quiet = FLOW_SECONDS - int(found.get("expires") or FLOW_SECONDS)
            yield NotedFlow(str(source), str(destination), _NAMES.get(protocol, str(protocol)), int(port), max(0, quiet))
