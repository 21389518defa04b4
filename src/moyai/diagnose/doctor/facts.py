"""What is known of a cloud before anything is built on it. Each fact stands alone: what could not be asked says why."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from moyai.cloud.capabilities import Capability
from moyai.cloud.credentials import OwnLogin
from moyai.cloud.model import Flavor, Image, Network, Quota, Subnet, VolumeType
from moyai.cloud.survey import CloudService, Feature, OwnIdentity, ServerCertificate


@dataclass(frozen=True)
class Unknown:
    """A fact that the cloud did not give. ``why``: in one line."""

    why: str


@dataclass(frozen=True)
class External:
    """An external network. ``free``: addresses that nobody has, None where the cloud does not report them to users."""

    network: Network
    free: int | None


@dataclass(frozen=True)
class CloudSurvey:
    """``now``: when the cloud was asked. ``needs_tags``, ``starts_by_script``: the kind's (``CloudKind``). ``serves``:
    whether the cloud makes load balancers for Services itself.
    ``capabilities``: those that the user may use. ``volume_zones``, ``volume_types`` and ``providers`` are empty on a cloud
    without the capability. ``clock_ahead``: in seconds, None where the cloud does not report its time."""

    name: str
    now: datetime
    needs_tags: bool
    starts_by_script: bool
    serves: bool
    login: OwnIdentity | Unknown
    own_login: OwnLogin | Unknown
    services: tuple[CloudService, ...] | Unknown
    capabilities: frozenset[Capability] | Unknown
    features: frozenset[Feature] | Unknown
    networks: tuple[Network, ...] | Unknown
    subnets: tuple[Subnet, ...] | Unknown
    external: tuple[External, ...] | Unknown
    quotas: tuple[Quota, ...] | Unknown
    flavors: tuple[Flavor, ...] | Unknown
    images: tuple[Image, ...] | Unknown
    zones: tuple[str, ...] | Unknown
    volume_zones: tuple[str, ...] | Unknown
    volume_types: tuple[VolumeType, ...] | Unknown
    providers: tuple[str, ...] | Unknown
    clock_ahead: float | Unknown | None
    certificates: tuple[ServerCertificate, ...] | Unknown
