"""How a subnet gives out addresses: for what puts a port on it."""

from __future__ import annotations

import ipaddress
from typing import Any

from moyai.cloud.memory.session import MemoryApi
from moyai.cloud.model import Subnet
from moyai.core.errors import Conflict, Terminal


class MemoryRanges(MemoryApi):
    def _choose(self, subnet: Subnet, wish: str = "") -> str:
        """An address that no port has: the wished one, or the next of the subnet's pools."""
        ports, network = self._store.ports, subnet.network_id
        if wish:
            if ipaddress.ip_address(wish) not in ipaddress.ip_network(subnet.cidr):
                raise self._refused(
                    Terminal, f"IP address {wish} is not a valid IP for the specified subnet.", object_id=subnet.id
                )
            if ports.count("address", f"{network} {wish}"):
                raise self._refused(Conflict, f"IP address {wish} already allocated in subnet {subnet.id}", object_id=subnet.id)
            return wish
        pools: list[tuple[Any, Any]] = self._store.pools.get(subnet.id, [])
        # from where the last search ended, then once more from the start
        for start in (self._store.cursors.get(subnet.id, 0), 0):
            number = start
            for first, last in pools:
                size = int(last) - int(first) + 1
                while number < size:
                    address = str(first + number)
                    number += 1
                    if address != subnet.gateway and not ports.count("address", f"{network} {address}"):
                        # only of the first pool is remembered where it ended
                        self._store.cursors[subnet.id] = number if first == pools[0][0] else 0
                        return address
                number = 0
        raise self._refused(Terminal, f"No more IP addresses available on network {network}.", object_id=subnet.id)
