"""The cloud in memory behind ``cloud.capabilities.Cloud``.

Nothing is shared between two of them but what they are given; one may be used from several threads. What a cloud does is the
contract suite's to say: this one behaves like OpenStack, with its words for what is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from typing import Any, cast

from moyai.cloud.capabilities import (
    ALTERNATIVES,
    AbsentPart,
    Addresses,
    Capability,
    Credentials,
    PodRouting,
    Quotas,
    Routers,
    Tags,
)
from moyai.cloud.disks import Disks
from moyai.cloud.entrances import Entrances
from moyai.cloud.load_balancers import LoadBalancers
from moyai.cloud.memory.account import MemoryAccount, MemoryCredentials
from moyai.cloud.memory.addresses import MemoryAddresses
from moyai.cloud.memory.clock import OwnTime
from moyai.cloud.memory.disks import MemoryDisks
from moyai.cloud.memory.firewall import MemoryFirewall
from moyai.cloud.memory.images import MemoryImages
from moyai.cloud.memory.load_balancers import MemoryLoadBalancers
from moyai.cloud.memory.machines import MemoryMachines
from moyai.cloud.memory.memory_kind import MemoryKind
from moyai.cloud.memory.networks import MemoryNetworks
from moyai.cloud.memory.orders import Delays, Faults, Mortal
from moyai.cloud.memory.pod_routing import MemoryPodRouting
from moyai.cloud.memory.quotas import MemoryQuotas
from moyai.cloud.memory.routers import MemoryRouters
from moyai.cloud.memory.session import Session
from moyai.cloud.memory.store import Store
from moyai.cloud.memory.survey import MemorySurvey
from moyai.cloud.memory.tags import MemoryTags
from moyai.cloud.model import Network
from moyai.core.clock import Clock


class MemoryCloud:
    """``clock`` decides when what was asked for is done (see ``Delays``); none: ``OwnTime``. ``capabilities``: those it has.

    For tests: ``store`` holds the objects, ``calls`` counts calls by ``service.method``, ``faults`` and ``mortal`` take orders.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        delays: Delays | None = None,
        mortal: Mortal | None = None,
        capabilities: Collection[Capability] = tuple(Capability),
        name: str = "memory",
    ) -> None:
        store = Store(clock=clock or OwnTime(), delays=delays or Delays(), mortal=mortal or Mortal())
        store.tags_later = Capability.TAGS in capabilities
        store.networks.put(Network(store.new_id(), "public", external=True))
        self._enter(Session(store), frozenset(capabilities), name=name)

    def _enter(self, session: Session, capabilities: frozenset[Capability], *, name: str) -> None:
        self.name, self.store, self._capabilities = name, session.store, capabilities - ALTERNATIVES
        self.kind = MemoryKind()
        self.machines = MemoryMachines(session)
        self.networks = MemoryNetworks(session)
        self.firewall = MemoryFirewall(session)
        self.addresses = cast("Addresses", self._if_there(Capability.FLOATING_IPS, MemoryAddresses, session=session))
        self.images = MemoryImages(session)
        self.account = MemoryAccount(session)
        self.survey = MemorySurvey(session)
        self.routers = cast("Routers", self._if_there(Capability.ROUTERS, MemoryRouters, session=session))
        self.pod_routing = cast("PodRouting", self._if_there(Capability.POD_ROUTING, MemoryPodRouting, session=session))
        self.disks = cast("Disks", self._if_there(Capability.DISKS, MemoryDisks, session=session))
        self.load_balancers = cast(
            "LoadBalancers", self._if_there(Capability.LOAD_BALANCERS, MemoryLoadBalancers, session=session)
        )
        self.credentials = cast("Credentials", self._if_there(Capability.CREDENTIALS, MemoryCredentials, session=session))
        self.quotas = cast("Quotas", self._if_there(Capability.QUOTAS, MemoryQuotas, session=session))
        self.entrances = cast("Entrances", AbsentPart(name, Capability.ENTRANCES))
        self.tags = cast("Tags", self._if_there(Capability.TAGS, MemoryTags, session=session))

    def capabilities(self) -> frozenset[Capability]:
        return self._capabilities

    def log_in(self, credential_id: str, secret: str) -> MemoryCloud:
        """The same cloud, as an application credential sees it. A wrong one is refused at the first call."""
        known = any((one.id, one.secret) == (credential_id, secret) for one in self.store.credentials.values())
        other = object.__new__(MemoryCloud)
        other._enter(Session(self.store, credential_id if known else "?"), self._capabilities, name=self.name)
        return other

    # ---- orders

    @property
    def calls(self) -> Counter[str]:
        return self.store.calls

    @property
    def answered(self) -> Counter[str]:
        return self.store.answered

    @property
    def faults(self) -> Faults:
        return self.store.faults

    @property
    def mortal(self) -> Mortal:
        return self.store.mortal

    def _if_there(self, capability: Capability, make: Callable[[Session], Any], *, session: Session) -> Any:
        return make(session) if capability in self._capabilities else AbsentPart(self.name, capability)
