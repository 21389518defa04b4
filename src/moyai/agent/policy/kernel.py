"""What the policy controller asks of this node's kernel. Every call blocks, in the namespace in which the object was made."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

from moyai.agent.policy.flows import NotedFlow, parse_flows
from moyai.core.errors import Retriable
from moyai.kube.objects.meta import number, part, text
from moyai.linux import sysctl
from moyai.linux.conntrack import Conntrack, TrackedConnection
from moyai.linux.libnftables import Nftables, NftError
from moyai.plan.network_policy import table_names as names
from moyai.plan.network_policy.compiled import FAMILIES
from moyai.plan.network_policy.nft_commands import counters, flows

#: Packets between two pods on one bridge pass the chains of forward only with these.
_BRIDGES = ("net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables")


class PolicyKernel(Protocol):
    def see_bridged(self) -> bool:
        """Let chains see what goes from pod to pod on this node. False where the kernel has no module for it."""
        ...

    def apply(self, commands: Sequence[Mapping[str, Any]]) -> None:
        """One transaction. Raises Retriable."""
        ...

    def counters(self) -> Mapping[str, int]:
        """Packets by the name of a counter; none where there is no table yet. Raises Retriable."""
        ...

    def denied(self) -> list[NotedFlow]:
        """What policies with a log have dropped. Raises Retriable."""
        ...

    def connections(self) -> list[TrackedConnection]:
        """Those that pass this node; not those that begin or end at the node itself. Raises Retriable."""
        ...

    def cut(self, connections: Iterable[TrackedConnection]) -> int:
        """Returns how many there still were. Raises Retriable."""
        ...

    def close(self) -> None:
        """Gives back what was opened; no call comes after it."""
        ...


class ThisKernel:
    """Raises Retriable where the process has no rights or the machine no nftables."""

    def __init__(self) -> None:
        try:
            self._tables = Nftables()
            self._tracked = Conntrack()
        except (NftError, OSError) as error:
            raise Retriable(f"this node's packet filter cannot be opened ({error})") from error

    def see_bridged(self) -> bool:
        try:
            found = [sysctl.put(key, "1") for key in _BRIDGES]
            return all(found)
        except OSError as error:
            raise Retriable(f"{_BRIDGES[0].replace('/', '.')} cannot be set ({error})") from error

    def apply(self, commands: Sequence[Mapping[str, Any]]) -> None:
        try:
            self._tables.run(commands)
        except NftError as error:
            raise Retriable(f"the kernel refuses the table of network policies ({error})") from error

    def counters(self) -> Mapping[str, int]:
        try:
            answer = self._tables.run(counters())
        except NftError as error:
            raise Retriable(f"the counters of network policies cannot be read ({error})") from error
        found = (part(one, "counter") for one in answer)
        return {text(one, "name"): number(one, "packets") for one in found if one}

    def denied(self) -> list[NotedFlow]:
        try:
            answers = [one for family in FAMILIES for one in self._tables.run(flows(names.denied(family)))]
        except NftError as error:
            raise Retriable(f"what network policies denied cannot be read ({error})") from error
        return [flow for answer in answers for flow in parse_flows(answer)]

    def connections(self) -> list[TrackedConnection]:
        try:
            found = self._tracked.connections()
        except OSError as error:
            raise Retriable(f"the kernel's connections cannot be read ({error})") from error
        mine = {address for address in {a for one in found for a in (one.source, one.destination)} if _is_own(address)}
        return [one for one in found if one.source not in mine and one.destination not in mine]

    def cut(self, connections: Iterable[TrackedConnection]) -> int:
        try:
            return self._tracked.forget(connections)
        except OSError as error:
            raise Retriable(f"connections that are no longer permitted cannot be cut ({error})") from error

    def close(self) -> None:
        self._tables.close()
        self._tracked.close()


def _is_own(address: str) -> bool:
    """Whether the address is this node's: only then the kernel lets a socket have it."""
    with suppress(OSError), socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind((address, 0))
        return True
    return False
