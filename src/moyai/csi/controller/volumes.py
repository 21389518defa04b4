"""The controller's work on volumes: make, delete, attach, detach, extend.

What always holds:

- Each operation can be begun again at any time, by any process: it looks at the present state and goes on from it. A volume is
  found again by its name among those of this cluster, so that none is made twice.
- Serial for a volume (by name while it is made, by id afterwards), parallel otherwise.
- An operation returns when the cloud says that it is done, not when the cloud has accepted it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from moyai.cloud.model import DiskState, Power, Snapshot, Volume, VolumeType
from moyai.core.backoff import Backoff
from moyai.core.errors import Conflict, MoyaiError, NotFound, Retriable, SizeRefused, Terminal
from moyai.core.waiting import NotYet, auntil
from moyai.csi.access_modes import VolumeAccess, check
from moyai.csi.controller import decide, zones
from moyai.csi.controller.cloud_view import CloudView
from moyai.csi.errors import Refused, refusal
from moyai.csi.grpc.serial import Serial
from moyai.csi.volume_sizes import Range, choose_gb, refused_by_type

R = TypeVar("R")

_log = logging.getLogger(__name__)

#: Seconds that one call of a side-car may take; its next try goes on where this one ended.
PATIENCE = 100.0
_AGAIN = Backoff(base=0.5, ceiling=5.0)


@dataclass(frozen=True)
class VolumeRequest:
    """A volume to provision. ``preferred``, ``requisite``: zones of machines; ``availability``: a zone of volumes."""

    name: str
    accesses: tuple[VolumeAccess, ...]
    size: Range = field(default_factory=Range)
    type_name: str = ""
    availability: str = ""
    preferred: Sequence[str] = ()
    requisite: Sequence[str] = ()
    snapshot_id: str = ""
    source_volume_id: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class ProvisionedVolume:
    """``machine_zones``: where machines can use it; empty: everywhere."""

    volume: Volume
    machine_zones: tuple[str, ...]


class VolumeWork:
    """``limit``: volumes a machine may have. ``step_gb``: volumes have whole multiples of it."""

    def __init__(
        self, cloud: CloudView, *, limit: int, step_gb: int = 1, patience: float = PATIENCE, again: Backoff = _AGAIN
    ) -> None:
        self._step_gb = step_gb
        self._cloud, self._limit, self._patience, self._again = cloud, limit, patience, again
        self.serial = Serial()
        #: Volume → machine, of each attach that runs in this process.
        self._attaching: dict[str, str] = {}

    # ---- make

    async def create(self, wanted: VolumeRequest) -> ProvisionedVolume:
        check(wanted.accesses)
        return await self.serial.run(f"name/{wanted.name}", lambda: self._create(wanted))

    async def _create(self, asked: VolumeRequest) -> ProvisionedVolume:
        wanted = await self._with_type(asked)
        own = await self._cloud.own_volumes()
        named = [one for one in own if one.name == wanted.name]
        volume = decide.oldest(named)
        if volume and volume.state.broken and not volume.attached_server_ids:
            # a volume that an earlier try left; that try returned its error
            await self._remove(volume.id)
            volume = None
        if volume:
            decide.adopt(
                volume,
                size=wanted.size,
                type_name=wanted.type_name,
                snapshot_id=wanted.snapshot_id,
                source_volume_id=wanted.source_volume_id,
            )
        else:
            volume = await self._make(wanted)
        try:
            ready = decide.created(volume) or await self._wait(
                volume.id, decide.created, what=f"volume {wanted.name} to be made"
            )
        except Refused as error:
            if error.code == "INTERNAL":
                raise await self._failed(volume, error) from error
            raise
        zone_map = await self._cloud.zone_map()
        return ProvisionedVolume(ready, zone_map.for_volumes(ready.zone) if ready.zone else ())

    async def _make(self, wanted: VolumeRequest) -> Volume:
        zone_map, source = await asyncio.gather(self._cloud.zone_map(), self._source(wanted))
        least, source_zone = (source.size_gb, await self._zone_of(source)) if source else (1, "")
        size = choose_gb(wanted.size, least_gb=least, step_gb=self._step_gb)
        place = zones.choose(
            zone_map,
            preferred=wanted.preferred,
            requisite=wanted.requisite,
            availability=wanted.availability,
            source=source_zone,
        )
        try:
            return await self._cloud.call(
                self._cloud.disks.create_volume,
                name=wanted.name,
                size_gb=size,
                zone=place.zone,
                type_name=wanted.type_name,
                metadata={**wanted.metadata, **self._cloud.mark},
                snapshot_id=wanted.snapshot_id,
                source_volume_id=wanted.source_volume_id,
            )
        except SizeRefused as error:
            raise refused_by_type(error, type_name=wanted.type_name, size_gb=size) from error

    async def _source(self, wanted: VolumeRequest) -> Volume | Snapshot | None:
        calls = self._cloud.disks
        try:
            if wanted.snapshot_id:
                snapshot = await self._cloud.call(calls.snapshot, wanted.snapshot_id)
                if snapshot.state is not DiskState.AVAILABLE:
                    raise Refused("UNAVAILABLE", f"snapshot {snapshot.id} is not ready: it is in {snapshot.status}")
                return snapshot
            if wanted.source_volume_id:
                return await self._cloud.call(calls.volume, wanted.source_volume_id)
        except NotFound as error:
            raise Refused("NOT_FOUND", f"the source of the copy does not exist: {error}") from error
        return None

    async def _zone_of(self, source: Volume | Snapshot) -> str:
        if isinstance(source, Volume):
            return source.zone
        try:
            return (await self._cloud.call(self._cloud.disks.volume, source.volume_id)).zone
        except NotFound:
            # some clouds let a snapshot outlive its volume; then they know themselves where to put the copy
            return ""

    async def _with_type(self, wanted: VolumeRequest) -> VolumeRequest:
        """With the type's name, which may be given as its id; INVALID_ARGUMENT where it does not fit."""
        several = any(access.several for access in wanted.accesses)
        if not (wanted.type_name or several):
            return wanted
        known = await self._cloud.volume_types()
        chosen = await self._type(wanted.type_name) if wanted.type_name else None
        if several and (chosen is None or chosen.multiattach is False):
            fit = [name for name, one in known.items() if one.multiattach]
            hint = f"one of {_words(fit)}" if fit else "one whose extra spec multiattach is true"
            raise Refused(
                "INVALID_ARGUMENT",
                f"volumes of the type {wanted.type_name or '(default)'} are for one node at a time; for several, the "
                f"StorageClass needs the parameter type: {hint}",
            )
        return replace(wanted, type_name=chosen.name) if chosen else wanted

    async def _failed(self, volume: Volume, error: Refused) -> Refused:
        """The error for a volume that the cloud could not make. The volume is deleted, so that the next try begins again."""
        faults = await self._cloud.call(self._cloud.disks.faults, volume.id)
        try:
            await self._remove(volume.id)
        except (MoyaiError, Refused) as left:
            _log.warning("volume %s (%s), which the cloud could not make, is still there: %s", volume.id, volume.name, left)
        words = f"the cloud could not make volume {volume.name}: {faults[0] if faults else error.message}"
        return Refused("RESOURCE_EXHAUSTED" if faults else "INTERNAL", words)

    async def _remove(self, volume_id: str) -> None:
        await self._cloud.call(self._cloud.disks.delete_volume, volume_id)
        await self._wait(volume_id, decide.deleted, what=f"volume {volume_id} to go")

    # ---- delete

    async def delete(self, volume_id: str) -> None:
        await self.serial.run(volume_id, lambda: self._delete(volume_id))

    async def _delete(self, volume_id: str) -> None:
        volume = await self.find(volume_id)
        if volume is None:
            return
        if self._cloud.is_others(volume.metadata):
            raise Refused("FAILED_PRECONDITION", f"volume {volume_id} belongs to another cluster and is not deleted")
        if why := decide.deletion_refusal(volume, ()):
            raise why
        if volume.state is not DiskState.DELETING:
            try:
                await self._cloud.call(self._cloud.disks.delete_volume, volume_id)
            except (Terminal, Conflict) as error:
                snapshots = await self._cloud.call(self._cloud.disks.snapshots, volume_id=volume_id)
                raise (decide.deletion_refusal(volume, snapshots) or refusal(error)) from error
        await self._wait(volume_id, decide.deleted, what=f"volume {volume_id} to go")

    # ---- attach, detach

    async def attach(self, volume_id: str, server_id: str, *, access: VolumeAccess) -> bool:
        """True if the machine was the only one that had the volume once it was attached, as asked for by the several readers
        of one volume (see ``node.mounting``); no later machine gets this answer while this one has the volume."""
        return await self.serial.run(volume_id, lambda: self._attach_and_look(volume_id, server_id, access=access))

    async def _attach_and_look(self, volume_id: str, server_id: str, *, access: VolumeAccess) -> bool:
        await self._attach(volume_id, server_id, several=access.several)
        if not (access.several and access.read_only) or access.block:
            return False
        # after the attachment, and from the cloud: of two processes that attach at once, at most one sees itself alone
        return set((await self._look(volume_id)).attached_server_ids) == {server_id}

    async def _attach(self, volume_id: str, server_id: str, *, several: bool) -> None:
        try:
            volume, server = await asyncio.gather(self._look(volume_id), self._cloud.machine(server_id))
        except NotFound as error:
            raise Refused("NOT_FOUND", f"volume {volume_id} or machine {server_id} is not there: {error}") from error

        def next_step() -> decide.Attach:
            attaching = self._attaching_to(server_id)
            return decide.attach(volume, server, several=several, attaching=attaching, limit=self._limit)

        step = next_step()
        if step == "wait":
            settled = await self._wait(volume_id, decide.settled, what=f"volume {volume_id} to settle")
            if settled == "gone":
                raise Refused("NOT_FOUND", f"volume {volume_id} is gone")
            volume = settled
            step = next_step()
        if step == "done":
            return
        # decided and noted without a pause in between, so that no two calls decide on the same state
        self._attaching[volume_id] = server_id
        try:
            await self._ask_to_attach(volume_id, server_id)
            outcome = await self._wait(
                volume_id, lambda seen: decide.attached(seen, server_id), what=f"volume {volume_id} on machine {server.name}"
            )
        finally:
            del self._attaching[volume_id]
        if outcome == "failed":
            raise Refused("INTERNAL", f"the cloud did not attach volume {volume_id} to machine {server.name} ({server.status})")

    def _attaching_to(self, server_id: str) -> set[str]:
        return {volume for volume, server in self._attaching.items() if server == server_id}

    async def _ask_to_attach(self, volume_id: str, server_id: str) -> None:
        try:
            await self._cloud.call(self._cloud.machines.attach_volume, server_id, volume_id)
        except NotFound:
            raise
        except (Terminal, Conflict) as error:
            # an earlier call of ours may have got through although its answer did not
            seen = await self.find(volume_id)
            if seen is None or (server_id not in seen.attached_server_ids and seen.state is not DiskState.ATTACHING):
                raise
            _log.info("volume %s is on its way to %s already: %s", volume_id, server_id, error)

    async def detach(self, volume_id: str, server_id: str) -> None:
        """``server_id`` empty: from every machine. A volume or a machine that is gone is success."""
        await self.serial.run(volume_id, lambda: self._detach(volume_id, server_id))

    async def _detach(self, volume_id: str, server_id: str) -> None:
        volume = await self.find(volume_id)
        asked: set[str] = set()

        async def come_free() -> Literal["free"] | NotYet:
            nonlocal volume
            if volume is not None and decide.detach(volume, server_id) == "detach":
                await self._take_off(volume, server_id, asked=asked)
            if decide.detach(volume, server_id) != "done":
                seen = await self._wait(volume_id, decide.settled, what=f"volume {volume_id} to be detached")
                volume = None if seen == "gone" else seen
            if volume is None or decide.detach(volume, server_id) == "done":
                return "free"
            return NotYet(f"it is in {volume.status}")

        def late(last: NotYet) -> Refused:
            return Refused("DEADLINE_EXCEEDED", f"volume {volume_id} is not detached: {last.missing}")

        await auntil(come_free, clock=self._cloud.clock, timeout=self._patience, pause=self._again, retry=(), late=late)

    async def _take_off(self, volume: Volume, server_id: str, *, asked: set[str]) -> None:
        """Ask for the end of the attachments to the machine (empty: to any); ``asked``: machines that were asked before."""
        for one in [one for one in volume.attachments if server_id in ("", one.server_id)]:
            if one.server_id in asked and await self._server_gone(one.server_id):
                # the machine went without giving the volume back
                await self._cloud.call(self._cloud.disks.forget_attachment, one.id)
            else:
                await self._ask_to_detach(volume.id, one.server_id)
                asked.add(one.server_id)

    async def _ask_to_detach(self, volume_id: str, server_id: str) -> None:
        try:
            await self._cloud.call(self._cloud.machines.detach_volume, server_id, volume_id)
        except (Terminal, Retriable) as error:
            # a machine that is being started, stopped or deleted refuses for a moment; what the next look shows decides
            _log.info("detaching volume %s from %s: %s", volume_id, server_id, error)

    async def _server_gone(self, server_id: str) -> bool:
        try:
            server = await self._cloud.call(self._cloud.machines.server, server_id)
        except NotFound:
            return True
        return server.power is Power.GONE

    # ---- extend, look

    async def extend(self, volume_id: str, wanted: Range) -> Volume:
        return await self.serial.run(volume_id, lambda: self._extend(volume_id, wanted))

    async def _extend(self, volume_id: str, wanted: Range) -> Volume:
        volume = await self._cloud.call(self._cloud.disks.volume, volume_id)
        size = choose_gb(wanted, least_gb=1, step_gb=self._step_gb)
        if volume.size_gb >= size:
            return volume
        if volume.state is not DiskState.EXTENDING:
            try:
                await self._cloud.call(self._cloud.disks.extend_volume, volume_id, size)
            except SizeRefused as error:
                raise refused_by_type(error, type_name=volume.type_name, size_gb=size, grows=True) from error
        grown = await self._wait(volume_id, lambda seen: decide.extended(seen, size), what=f"volume {volume_id} to grow")
        if grown.size_gb < size:
            raise Refused("ABORTED", f"volume {volume_id} was extended to {grown.size_gb} GiB meanwhile")
        return grown

    async def change_type(self, volume_id: str, type_name: str) -> None:
        """Give the volume another type, which may be named by its id. INVALID_ARGUMENT where the cloud has no such type,
        FAILED_PRECONDITION, in the cloud's words, where the volume cannot have it now."""
        await self.serial.run(volume_id, lambda: self._change_type(volume_id, type_name))

    async def _change_type(self, volume_id: str, type_name: str) -> None:
        volume = await self._look(volume_id)
        chosen = await self._type(type_name)
        if volume.type_name == chosen.name:
            return
        if volume.state is not DiskState.BUSY:
            try:
                await self._cloud.call(self._cloud.disks.change_volume_type, volume_id, chosen.name)
            except SizeRefused as error:
                raise refused_by_type(error, type_name=chosen.name, size_gb=volume.size_gb, grows=True) from error
            except NotFound:
                raise
            except Terminal as error:
                raise Refused("FAILED_PRECONDITION", str(error)) from error
        try:
            await self._wait(
                volume_id, lambda seen: decide.retyped(seen, chosen.name), what=f"volume {volume_id} to change its type"
            )
        except Refused as error:
            faults = await self._cloud.call(self._cloud.disks.faults, volume_id) if error.code == "INTERNAL" else []
            raise Refused(error.code, f"{error.message}: {faults[0]}") if faults else error from error

    async def _type(self, type_name: str) -> VolumeType:
        """The type of a name or an id. INVALID_ARGUMENT where the cloud has none."""
        known = await self._cloud.volume_types()
        chosen = next((one for one in known.values() if type_name in (one.name, one.id)), None)
        if chosen is None:
            self._cloud.forget_volume_types()
            raise Refused("INVALID_ARGUMENT", f"the cloud has no volume type {type_name!r}: there are {_words(known)}")
        return chosen

    async def find(self, volume_id: str) -> Volume | None:
        try:
            return await self._cloud.call(self._cloud.disks.volume, volume_id)
        except NotFound:
            return None

    async def _look(self, volume_id: str) -> Volume:
        """The volume as it is now, seen in one look with all that others wait for. Raises NotFound."""
        (seen,) = await self._wait(volume_id, lambda volume: (volume,), what=f"a look at volume {volume_id}")
        if seen is None:
            raise NotFound(f"volume {volume_id} is not there")
        return seen

    async def _wait(self, volume_id: str, done: Callable[[Volume | None], R | None], *, what: str) -> R:
        return await self._cloud.volume_poller.until(volume_id, done, within=self._patience, what=what)


def _words(names: Mapping[str, object] | Sequence[str]) -> str:
    return ", ".join(sorted(names)) or "none"
