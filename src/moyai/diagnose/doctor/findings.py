"""What a cloud's facts mean for a cluster: pure, one function a subject.

The advice of a finding says what its absence costs: a whole cluster, or a part of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import TypeVar

from moyai.cloud.capabilities import Capability
from moyai.cloud.credentials import OwnLogin
from moyai.cloud.model import Quota
from moyai.cloud.survey import CloudService, Feature, OwnIdentity, ServerCertificate
from moyai.diagnose.doctor.facts import CloudSurvey, External, Unknown
from moyai.diagnose.doctor.finding import Finding, State

T = TypeVar("T")
#: A login or certificate that ends earlier is reported.
_SOON = timedelta(days=14)
#: Seconds. A cloud refuses logins of the future, and certificates that moyai makes begin when this machine thinks they do.
_CLOCKS_APART = 30.0

#: What a cluster does without where the cloud lacks a capability.
_WITHOUT: Mapping[Capability, str] = {
    Capability.ROUTERS: "a cluster needs a network of yours: name it in network.existing",
    Capability.FLOATING_IPS: "the API has an address of a network of yours: set network.disableExternalNetwork, and name the "
    "network in network.existing",
    Capability.EXISTING_NETWORKS: "a cluster makes its own network; it cannot be put into one of yours",
    Capability.POD_ROUTING: "network.mode cannot be routes; host-gw, vxlan and auto do without",
    Capability.DISKS: "claims for volumes stay pending; everything else works",
    Capability.LOAD_BALANCERS: "Services of type LoadBalancer get no address of the cloud's; services.announce gives them one",
    Capability.CREDENTIALS: "the cluster's controllers cannot log in",
    Capability.QUOTAS: "limits are met only while a cluster is built",
    Capability.TAGS: "no cluster can be built: moyai knows its objects by their tags",
    Capability.METADATA: "no cluster can be built: control planes take the key to their secrets from there",
    Capability.ROOT_VOLUMES: "rootVolume is refused, so flavors need a disk of their own; everything else works",
    Capability.SPREAD: "control planes may share a host, and die together with it; everything else works",
    Capability.SNAPSHOTS: "volumes can neither be copied nor be restored from snapshots; everything else works",
}
#: Where the owner of an object does not stand in tags.
_OTHER_MARKS = "none: the owner of an object stands in its description or its name, which creation writes"
#: What a cluster does without where networks lack a feature; none: moyai uses it where it is there, and needs it nowhere.
_PLAIN: Mapping[Feature, str] = {
    # where machines give themselves their addresses, control planes share a virtual one all the same
    Feature.SOURCE_ADDRESSES: "network.mode must be vxlan, which auto chooses",
    Feature.SINGLE_ROUTES: "two programs that change one router's routes may lose each other's; use another mode than routes",
    Feature.NETWORK_MTU: "moyai takes 1,450 bytes for the MTU: a network that carries less loses long packets",
}


def findings(facts: CloudSurvey) -> list[Finding]:
    """All that can be said without a spec, in the order in which a cluster needs it."""
    return [
        *_told("login", facts.login, found=lambda login: _login(login, facts.now)),
        *_told("controllers' logins", facts.own_login, found=_own_login),
        *_told("services", facts.services, found=_services),
        *_told(
            "capabilities",
            facts.capabilities,
            found=lambda offered: _capabilities(offered, facts),
        ),
        *_told("networks", facts.features, found=lambda offered: _features(offered, facts)),
        *_told("external networks", facts.external, found=_external),
        *_told("quotas", facts.quotas, found=_quotas),
        *_told("zones", facts.zones, found=lambda zones: _zones(zones, facts.volume_zones)),
        *_told("volume types", facts.volume_types, found=lambda types: _named("volume types", [one.name for one in types])),
        *_told("load balancer providers", facts.providers, found=lambda names: _named("load balancer providers", names)),
        *_told("clock", facts.clock_ahead, found=_clock),
        *_told("certificates", facts.certificates, found=lambda shown: _certificates(shown, facts.now)),
    ]


def _told(subject: str, fact: T | Unknown, *, found: Callable[[T], Iterable[Finding]]) -> Iterable[Finding]:
    if isinstance(fact, Unknown):
        return [Finding(subject, State.UNKNOWN, fact.why)]
    return found(fact)


def _ending(end: datetime | None) -> str:
    return f", ends on {end:%Y-%m-%d %H:%M} UTC" if end else ""


def _login(login: OwnIdentity, now: datetime) -> Iterator[Finding]:
    text = f"{login.method} of {login.user} in project {login.project}{_ending(login.ends)}"
    if login.ends and login.ends - now < _SOON:
        yield Finding("login", State.MISSING, text, "what logs in with it stops then: renew it, or log in another way")
    else:
        yield Finding("login", State.OK, text)


def _own_login(own: OwnLogin) -> Iterator[Finding]:
    subject = "controllers' logins"
    if own.may_issue:
        yield Finding(subject, State.OK, "each part of a cluster gets a credential of its own", "; ".join(own.notes))
    elif own.given:
        yield Finding(subject, State.OK, f"the parts of a cluster log in with {own.given}", "; ".join(own.notes))
    else:
        hint = "no cluster can be built: log in by password, or with a credential that creates others or fits both parts"
        yield Finding(subject, State.MISSING, own.refusal, hint)


def _services(services: Iterable[CloudService]) -> Iterator[Finding]:
    for one in services:
        if one.fault:
            yield Finding(one.name, State.MISSING, one.fault, "ask the cloud's operator; nothing that needs the service works")
        else:
            yield Finding(one.name, State.OK, f"{one.versions or 'version not reported'} at {one.address}")


#: Capability → the one that takes its place, and how.
_INSTEAD: Mapping[Capability, tuple[Capability, str]] = {
    Capability.ROUTERS: (Capability.PUBLIC_CARDS, "each machine has a card in the external network"),
    Capability.FLOATING_IPS: (Capability.ENTRANCES, "an address of the cloud's leads to the API"),
}


def _capabilities(offered: frozenset[Capability], facts: CloudSurvey) -> Iterator[Finding]:
    costs = _WITHOUT if facts.needs_tags else {**_WITHOUT, Capability.TAGS: _OTHER_MARKS}
    instead = {one: words for one, (other, words) in _INSTEAD.items() if other in offered}
    if facts.serves:
        instead[Capability.LOAD_BALANCERS] = "it makes others for Services of type LoadBalancer"
    if facts.starts_by_script:
        instead[Capability.METADATA] = "`up` sends machines their start over SSH"
    for capability, cost in costs.items():
        if capability in offered:
            yield Finding(capability.value, State.OK, "the cloud has them")
        elif capability in instead:
            yield Finding(capability.value, State.OK, f"the cloud has none: {instead[capability]} instead")
        else:
            yield Finding(capability.value, State.MISSING, "the cloud has none", cost)


def _features(offered: frozenset[Feature], facts: CloudSurvey) -> Iterator[Finding]:
    capabilities = facts.capabilities
    cards = not isinstance(capabilities, Unknown) and Capability.PUBLIC_CARDS in capabilities
    for feature, cost in _PLAIN.items():
        if feature in offered:
            yield Finding(feature.value, State.OK, "the networks have it")
            continue
        if feature is Feature.SOURCE_ADDRESSES and not cards:
            cost += "; there can be one control plane only"
        yield Finding(feature.value, State.MISSING, "the networks lack it", cost)


def _external(networks: Iterable[External]) -> Iterator[Finding]:
    named = list(networks)
    for one in named:
        subject = f"external network {one.network.name}"
        if one.free is None:
            yield Finding(subject, State.UNKNOWN, "the cloud reports free addresses to administrators only")
        elif one.free:
            yield Finding(subject, State.OK, f"{one.free:,} addresses are free")
        else:
            hint = "neither the API nor a Service gets an address: release addresses, or ask the operator for more"
            yield Finding(subject, State.MISSING, "no address is free", hint)
    if not named:
        yield Finding("external networks", State.MISSING, "there is none", "no cluster can be built: its API cannot be reached")


def _quotas(quotas: Iterable[Quota]) -> Iterator[Finding]:
    for one in sorted(quotas, key=lambda quota: quota.name):
        if one.kind is None:
            continue
        left = one.limit - one.used
        if one.limit < 0:
            yield Finding(f"quota {one.name}", State.OK, f"{one.used:,} used, no limit")
        elif left > 0:
            yield Finding(f"quota {one.name}", State.OK, f"{left:,} of {one.limit:,} are free")
        else:
            hint = "delete objects that you do not need, or ask the operator for a larger quota"
            yield Finding(f"quota {one.name}", State.MISSING, f"all {one.limit:,} are used", hint)


def _zones(zones: tuple[str, ...], of_volumes: tuple[str, ...] | Unknown) -> Iterator[Finding]:
    if not zones:
        yield Finding("zones", State.MISSING, "no zone takes machines", "ask the operator: no cluster can be built")
        return
    yield Finding("zones", State.OK, ", ".join(zones))
    if isinstance(of_volumes, Unknown):
        yield Finding("zones of volumes", State.UNKNOWN, of_volumes.why)
    elif of_volumes and (without := sorted(set(zones) - set(of_volumes))):
        # one zone for all volumes is what most clouds have: their machines attach volumes across zones
        cost = f"a claim that waits for its pod in {', '.join(without)} gets a volume of another zone, or none"
        yield Finding("zones of volumes", State.MISSING, ", ".join(of_volumes), cost)
    elif of_volumes:
        yield Finding("zones of volumes", State.OK, ", ".join(of_volumes))


def _named(subject: str, names: Iterable[str]) -> Iterator[Finding]:
    if listed := ", ".join(names):
        yield Finding(subject, State.OK, listed)


def _clock(ahead: float | None) -> Iterator[Finding]:
    if ahead is None:
        yield Finding("clock", State.UNKNOWN, "the cloud does not report its time")
    elif abs(ahead) > _CLOCKS_APART:
        where = "ahead of" if ahead > 0 else "behind"
        hint = "logins and certificates may be refused: let NTP set the clock that is wrong"
        yield Finding("clock", State.MISSING, f"the cloud's is {abs(ahead):.0f} s {where} this machine's", hint)
    else:
        yield Finding("clock", State.OK, "the cloud's and this machine's agree")


def _certificates(shown: Iterable[ServerCertificate], now: datetime) -> Iterator[Finding]:
    for one in shown:
        subject = f"certificate of {one.address}"
        if one.ends - now < _SOON:
            hint = "after that nothing reaches the service: ask the operator to renew it"
            yield Finding(subject, State.MISSING, f"ends on {one.ends:%Y-%m-%d %H:%M} UTC", hint)
        else:
            yield Finding(subject, State.OK, f"ends on {one.ends:%Y-%m-%d}")
