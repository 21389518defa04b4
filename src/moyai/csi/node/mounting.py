"""A device becomes a mounted file system: made where the device is empty, checked, grown, its journal replayed, mounted.

What always holds:

- A device is formatted only if it is empty. A device with a damaged or unknown content is refused with a message and is not
  changed.
- Readers on several machines never see a file system whose journal still holds what a writer had synced, and never see a file
  system change under them. Such a mount neither replays nor writes (``noload``, ``norecovery``), so it is made only when the
  journal is settled. A disk that was copied or lost while it was in use is not: one machine replays the journal first, by
  mounting the disk to write, at a place of its own, and unmounting it. The controller chooses this machine: only the machine
  that it saw as the disk's single one gets ``ALONE``, and while that has the disk no other gets it. Every other machine waits
  until the disk itself says that its journal is settled. The kernel writes that last of all, so a machine that reads it may
  mount (docs/adr/0061 has the alternatives).
- An error of mounting or formatting names the volume and, where the kernel says which one it is, the wrong mount option.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moyai.core.clock import Clock
from moyai.core.waiting import NotYet, until
from moyai.csi.access_modes import VolumeAccess
from moyai.csi.driver_names import ALONE, FILE_SYSTEMS, XFS
from moyai.csi.errors import Refused
from moyai.csi.node.disks import Damaged, DiskError, NodeDisks

_SETTLE_PAUSE = 0.2
_WHOSE_OPTIONS = (
    "mount options come from mountOptions of the PersistentVolume, which has them from its StorageClass: correct both, the "
    "class for later claims"
)


@dataclass(frozen=True)
class _FileSystem:
    """The file system that a volume's device has or is to get."""

    volume_id: str
    device: str
    kind: str


