"""One account at one region of NIFCLOUD behind ``cloud.capabilities.Cloud``.

What the cloud lacks of the capabilities is a value here (``CAPABILITIES``). What it has beside them, for those parts of moyai
that know NIFCLOUD: ``l4`` and ``elastic``, its two types of load balancers, and ``elastic_addresses``. For Services of type
LoadBalancer it has ``service_balancers``.
"""

from __future__ import annotations

from typing import Any, cast

from moyai.cloud.capabilities import AbsentPart, Addresses, Capability, PodRouting, Quotas, Routers, Tags
from moyai.cloud.load_balancers import LoadBalancers
from moyai.cloud.nifcloud.access_keys import AccessKey
from moyai.cloud.nifcloud.balancer_rules import BalancerRules
from moyai.cloud.nifcloud.disks import NifcloudDisks
from moyai.cloud.nifcloud.elastic_addresses import ElasticAddresses
from moyai.cloud.nifcloud.elb_calls import ElbCalls
from moyai.cloud.nifcloud.firewall import NifcloudFirewall
from moyai.cloud.nifcloud.l4_calls import L4Calls
from moyai.cloud.nifcloud.machines import NifcloudMachines
from moyai.cloud.nifcloud.networks import NifcloudNetworks
from moyai.cloud.nifcloud.nifcloud_account import NifcloudAccount, NifcloudImages, NifcloudSurvey
from moyai.cloud.nifcloud.nifcloud_credentials import NifcloudCredentials
from moyai.cloud.nifcloud.nifcloud_entrances import NifcloudEntrances
from moyai.cloud.nifcloud.nifcloud_kind import NifcloudKind
from moyai.cloud.nifcloud.nifcloud_limits import ELB, L4, Terms
from moyai.cloud.nifcloud.nifcloud_service_balancers import BalancerTypes, NifcloudServiceBalancers
from moyai.cloud.nifcloud.pair_balancers import PairBalancers
from moyai.cloud.nifcloud.sdk import ApiPlace, Caller
from moyai.cloud.nifcloud.wire import Wire
from moyai.core.clock import Clock, SystemClock

#: Of those that a cloud may have. Credentials are the account's own key, which is handed over. Routers of NIFCLOUD reboot when
#: they change, public addresses move while their machine is off, and balancers are no trees: none of them is what the
#: capability promises.
CAPABILITIES = frozenset({Capability.DISKS, Capability.CREDENTIALS, Capability.PUBLIC_CARDS, Capability.ENTRANCES})
#: For one change of a Service's load balancer.
_PATIENCE_SECONDS = 20.0


class NifcloudCloud:
    """Implements ``cloud.capabilities.Cloud``. Safe from several threads. ``terms``: of what is made. ``key``: the user's
    own, for the parts inside a cluster."""

    def __init__(
        self,
        caller: Caller,
        place: ApiPlace,
        *,
        name: str,
        terms: Terms,
        clock: Clock | None = None,
        key: AccessKey | None = None,
    ) -> None:
        self.kind, self.name = NifcloudKind(), name
        wire = Wire(caller, clock or SystemClock())
        self.machines = NifcloudMachines(wire, cloud=name, terms=terms)
        self.networks = NifcloudNetworks(wire, terms=terms)
        self.firewall = NifcloudFirewall(wire, terms=terms)
        self.images = NifcloudImages(wire)
        self.account = NifcloudAccount(wire, place)
        self.survey = NifcloudSurvey(wire, place)
        self.disks = NifcloudDisks(wire, cloud=name, terms=terms)
        self.l4 = PairBalancers(wire, L4Calls(wire), limits=L4)
        self.entrances = NifcloudEntrances(wire, self.l4, terms=terms)
        self.elastic = PairBalancers(wire, ElbCalls(wire), limits=ELB)
        # a controller comes again instead of waiting
        types = BalancerTypes(
            PairBalancers(wire, L4Calls(wire), limits=L4, patience=_PATIENCE_SECONDS),
            PairBalancers(wire, ElbCalls(wire), limits=ELB, patience=_PATIENCE_SECONDS),
            BalancerRules(self.firewall),
        )
        self.service_balancers = NifcloudServiceBalancers(wire, types, machines=self.machines, terms=terms)
        self.elastic_addresses = ElasticAddresses(wire)
        self.routers = cast("Routers", self._absent(Capability.ROUTERS))
        self.addresses = cast("Addresses", self._absent(Capability.FLOATING_IPS))
        self.pod_routing = cast("PodRouting", self._absent(Capability.POD_ROUTING))
        self.load_balancers = cast("LoadBalancers", self._absent(Capability.LOAD_BALANCERS))
        self.credentials = NifcloudCredentials(key, cloud=name)
        self.quotas = cast("Quotas", self._absent(Capability.QUOTAS))
        self.tags = cast("Tags", self._absent(Capability.TAGS))

    def capabilities(self) -> frozenset[Capability]:
        return CAPABILITIES

    def _absent(self, capability: Capability) -> Any:
        return AbsentPart(self.name, capability)
