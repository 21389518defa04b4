"""A cluster's ranges against the cloud's own addresses, and against this host's.

Always holds: a cluster that exists keeps its ranges; a new one is refused, before anything is made, where its nodes or pods
would take an address of the cloud for one of their own. What the cloud does not show cannot be compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network

from moyai.core.errors import UsageError
from moyai.plan.cluster.situation import Situation

#: What the C library of a machine takes from resolv.conf, and kubelet hands to pods.
MOST_NAME_SERVERS = 3
_ADDRESS_IN_URL = re.compile(r"[a-z]+://([0-9.]+)(?:[:/]|$)")


def check_ranges(now: Situation) -> None:
    """Raises UsageError for a range of a new cluster that is the cloud's own, and for name servers that nobody would ask."""
    if now.existing.subnet is not None and (now.given.subnet is None or now.recorded.intended):
        check_further_ranges(now)
        return
    network = now.spec.network
    if len(network.dns) > MOST_NAME_SERVERS:
        raise UsageError(
            f"spec.network.dns: {len(network.dns)} name servers, should be at most {MOST_NAME_SERVERS}: "
            "a machine's resolv.conf takes no more"
        )
    check_further_ranges(now)
    foreign = tuple(_foreign(now))
    for field, cidr in network.ranges.items():
        for other, meaning in foreign:
            if cidr.overlaps(other) and not (field == "nodeCIDR" and now.given.subnet is not None):
                raise UsageError(f"spec.network.{field}: '{cidr}', should be apart from {other}, {meaning}")


def check_further_ranges(now: Situation) -> None:
    """Of networks beside the cluster's own that are yet to be made."""
    for number, one in enumerate(now.spec.networks):
        for other, meaning in _foreign(now) if one.name not in now.existing.subnets else ():
            if one.cidr.overlaps(other):
                raise UsageError(f"spec.networks[{number}].cidr: '{one.cidr}', should be apart from {other}, {meaning}")


def reach_notes(now: Situation) -> Iterator[str]:
    """What shuts this host out, as far as it is known."""
    network = now.choices.external_network
    address = now.observed.host_addresses.get(network.id, "") if network else ""
    if network is None or not address or _is_translated(now, network.id, address=IPv4Address(address)):
        return
    access = now.spec.access
    for field, ranges, what in (
        ("apiCIDRs", access.api_cidrs, "`up` waits for the API until its time is over, and no command reaches it"),
        ("sshCIDRs", access.ssh_cidrs, "`moyai ssh` does not get through"),
    ):
        if ranges and not any(IPv4Address(address) in cidr for cidr in ranges):
            yield (
                f"spec.access.{field} leaves out {address}, this host's address on the way to network {network.name}: unless "
                f"the cloud sees this host at another address, {what}"
            )


def _foreign(now: Situation) -> Iterator[tuple[IPv4Network, str]]:
    """Ranges of the cloud that the cluster's machines must reach, each with its meaning."""
    networks = (now.choices.external_network, now.choices.floating_network)
    outside = {network.id: network.name for network in networks if network is not None}
    for identity, name in outside.items():
        for cidr in _subnets(now, identity):
            yield cidr, f"a subnet of network {name}"
    for floating_ip in now.observed.floating_ips:
        with suppress(ValueError):
            if floating_ip.network_id in outside:
                yield IPv4Network(floating_ip.address), f"a floating address of network {outside[floating_ip.network_id]}"
    account, cloud = now.observed.account, now.spec.cloud
    for url, what in (
        (account.login_url, "where the APIs of cloud {} are"),
        (account.image_mirror, "the image mirror of cloud {}"),
    ):
        # a name may lead to several addresses, and elsewhere tomorrow
        with suppress(ValueError):
            yield IPv4Network(_host(url)), what.format(cloud)


def _host(url: str) -> str:
    """The host of a URL where it is an IPv4 address, else nothing."""
    found = _ADDRESS_IN_URL.match(url)
    return found[1] if found else ""


def _is_translated(now: Situation, network_id: str, *, address: IPv4Address) -> bool:
    """Whether the cloud certainly sees another address: a private one does not get to a public network, nor the other way."""
    ranges = tuple(_subnets(now, network_id))
    return bool(ranges) and all(cidr.is_private != address.is_private for cidr in ranges)


def _subnets(now: Situation, network_id: str) -> Iterator[IPv4Network]:
    for subnet in now.observed.subnets:
        if subnet.network_id == network_id:
            # a subnet may be of IPv6
            with suppress(ValueError):
                yield IPv4Network(subnet.cidr)
