"""The node's work on volumes: stage (one mount for each volume), publish (a bind mount for a pod), grow, measure, and undo.

What always holds:

- What a device holds is ``mounting``'s to decide, and a disk that is gone is ``stale``'s to recognise.
- Every step first looks at the present state. An operation may therefore be killed at any moment and repeated.
- A file system that can grow only while it is not mounted grows before its first pod gets it, also if the kubelet leaves the
  volume staged between two pods.
- All calls block. Callers use a worker thread, and run one call at a time for a volume.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from moyai.cloud.kind import VolumeNames
from moyai.core.clock import Clock, SystemClock
from moyai.core.waiting import NotYet, until
from moyai.csi.access_modes import VolumeAccess
from moyai.csi.driver_names import DEVICE_PATH, EXT4
from moyai.csi.errors import Refused
from moyai.csi.node.disk_places import DiskPlaces, Links
from moyai.csi.node.disks import Mount, NodeDisks, NotPermitted, Usage
from moyai.csi.node.mounting import FileSystemMounter
from moyai.csi.node.stale import StaleMounts, staging_folder

_DEVICE_SECONDS = 15.0
#: The file systems of /dev: devtmpfs on a machine with its own kernel, tmpfs in a machine that shares the host's kernel.
_DEVICES = ("devtmpfs", "tmpfs")
#: Binds that kubelet makes itself of what we published, for containers that use a part of a volume.
_KUBELETS_OWN = "/volume-subpaths/"


@dataclass(frozen=True)
class Fault:
    """Something wrong with a volume in use. ``reason`` is one word for machines."""

    kind: Literal["DEGRADED", "INACCESSIBLE"]
    reason: str
    message: str


class NodeWork:
    """``links``: where a volume shows, the likeliest place first.

    ``rescan``: the kernel does not notice by itself that a disk has grown. ``folder``: below it the kubelet stages volumes
    of this driver (empty: where kubelets do).
    """

    def __init__(
        self,
        disks: NodeDisks,
        *,
        names: VolumeNames,
        links: DiskPlaces | Links,
        rescan: bool = False,
        patience: float = _DEVICE_SECONDS,
        folder: str = "",
        clock: Clock | None = None,
    ) -> None:
        self._devices, self._mounts, self._filesystems = disks.devices, disks.mounts, disks.filesystems
        self._blank = names.blank_key
        self._places = links if isinstance(links, DiskPlaces) else DiskPlaces(links, None)
        self._links, self._rescan, self._patience, self._clock = self._places.links, rescan, patience, clock or SystemClock()
        self._mounter = FileSystemMounter(disks, patience=patience, clock=self._clock)
        self._stale = StaleMounts(disks, folder=folder or staging_folder(names.driver), links=self._links)

    # ---- disks that are gone

    def stale(self) -> list[str]:
        """Volumes that are staged although their disk is not attached any more; ``clear_stale`` undoes what is left of one."""
        return self._stale.volumes()

    def clear_stale(self, volume_id: str) -> None:
        self._stale.clear(volume_id)

    # ---- stage

    def stage(
        self, volume_id: str, staging: str, *, access: VolumeAccess, context: Mapping[str, str], published: Mapping[str, str]
    ) -> None:
        device = self._wait_for_device(volume_id, published)
        self._places.keep(volume_id, published.get(DEVICE_PATH, ""))
        if access.block:
            return
        if mounted := self._mounted(device, staging):
            if access.fs_type and mounted.fs_type != access.fs_type:
                raise Refused("ALREADY_EXISTS", f"volume {volume_id} is mounted already, as {mounted.fs_type}")
            return
        blank = context.get(self._blank) == "true"
        self._mounter.mount(volume_id, device, target=staging, access=access, blank=blank, published=published)

    def unstage(self, staging: str, volume_id: str = "") -> None:
        """``volume_id``: whose disk the machine lets go of, where the cloud may take it away only then."""
        self._mounter.clear(staging)
        self._mounts.unmount(staging)
        self._mounts.remove(_marker(staging))
        if not (volume_id and self._places.kept):
            return
        if device := self._device(volume_id):
            number = self._devices.number(device)
            if any(one.device == number for one in self._mounts.all()):
                raise Refused("FAILED_PRECONDITION", f"volume {volume_id} is still mounted on this node")
            self._devices.let_go(device)
        self._places.forget(volume_id)

    # ---- publish

    def publish(self, volume_id: str, staging: str, *, target: str, access: VolumeAccess, read_only: bool) -> None:
        device = self._device(volume_id)
        if device is None:
            raise Refused("FAILED_PRECONDITION", f"volume {volume_id} is not attached to this node")
        if access.block and self._is_shown(device, target):
            return  # before the mount is touched: the kubelet has bind mounts of it
        if access.mode == "SINGLE_NODE_SINGLE_WRITER":
            self._refuse_second(volume_id, device, staging=staging, target=target)
        if access.block:
            self._mounts.make_file(target)
            self._mounts.bind(device, target, read_only=False)
            return
        read_only = read_only or access.read_only
        if (staged := self._mounts.at(staging)) and self._is_left_over(staged.device, device):
            # the disk went and came back while the kubelet took it for staged: it is mounted again below
            self._mounts.make_file(_marker(staging))
        if self._mounted(device, staging) is None and not self._mounts.exists(_marker(staging)):
            raise Refused("FAILED_PRECONDITION", f"volume {volume_id} is not staged at {staging}")
        if mounted := self._mounted(device, target):
            if mounted.read_only and not read_only:
                raise Refused("ALREADY_EXISTS", f"volume {volume_id} is at {target} already, to be read only")
            if mounted.read_only == read_only:
                return
        self._grow_between_pods(volume_id, device, staging=staging, access=access)
        self._mounts.make_folder(target)
        self._mounts.bind(staging, target, read_only=read_only)

    def _grow_between_pods(self, volume_id: str, device: str, *, staging: str, access: VolumeAccess) -> None:
        """Grow an ext4 that is staged and that no pod uses. A marker beside it lets a try after a crash mount it again."""
        marker, staged = _marker(staging), self._mounts.at(staging)
        if staged is not None:
            wants = staged.fs_type == EXT4 and not staged.read_only and not self._in_use(device, staging)
            if not (wants and self._filesystems.wants_to_grow(device, EXT4)):
                self._mounts.remove(marker)
                return
            self._mounts.make_file(marker)
            self._mounts.unmount(staging)
        self._mounter.mount(volume_id, device, target=staging, access=access)
        self._mounts.remove(marker)

    def _in_use(self, device: str, staging: str) -> bool:
        number = self._devices.number(device)
        return any(one.device == number and one.point != staging for one in self._mounts.all())

    def unpublish(self, target: str) -> None:
        self._mounts.unmount(target)
        self._mounts.remove(target)

    def _refuse_second(self, volume_id: str, device: str, *, staging: str, target: str) -> None:
        number = self._devices.number(device)
        for one in self._mounts.all():
            mine = one.device == number or (one.fs_type in _DEVICES and self._devices.number(one.point) == number)
            if mine and one.point not in (staging, target) and _KUBELETS_OWN not in one.point:
                raise Refused("FAILED_PRECONDITION", f"volume {volume_id} is for one pod, and is in use at {one.point}")

    # ---- grow

    def expand(self, volume_id: str, path: str, *, staging: str, required: int) -> int:
        """Bytes of the device, once its file system fills it."""
        device = self._device(volume_id)
        if device is None or not self._mounts.exists(path):
            raise Refused("NOT_FOUND", f"volume {volume_id} is not at {path} of this node")
        size = self._wait_for_size(volume_id, device, required=required)
        if self._devices.number(path):
            return size
        point = staging if staging and self._mounts.at(staging) else path
        mounted = self._mounted(device, point)
        if mounted is None:
            raise Refused("NOT_FOUND", f"nothing is mounted at {path}")
        try:
            self._filesystems.grow_mounted(device, point, kind=mounted.fs_type)
        except NotPermitted as error:
            raise Refused(
                "FAILED_PRECONDITION",
                f"the disk has grown, its {mounted.fs_type} has not: this kernel lets nobody here grow it while it is in use "
                "(CAP_SYS_RESOURCE is missing). It grows by itself when it is mounted next: delete the pod, so that it is "
                "restarted",
            ) from error
        return size

    def _wait_for_size(self, volume_id: str, device: str, *, required: int) -> int:
        def large_enough() -> int | NotYet:
            if self._rescan:
                self._devices.rescan(device)
            size = self._devices.size(device)
            return size if size >= required else NotYet(f"{size} bytes, not {required}")

        def late(last: NotYet) -> Refused:
            return Refused("UNAVAILABLE", f"the node still sees volume {volume_id} with {last.missing}")

        return until(large_enough, clock=self._clock, timeout=self._patience, pause=0.1, retry=(), late=late)

    # ---- measure

    def usage(self, volume_id: str, path: str) -> Usage | int:
        """Of a file system, or the size of a raw device in bytes."""
        if not self._mounts.exists(path):
            raise Refused("NOT_FOUND", f"there is nothing at {path}")
        if self._devices.number(path):
            return self._devices.size(path)
        device, mounted = self._device(volume_id), self._mounts.at(path)
        if mounted is None or (device and self._devices.number(device) != mounted.device):
            raise Refused("NOT_FOUND", f"volume {volume_id} is not mounted at {path}")
        return self._filesystems.usage(path)

    def faults(self, volume_id: str, path: str) -> list[Fault]:
        """What is wrong with a volume that is in use at ``path`` (of a pod, or where it is staged)."""
        device = self._device(volume_id)
        mounted = self._mounts.at(path) if path else None
        if device is None:
            if mounted is None and not (path and self._mounts.exists(path)):
                raise Refused("NOT_FOUND", f"volume {volume_id} is not on this node")
            return [Fault("INACCESSIBLE", "DeviceGone", "the disk is no longer attached, though it is still mounted")]
        if path and not self._mounts.exists(path):
            raise Refused("NOT_FOUND", f"there is nothing at {path}")
        if mounted is None:
            return []
        found: list[Fault] = []
        try:
            if not self._devices.number(path):
                self._filesystems.usage(path)
        except OSError as error:
            found.append(Fault("INACCESSIBLE", "InputOutputError", f"the file system does not answer: {error.strerror}"))
        if mounted.broken:
            found.append(Fault("DEGRADED", "ReadOnlyFileSystem", "the kernel made the file system read-only after an error"))
        if mounted.fs_type == EXT4 and (count := self._filesystems.errors(device)):
            found.append(Fault("DEGRADED", "FileSystemErrors", f"the kernel has met {count} errors in the file system"))
        return found

    # ---- devices

    def _device(self, volume_id: str, published: Mapping[str, str] | None = None) -> str | None:
        given = (published or {}).get(DEVICE_PATH, "")
        links = self._links(volume_id, given)
        # another driver's controller may publish another link; a bare /dev/vdX is the cloud's guess and may be another disk
        return self._devices.find([*links, *([given] if given.startswith("/dev/disk/") and given not in links else [])])

    def _wait_for_device(self, volume_id: str, published: Mapping[str, str]) -> str:
        def late(_: NotYet) -> Refused:
            return Refused("NOT_FOUND", f"the disk of volume {volume_id} does not appear on this node: is it attached?")

        return until(
            lambda: self._device(volume_id, published) or NotYet(f"the disk of volume {volume_id}"),
            clock=self._clock,
            timeout=self._patience,
            pause=0.05,
            retry=(),
            late=late,
        )

    def _mounted(self, device: str, path: str) -> Mount | None:
        """The device's mount at a path. What is left there of a disk that is gone is unmounted; INTERNAL for another disk."""
        mounted = self._mounts.at(path)
        if mounted is None or not self._is_left_over(mounted.device, device, path=path):
            return mounted
        self._mounts.unmount(path)
        return None

    def _is_shown(self, device: str, target: str) -> bool:
        """Whether a raw device is at a path. What is left there of a disk that is gone is unmounted; INTERNAL for another."""
        shown = self._devices.number(target)
        if shown is None or self._mounts.at(target) is None:
            return False
        if not self._is_left_over(shown, device, path=target):
            return True
        self._mounts.unmount(target)
        return False

    def _is_left_over(self, number: tuple[int, int], device: str, *, path: str = "") -> bool:
        """Whether a number is not the device's, and its disk is gone. INTERNAL, where a path is given, if its disk is there."""
        if number == self._devices.number(device):
            return False
        gone = self._stale.is_gone(number)
        if path and not gone:
            raise Refused("INTERNAL", f"at {path} another disk is mounted ({number[0]}:{number[1]})")
        return gone


def _marker(staging: str) -> str:
    """Beside the place, not in it: a kubelet removes the place, which then must be empty."""
    return f"{staging}.growing"
