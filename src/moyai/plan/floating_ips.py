"""The floating IP of a Service's load balancer: which one it gets, which ones it lets go. Pure.

What always holds: a floating IP that the user made is used and let go, never deleted; one that was made for the Service (its
description says so) is deleted with it unless it is to be kept; a floating IP that another port uses is never taken.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from moyai.cloud.model import FloatingIP
from moyai.core.errors import UsageError
from moyai.core.ids import KEEP_TAG


@dataclass(frozen=True)
class AddressRequest:
    """``description``: marks the floating IPs that were made for the Service. ``address``: the one that the user asks for,
    empty for any. ``keep``: it outlives the Service. ``public`` False: the load balancer is to have none."""

    description: str
    port_id: str = ""
    address: str = ""
    keep: bool = False
    public: bool = True


@dataclass(frozen=True)
class CreateAddress:
    port_id: str
    address: str


@dataclass(frozen=True)
class AttachAddress:
    id: str
    port_id: str


@dataclass(frozen=True)
class DetachAddress:
    id: str


@dataclass(frozen=True)
class DeleteAddress:
    id: str


@dataclass(frozen=True)
class KeepAddress:
    """Mark it as one that outlives its Service."""

    id: str


AddressChange = CreateAddress | AttachAddress | DetachAddress | DeleteAddress | KeepAddress


@dataclass(frozen=True)
class AddressPlan:
    """``address``: the load balancer's after the changes; empty for none, and for one that the cloud has yet to choose.
    ``kept``: addresses that are let go without being deleted."""

    changes: tuple[AddressChange, ...] = ()
    address: str = ""
    kept: tuple[str, ...] = ()


def is_settled(request: AddressRequest, attached: Iterable[FloatingIP]) -> bool:
    """Whether what is attached to the load balancer's port decides: then no other floating IP need be known."""
    current = _on_port(request, attached)
    if current is None:
        return not request.public
    return request.public and request.address in ("", current.address)


def must_be_fresh(request: AddressRequest, known: Iterable[FloatingIP]) -> bool:
    """Whether a list that is some seconds old may mislead: the user may have made the address that he asks for a moment ago,
    and one of the Service's own is free as soon as the port that the list shows it on is deleted."""
    elsewhere = any(_made_for(request, one) and one.port_id not in ("", request.port_id) for one in known)
    return bool(request.address) or elsewhere


def plan_address(request: AddressRequest, observed: Iterable[FloatingIP]) -> AddressPlan:
    """``observed``: those on the port, and unless they settle it (``is_settled``) all of the project."""
    known = list(observed)
    current = _on_port(request, known)
    if not request.public:
        return plan_release(request, known) if current else AddressPlan()
    if current and request.address in ("", current.address):
        return AddressPlan(_keep(request, current), current.address)
    chosen = _choose(request, known)
    released = plan_release(request, [one for one in known if one != chosen]) if current else AddressPlan()
    if chosen is None:
        created = CreateAddress(request.port_id, request.address)
        return AddressPlan((*released.changes, created), request.address, released.kept)
    attached = AttachAddress(chosen.id, request.port_id)
    return AddressPlan((*released.changes, attached, *_keep(request, chosen)), chosen.address, released.kept)


def plan_release(request: AddressRequest, observed: Iterable[FloatingIP]) -> AddressPlan:
    """Let go of everything that the Service has."""
    changes: list[AddressChange] = []
    kept: list[str] = []
    for found in observed:
        own = _made_for(request, found)
        if not (own or (request.port_id and found.port_id == request.port_id)):
            continue
        if own and not request.keep:
            changes.append(DeleteAddress(found.id))
            continue
        kept.append(found.address)
        changes += _keep(request, found)
        if found.port_id:
            changes.append(DetachAddress(found.id))
    return AddressPlan(tuple(changes), kept=tuple(kept))


def _on_port(request: AddressRequest, observed: Iterable[FloatingIP]) -> FloatingIP | None:
    return next((one for one in observed if one.port_id and one.port_id == request.port_id), None)


def _made_for(request: AddressRequest, found: FloatingIP) -> bool:
    return found.description == request.description


def _choose(request: AddressRequest, known: Iterable[FloatingIP]) -> FloatingIP | None:
    """The one that the user asks for, or one that is left over from an earlier load balancer of the Service."""
    if not request.address:
        return next((one for one in known if not one.port_id and _made_for(request, one)), None)
    named = next((one for one in known if one.address == request.address), None)
    if named and named.port_id:
        raise UsageError(
            f"floating IP {request.address} is in use by port {named.port_id}",
            hint="ask for one that is free in spec.loadBalancerIP",
        )
    return named


def _keep(request: AddressRequest, found: FloatingIP) -> tuple[AddressChange, ...]:
    wanted = request.keep and _made_for(request, found) and KEEP_TAG not in found.tags
    return (KeepAddress(found.id),) if wanted else ()
