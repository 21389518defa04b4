"""What the controller of egress addresses asks of the node's kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from moyai.linux.arp import ArpResponder
from moyai.linux.egress_net import EgressNet
from moyai.linux.libnftables import Nftables


class EgressKernel(Protocol):
    """Calls block, and raise OSError or NftError."""

    def rules(self, text: str) -> None:
        """One transaction of nftables, in its own language."""
        ...

    def responder(self, link: str, answers: Callable[[str], bool], *, contested: Callable[[str], None]) -> ArpResponder: ...

    @property
    def net(self) -> EgressNet: ...


class ThisNode:
    """The process's own network."""

    def __init__(self) -> None:
        self.net = EgressNet()
        self._nft: Nftables | None = None

    def rules(self, text: str) -> None:
        self._nft = self._nft or Nftables()
        self._nft.run_text(text)

    def responder(self, link: str, answers: Callable[[str], bool], *, contested: Callable[[str], None]) -> ArpResponder:
        return ArpResponder(link, answers, contested=contested)
