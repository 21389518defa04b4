"""What a Service of type LoadBalancer asks of NIFCLOUD: its annotations and ports, read into an order for a load balancer.

Pure. Names of annotations, their values and the name of a load balancer are those of the cloud's own controller manager, so
that either of the two carries on what the other one made. Two things differ: what is not allowed is refused with all the
reasons, and a setting that an annotation does not name and that costs money (volume, accounting) stays as it is found.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network, ip_network

from moyai.cloud.nifcloud.balancer_model import ROUND_ROBIN, BalancerArm, HealthCheck, PairBalancer, PortPair, problems
from moyai.cloud.nifcloud.marks import NAME_LENGTH
from moyai.cloud.nifcloud.nic_plans import GIVEN_NETWORKS, PUBLIC, SHARED_PRIVATE
from moyai.cloud.nifcloud.nifcloud_limits import ELB, L4, BalancerLimits, Terms
from moyai.cloud.service_balancers import ServiceToServe
from moyai.core.errors import UsageError

PREFIX = "service.beta.kubernetes.io/nifcloud-load-balancer-"
_LAN = re.compile(r"net-[0-9A-Za-z]+")
_POLICIES = ("standard", "ats")
_ARM_SUFFIXES = tuple(
    f"network-interface-{number}-{what}" for number in (1, 2) for what in ("network-id", "ip-address", "system-ip-addresses")
)
#: Of both types of load balancers; of each alone.
_COMMON = (
    "type",
    "network-volume",
    "accounting-type",
    "balancing-type",
    "healthcheck-protocol",
    "healthcheck-unhealthy-threshold",
    "healthcheck-interval",
)
_OWN = {L4.name: ("policy-type",), ELB.name: (*_ARM_SUFFIXES, "vip-network")}


@dataclass(frozen=True)
class BalancerOrder:
    """``pairs``: without members. ``volume``, ``accounting`` None: as it is, or the account's usual one for a new load
    balancer. ``policy``: ``lb`` alone; ``arms``: ``elb`` alone."""

    limits: BalancerLimits
    pairs: tuple[PortPair, ...]
    volume: int | None = None
    accounting: str | None = None
    policy: str = "standard"
    arms: tuple[BalancerArm, ...] = ()


def balancer_name(uid: str) -> str:
    """The first 15 hexadecimal digits of the Service's UID."""
    return uid.replace("-", "")[:NAME_LENGTH]


def unknown_annotations(annotations: Mapping[str, str]) -> list[str]:
    """Those with the prefix that have no effect on a load balancer of the type that is asked for."""
    own = _OWN.get(annotations.get(f"{PREFIX}type", L4.name).strip(), ())
    known = {f"{PREFIX}{suffix}" for suffix in (*_COMMON, *own)}
    return sorted(key for key in annotations if key.startswith(PREFIX) and key not in known)


def read_order(service: ServiceToServe) -> BalancerOrder:
    """Raises UsageError with all that is wrong."""
    reader = _AnnotationReader(service.annotations)
    order = reader.order(service)
    wrong = list(reader.wrong)
    if service.asked_address:
        wrong.append(f"spec.loadBalancerIP is {service.asked_address}, and NIFCLOUD chooses the address of a load balancer")
    # a zone is found when the load balancer is made
    shape = PairBalancer("", order.pairs, policy=order.policy, zone="any", arms=order.arms)
    # a volume that is not named, or not understood, is no reason
    wrong += [one for one in problems(shape, order.limits) if one not in wrong]
    if wrong:
        raise UsageError(f"Service {service.key}: {'; '.join(wrong)}")
    return order


def wanted_balancer(
    order: BalancerOrder, *, name: str, members: Collection[str], zone: str, terms: Terms, found: PairBalancer | None
) -> PairBalancer:
    """``found``: the load balancer of this name and type. What it has and cannot change stays."""
    usual = PairBalancer(name, (), accounting=terms.accounting, policy=order.policy, zone=zone, arms=order.arms)
    base = found or usual
    return PairBalancer(
        name,
        tuple(_with_members(one, frozenset(members)) for one in order.pairs),
        volume=base.volume if order.volume is None else order.volume,
        accounting=base.accounting if order.accounting is None else order.accounting,
        policy=base.policy,
        zone=base.zone or zone,
        arms=order.arms,
    )


def lasting(order: BalancerOrder, found: PairBalancer) -> list[str]:
    """What of an order an existing load balancer cannot become, in words for its user."""
    kept: list[str] = []
    if order.limits is L4 and order.policy != found.policy:
        kept.append(f"policy type {found.policy} (asked for: {order.policy})")
    if order.limits is ELB and not _same_arms(order.arms, found.arms):
        kept.append(f"networks {_arms_in_words(found.arms)} (asked for: {_arms_in_words(order.arms)})")
    return kept


def _same_arms(wanted: Collection[BalancerArm], found: Collection[BalancerArm]) -> bool:
    def facts(arms: Collection[BalancerArm]) -> set[object]:
        # in a network that gives addresses, those that are found were not asked for; with one arm, the VIP is on it
        return {
            (one.network, one.vip or len(arms) == 1)
            if one.network in GIVEN_NETWORKS
            else (one.network, one.vip or len(arms) == 1, one.address, frozenset(one.system_addresses))
            for one in arms
        }

    return facts(wanted) == facts(found)


def _arms_in_words(arms: Collection[BalancerArm]) -> str:
    words = (" ".join((one.network, one.address, *sorted(one.system_addresses))).rstrip() for one in arms)
    return ", ".join(sorted(words)) or "none"


