"""Elastic addresses: a server's public address that outlives it. NIFCLOUD puts one on a server and takes it off while the
server is stopped or reboots, so they are no floating IPs of ``cloud.capabilities``, whose machines run on.

An address has no name, and gets its description in a second call. So whoever allocates one writes down before which addresses
there were (``AddressNote``): a process that finds such a note knows the address of a call whose reply was lost, and no second
one is allocated. Where several new addresses without a description are there, nobody can say which is ours: they are listed,
and none is taken.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from moyai.cloud.nifcloud.error_codes import LostReply, NoSuchObject
from moyai.cloud.nifcloud.marks import Mark, read_mark
from moyai.cloud.nifcloud.wire import Wire
from moyai.cloud.nifcloud.wire_values import rows, text
from moyai.core.errors import Conflict, Retriable
from moyai.core.waiting import NotYet

#: Seconds in which an address whose reply was lost comes into sight.
_SIGHT_SECONDS = 30.0


@dataclass(frozen=True)
class ElasticAddress:
    """``server_id``: the server that has it now, empty for none. ``mark``: None for an address that is not moyai's."""

    address: str
    zone: str
    description: str
    server_id: str = ""

    @property
    def mark(self) -> Mark | None:
        return read_mark(self.description)


class AddressNote(Protocol):
    """Where a record keeps, across processes, which addresses there were before one was asked for."""

    def before(self) -> frozenset[str] | None:
        """None: no address is being asked for."""
        ...

    def write(self, addresses: Collection[str]) -> None: ...
    def clear(self) -> None: ...


class ElasticAddresses:
    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def all(self) -> list[ElasticAddress]:
        """The public ones."""
        found = rows(self._wire.read("DescribeAddresses"), "AddressesSet")
        return [
            ElasticAddress(
                text(one, "PublicIp"), text(one, "AvailabilityZone"), text(one, "Description"), text(one, "InstanceUniqueId")
            )
            for one in found
            if text(one, "PublicIp")
        ]

    def allocate(self, mark: Mark, *, zone: str, note: AddressNote) -> ElasticAddress:
        """The cluster's address of this name, allocated where there is none. Raises Conflict where it is not clear which one
        is."""
        words = mark.text
        if (found := next((one for one in self.all() if one.mark == mark), None)) is not None:
            note.clear()
            return found
        address = self._of_earlier_call(note, zone=zone) or self._new(note, zone=zone)
        arguments = {"PublicIp": address, "Attribute": "description", "Value": words}
        self._wire.settle(
            lambda: self._wire.change("NiftyModifyAddressAttribute", arguments, object_id=address),
            lambda: any(one.address == address and one.mark == mark for one in self.all()),
        )
        note.clear()
        return ElasticAddress(address, zone, words)

    def release(self, address: str, *, uid: str) -> None:
        """Raises Conflict for an address that is not the cluster's, or that a server has."""
        found = next((one for one in self.all() if one.address == address), None)
        if found is None:
            return
        if found.mark is None or found.mark.uid != uid:
            raise Conflict(f"address {address} is not this cluster's", object_id=address)
        if found.server_id:
            raise Conflict(f"address {address} is at server {found.server_id}", object_id=address)
        try:
            self._wire.settle(
                lambda: self._wire.change("ReleaseAddress", {"PublicIp": address}, object_id=address),
                lambda: all(one.address != address for one in self.all()),
            )
        except NoSuchObject:
            return

    def associate(self, address: str, server: str, *, reboot: bool) -> None:
        """``server``: its name in the cloud. ``reboot``: of a server that runs; without it the API refuses such a one."""
        arguments = {"PublicIp": address, "InstanceId": server, "NiftyReboot": "true" if reboot else "false"}
        self._wire.settle(
            lambda: self._wire.change("AssociateAddress", arguments, object_id=address),
            lambda: any(one.address == address and one.server_id for one in self.all()),
        )

    def disassociate(self, address: str, *, reboot: bool) -> None:
        if not any(one.address == address and one.server_id for one in self.all()):
            return
        arguments = {"PublicIp": address, "NiftyReboot": "true" if reboot else "false"}
        self._wire.settle(
            lambda: self._wire.change("DisassociateAddress", arguments, object_id=address),
            lambda: not any(one.address == address and one.server_id for one in self.all()),
        )

    def _new(self, note: AddressNote, *, zone: str) -> str:
        note.write([one.address for one in self.all()])
        try:
            answer = self._wire.change("AllocateAddress", {"Placement": {"AvailabilityZone": zone}} if zone else {})
        except LostReply:
            if address := self._come_into_sight(note, zone=zone):
                return address
            raise
        if address := text(answer, "PublicIp"):
            return address
        raise Retriable("NIFCLOUD allocated an address and does not say which")

    def _come_into_sight(self, note: AddressNote, *, zone: str) -> str:
        def look() -> str | NotYet:
            return self._of_earlier_call(note, zone=zone) or NotYet("the address that was asked for")

        try:
            return self._wire.wait(look, seconds=_SIGHT_SECONDS)
        except Conflict:
            raise
        except Retriable:
            return ""

    def _of_earlier_call(self, note: AddressNote, *, zone: str) -> str:
        """The address of a call that was noted and whose reply nobody has; empty: none came of it."""
        before = note.before()
        if before is None:
            return ""
        fresh = [
            one.address
            for one in self.all()
            if one.address not in before and not one.description and not one.server_id and zone in ("", one.zone)
        ]
        if len(fresh) > 1:
            hint = "give ours the description of its cluster in the control panel, or release those that nobody needs"
            raise Conflict(f"several addresses are new and have no description: {', '.join(fresh)}", hint=hint)
        return fresh[0] if fresh else ""
