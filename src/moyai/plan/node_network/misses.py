"""Answers to what a kernel misses: which machine has a pod, and which machine has the tunnel with a MAC address.

Pure. A kernel asks for a pod's address where its tunnel is the pod's link (L3MISS), and for the machine where it knows the MAC
address alone (L2MISS).
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

from moyai.plan.node_network.node_state import Forwarding, Neighbour, Peer


class PeerIndex:
    """Peers with a tunnel, by their pods' ranges and by the MAC addresses of their tunnels."""

    def __init__(self, peers: Iterable[Peer] = ()) -> None:
        self._ranges: dict[tuple[int, int], Peer] = {}
        self._macs: dict[str, Peer] = {}
        for one in peers:
            if one.mac:
                network = IPv4Network(one.pod_cidr)
                self._ranges[network.prefixlen, int(network.network_address)] = one
                self._macs[one.mac.lower()] = one
        self._lengths = sorted({length for length, _ in self._ranges}, reverse=True)

    def answer(self, *, address: str = "", mac: str = "") -> tuple[Forwarding | Neighbour, ...]:
        """What the kernel needs for the address, or for the MAC address; nothing where no peer has it. The way to the machine
        comes before what uses it."""
        peer = self._of_address(address) if address else self._macs.get(mac.lower())
        if peer is None:
            return ()
        way = Forwarding(peer.mac, peer.address)
        return (way, Neighbour(address, peer.mac)) if address else (way,)

    def _of_address(self, address: str) -> Peer | None:
        number = int(IPv4Address(address))
        for length in self._lengths:
            found = self._ranges.get((length, number >> (32 - length) << (32 - length) if length else 0))
            if found is not None:
                return found
        return None

    def outdated(self, newer: PeerIndex) -> frozenset[tuple[str, str]]:
        """(MAC address, machine's address) of what the kernel may have been told and is not so any more."""
        have = {(mac, one.address, one.pod_cidr) for mac, one in self._macs.items()}
        want = {(mac, one.address, one.pod_cidr) for mac, one in newer._macs.items()}
        return frozenset((mac, address) for mac, address, _ in have - want)
