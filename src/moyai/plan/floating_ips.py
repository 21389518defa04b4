"""The floating IP of a Service's load balancer: which one it gets, which ones it lets go. Pure.

What always holds: a floating IP that the user made is used and let go, never deleted; one that was made for the Service (its
description says so) is deleted with it unless it is to be kept; a floating IP that another port uses is neither taken nor
deleted; on a port that others use too nothing is let go but what was made for the Service, and where they go on using it that
is handed to one of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from moyai.cloud.model import FloatingIP
from moyai.core.errors import UsageError
from moyai.core.ids import KEEP_TAG


@dataclass(frozen=True)
class AddressRequest:
    """``description``: of the floating IPs that are made for the Service; ``mark``: how the descriptions begin of those that
    were, where that is less. ``address``: the one that the user asks for, empty for any. ``keep``: it outlives the Service.
    ``public`` False: the load balancer is to have none.

    ``guest``: the port's load balancer was not made here. ``shared``: other Services use it too. ``heir``: the description of
    the one among those that takes the address over, empty where there is none.
    """

    description: str
    port_id: str = ""
    address: str = ""
    keep: bool = False
    public: bool = True
    mark: str = ""
    guest: bool = False
    shared: bool = False
    heir: str = ""


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


@dataclass(frozen=True)
class HandOverAddress:
    """From now on it was made for the Service that ``description`` names."""

    id: str
    description: str


AddressChange = CreateAddress | AttachAddress | DetachAddress | DeleteAddress | KeepAddress | HandOverAddress


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
    if not request.public:
        return not _may_let_go(request, current)
    return request.address in ("", current.address)


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
        own = current is not None and _may_let_go(request, current)
        return plan_release(replace(request, shared=False), known) if own else AddressPlan()
    if current and request.address in ("", current.address):
        return AddressPlan(_keep(request, current), current.address)
    if current and (request.shared or not _may_let_go(request, current)):
        raise UsageError(
            f"the load balancer has the address {current.address}, which is not this Service's alone",
            hint=f"ask for no other than {current.address}, or leave load-balancer-id out",
        )
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
        own, here = _made_for(request, found), bool(request.port_id) and found.port_id == request.port_id
        if own and (not found.port_id or (here and not request.shared)) and not request.keep:
            changes.append(DeleteAddress(found.id))
        elif own and here and request.shared and request.heir and not request.keep:
            changes.append(HandOverAddress(found.id, request.heir))
        elif own or (here and _may_let_go(request, found)):
            kept.append(found.address)
            changes += _keep(request, found)
            if here and not request.shared:
                changes.append(DetachAddress(found.id))
    return AddressPlan(tuple(changes), kept=tuple(kept))


def _may_let_go(request: AddressRequest, attached: FloatingIP) -> bool:
    """Of what is on the port: all of it where the port is the Service's alone, else what was made for the Service."""
    return _made_for(request, attached) or not (request.shared or request.guest)


def _on_port(request: AddressRequest, observed: Iterable[FloatingIP]) -> FloatingIP | None:
    return next((one for one in observed if one.port_id and one.port_id == request.port_id), None)


def _made_for(request: AddressRequest, found: FloatingIP) -> bool:
    return found.description.startswith(request.mark) if request.mark else found.description == request.description


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