class FileSystemMounter:
    """``patience``: seconds that a reader waits for another machine that replays the journal."""

    def __init__(self, disks: NodeDisks, *, patience: float, clock: Clock) -> None:
        self._devices, self._mounts, self._filesystems = disks.devices, disks.mounts, disks.filesystems
        self._patience, self._clock = patience, clock

    def mount(
        self,
        volume_id: str,
        device: str,
        *,
        target: str,
        access: VolumeAccess,
        blank: bool = False,
        published: Mapping[str, str] | None = None,
    ) -> None:
        """``blank``: the volume was made without content. ``published``: what the controller says of the attachment."""
        self.clear(target)
        file_system = self._prepare(volume_id, device, access=access, blank=blank)
        self._mounts.make_folder(target)
        if access.read_only and access.several:
            self._settle(file_system, target, alone=(published or {}).get(ALONE) == "true")
        self._mount(file_system, target, flags=access.flags, own=_own_options(file_system.kind, access))
        if file_system.kind == XFS and not access.read_only:
            self._filesystems.grow_mounted(device, target, kind=XFS)

    def clear(self, target: str) -> None:
        """Undo what a process that was killed while it replayed a journal has left; unmounting ends the replay."""
        self._mounts.unmount(_replaying(target))
        self._mounts.remove(_replaying(target))

    def _prepare(self, volume_id: str, device: str, *, access: VolumeAccess, blank: bool) -> _FileSystem:
        """A file system that is whole and as large as its device."""
        kind = self._filesystems.content(device)
        if not kind:
            if access.read_only:
                raise Refused("FAILED_PRECONDITION", f"volume {volume_id} is empty and is to be read only: write it first")
            # the driver created the volume without content, so it may be formatted whatever its blocks contain
            if not blank and not self._devices.is_zero(device):
                raise Refused(
                    "FAILED_PRECONDITION",
                    f"volume {volume_id} holds data that is no file system known here; nothing was changed. Use it with "
                    "volumeMode Block, or wipe it",
                )
            made = _FileSystem(volume_id, device, access.file_system)
            self._make(made)
            return made
        if kind not in FILE_SYSTEMS:
            raise Refused("FAILED_PRECONDITION", f"volume {volume_id} holds {kind}, which is not mounted here; it is unchanged")
        if access.fs_type and access.fs_type != kind:
            raise Refused("FAILED_PRECONDITION", f"volume {volume_id} holds {kind}, not {access.fs_type}; it is unchanged")
        if not access.read_only:
            try:
                self._filesystems.check(device, kind)
                self._filesystems.grow_unmounted(device, kind)
            except Damaged as error:
                raise Refused(
                    "INTERNAL", f"the file system of volume {volume_id} is damaged, and was not mounted: {error}"
                ) from error
        return _FileSystem(volume_id, device, kind)

    def _make(self, wanted: _FileSystem) -> None:
        try:
            self._filesystems.make(wanted.device, wanted.kind)
        except DiskError as error:
            why = f"volume {wanted.volume_id} could not be formatted as {wanted.kind}: {_line(error)}"
            raise Refused("INTERNAL", why) from error

    # ---- journals, for readers on several machines

    def _settle(self, file_system: _FileSystem, target: str, *, alone: bool) -> None:
        """Return once the journal of the disk is settled; replay it where this machine is the one that does so."""
        if not alone:
            self._wait_for_other(file_system)
            return
        if self._filesystems.is_settled(file_system.device, file_system.kind):
            return
        if self._devices.is_read_only(file_system.device):
            raise Refused(
                "FAILED_PRECONDITION",
                f"volume {file_system.volume_id} was copied or lost while it was in use, and its journal must be replayed "
                "before it is read, but the disk is attached read-only: use it with access mode ReadWriteOnce once, or copy it "
                "again while no pod writes to it",
            )
        place = _replaying(target)
        self._mounts.make_folder(place)
        self._mount(file_system, place, flags=(), own=["rw", *_identity(file_system.kind)])
        self.clear(target)

    def _wait_for_other(self, file_system: _FileSystem) -> None:
        def settled() -> bool | NotYet:
            try:
                return self._filesystems.is_settled(file_system.device, file_system.kind) or NotYet("")
            except DiskError as error:
                return NotYet(f" ({_line(error)})")  # a journal that another machine writes at this moment cannot be read

        def late(last: NotYet) -> Refused:
            return Refused(
                "UNAVAILABLE",
                f"the journal of volume {file_system.volume_id} is not replayed yet{last.missing}: the disk was copied or lost "
                "while it was in use. The machine that had the disk first replays the journal, and the others wait for it. If "
                "no machine does, delete all pods that use the claim, so that the disk is detached everywhere: the next pod's "
                "machine then replays it",
            )

        until(settled, clock=self._clock, timeout=self._patience, pause=_SETTLE_PAUSE, retry=(), late=late)

    # ---- mounting, in the user's words

    def _mount(self, file_system: _FileSystem, target: str, *, flags: Sequence[str], own: Sequence[str]) -> None:
        """``flags``: the user's options; ``own``: the driver's."""
        try:
            self._mounts.mount(file_system.device, target, kind=file_system.kind, options=[*flags, *own])
        except DiskError as error:
            raise self._explained(error, file_system, flags=flags) from error

    def _explained(self, error: Exception, file_system: _FileSystem, *, flags: Sequence[str]) -> Refused:
        kind, begin = file_system.kind, f"volume {file_system.volume_id} was not mounted"
        try:
            wrong = self._filesystems.refused_options(kind, flags)
        except DiskError:
            wrong = []
        if wrong:
            named = ", ".join(f"{one.option!r} ({one.why})" for one in wrong)
            which = "a mount option" if len(wrong) == 1 else "mount options"
            return Refused("INVALID_ARGUMENT", f"{begin}: {kind} refuses {which}: {named}; {_WHOSE_OPTIONS}")
        if not self._filesystems.is_known(kind):
            return Refused(
                "FAILED_PRECONDITION",
                f"{begin}: the kernel of this machine has no {kind}; the StorageClass chooses the file system with its "
                "parameter csi.storage.k8s.io/fstype",
            )
        if flags:
            return Refused("INTERNAL", f"{begin} as {kind} with {','.join(flags)}: {_line(error)}; {_WHOSE_OPTIONS}")
        return Refused("INTERNAL", f"{begin} as {kind}: {_line(error)}")


def _replaying(target: str) -> str:
    """Beside the place, as ``staging`` has its marker; a folder of this driver alone, which no pod ever sees."""
    return f"{target}.replaying"


def _own_options(kind: str, access: VolumeAccess) -> list[str]:
    options: list[str] = []
    if access.read_only:
        options.append("ro")
        if access.several:
            # a node that only reads must not replay a log that another node may write
            options.append("norecovery" if kind == XFS else "noload")
    return [*options, *_identity(kind)]


def _identity(kind: str) -> list[str]:
    # a clone beside its origin has the same UUID
    return ["nouuid"] if kind == XFS else []


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