def _with_members(pair: PortPair, members: frozenset[str]) -> PortPair:
    return PortPair(
        pair.protocol, pair.port, pair.node_port, pair.check, members=members, balancing=pair.balancing, allowed=pair.allowed
    )


class _AnnotationReader:
    """Reads annotations and collects what is wrong with them in ``wrong``."""

    def __init__(self, annotations: Mapping[str, str]) -> None:
        self._annotations = annotations
        self.wrong: list[str] = []

    def order(self, service: ServiceToServe) -> BalancerOrder:
        limits = ELB if self._one_of("type", (L4.name, ELB.name), default=L4.name) == ELB.name else L4
        least, most = limits.interval
        few, many = limits.threshold
        protocol = self._one_of("healthcheck-protocol", ("TCP", "ICMP"), default="TCP")
        interval = self._between("healthcheck-interval", least, most=most) or 10
        threshold = self._between("healthcheck-unhealthy-threshold", few, most=many) or 1
        balancing = int(self._one_of("balancing-type", ("1", "2"), default=str(ROUND_ROBIN)))
        allowed = frozenset(self._ranges(service.source_ranges))
        volume = self._one_of("network-volume", tuple(map(str, limits.volumes)), default="")
        pairs = tuple(
            PortPair(
                one.protocol,
                one.port,
                one.node_port,
                HealthCheck("ICMP" if protocol == "ICMP" else f"TCP:{one.node_port}", interval, threshold),
                balancing=balancing,
                allowed=allowed,
            )
            for one in service.ports
        )
        self.wrong += [
            f"port {one.port} is {one.protocol}, and load balancers of NIFCLOUD carry TCP for Services"
            for one in service.ports
            if one.protocol != "TCP" and limits.udp
        ]
        return BalancerOrder(
            limits,
            pairs,
            volume=int(volume) if volume else None,
            accounting=self._one_of("accounting-type", ("1", "2"), default="") or None,
            policy=self._one_of("policy-type", _POLICIES, default=_POLICIES[0]) if limits is L4 else _POLICIES[0],
            arms=tuple(self._arms()) if limits is ELB else (),
        )

    def _text(self, suffix: str) -> str:
        return self._annotations.get(f"{PREFIX}{suffix}", "").strip()

    def _is_not(self, suffix: str, right: str) -> None:
        self.wrong.append(f"annotation {PREFIX}{suffix} is {self._text(suffix)!r}, and must be {right}")

    def _one_of(self, suffix: str, values: tuple[str, ...], *, default: str) -> str:
        text = self._text(suffix)
        if text and text not in values:
            self._is_not(suffix, f"one of {', '.join(values)}")
        return text if text in values else default

    def _between(self, suffix: str, least: int, *, most: int) -> int | None:
        text = self._text(suffix)
        if not text:
            return None
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else -1
        if not least <= number <= most:
            self._is_not(suffix, f"a number from {least} to {most}")
            return None
        return number

    def _ranges(self, ranges: Collection[str]) -> Iterator[str]:
        """As the cloud writes them. None where everybody is let in."""
        found: list[str] = []
        for one in ranges:
            try:
                network = ip_network(one.strip(), strict=False)
            except ValueError:
                self.wrong.append(f"source range {one!r} is no CIDR")
                continue
            if not isinstance(network, IPv4Network):
                self.wrong.append(f"source range {one} is of IPv6, and load balancers of NIFCLOUD are made with IPv4")
            elif network.prefixlen == 0:
                return
            else:
                found.append(str(network.network_address) if network.prefixlen == 32 else str(network))
        yield from found

    def _arms(self) -> Iterator[BalancerArm]:
        second = any(self._text(suffix) for suffix in _ARM_SUFFIXES if "-2-" in suffix)
        vip = self._one_of("vip-network", ("1", "2"), default="1")
        if vip == "2" and not second:
            self._is_not("vip-network", "1, because there is no second network interface")
        arms = [self._arm(number, vip=vip == str(number)) for number in ((1, 2) if second else (1,))]
        if len({one.network for one in arms}) < len(arms):
            self._is_not("network-interface-2-network-id", "another network than that of the first network interface")
        yield from arms

    def _arm(self, number: int, *, vip: bool) -> BalancerArm:
        at = f"network-interface-{number}"
        network = self._text(f"{at}-network-id") or PUBLIC
        if network not in GIVEN_NETWORKS and not _LAN.fullmatch(network):
            self._is_not(f"{at}-network-id", f"{PUBLIC}, {SHARED_PRIVATE}, or the id of a private LAN (net-…)")
        addresses = self._addresses(f"{at}-ip-address", lambda count: count == 1, right="one IPv4 address")
        system = self._addresses(
            f"{at}-system-ip-addresses", lambda count: count == 2, right="two IPv4 addresses with a comma between them"
        )
        if len({*addresses, *system}) < len(addresses) + len(system):
            self._is_not(f"{at}-system-ip-addresses", f"two addresses that differ from each other and from {at}-ip-address")
        return BalancerArm(network, addresses[0] if addresses else "", system, vip)

    def _addresses(self, suffix: str, fits: Callable[[int], bool], *, right: str) -> tuple[str, ...]:
        text = self._text(suffix)
        if not text:
            return ()
        words = [one.strip() for one in text.split(",")]
        try:
            found = tuple(str(IPv4Address(one)) for one in words)
        except AddressValueError:
            found = ()
        if not fits(len(found)):
            self._is_not(suffix, right)
        return found
