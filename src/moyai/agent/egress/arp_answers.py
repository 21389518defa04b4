"""Answers to ARP for the addresses that this node has, on the link with its own address.

Always holds: whether an address is answered for is asked at the moment of the answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from moyai.agent.egress.kernel import EgressKernel
from moyai.core.clock import Clock
from moyai.linux.arp import ArpResponder

_log = logging.getLogger(__name__)
#: Seconds between two defences of an address that another machine claims.
_DEFENCE = 1.0


class ArpAnswers:
    """``answers``: whether an address is this node's, now."""

    def __init__(self, kernel: EgressKernel, answers: Callable[[str], bool], *, clock: Clock) -> None:
        self._kernel, self._answers, self._clock = kernel, answers, clock
        self._responder: ArpResponder | None = None
        #: Address → when it was last defended.
        self._defended: dict[str, float] = {}

    def listen(self, link: str) -> None:
        """On this link alone; empty: on none. Raises OSError where there is no such link."""
        if self._responder is not None and self._responder.interface != link:
            self.close()
        if self._responder is None and link:
            self._responder = self._kernel.responder(link, self._answers, contested=self._contested)
            asyncio.get_running_loop().add_reader(self._responder.fileno(), self._heard)

    def announce(self, address: str) -> None:
        if self._responder is not None:
            self._responder.announce(address)

    def close(self) -> None:
        if self._responder is not None:
            asyncio.get_running_loop().remove_reader(self._responder.fileno())
            self._responder.close()
            self._responder = None

    def _heard(self) -> None:
        try:
            if self._responder is not None:
                self._responder.ready()
        except OSError as error:
            _log.warning("answers for egress addresses end: %s", error)
            self.close()

    def _contested(self, address: str) -> None:
        """The owner by the Lease announces the address again: the other machine is late, or is no node of the cluster."""
        now = self._clock.monotonic()
        if now - self._defended.get(address, -_DEFENCE) >= _DEFENCE:
            self._defended[address] = now
            _log.warning("another machine says that it has %s", address)
            self.announce(address)
