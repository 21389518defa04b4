"""Mounts of disks that are not attached any more: found and undone.

A disk can go while it is mounted. Kubernetes detaches it by force when it believes that the node is lost, or the driver was
not there to unmount it (the Node object was deleted, and the driver's pod with it). The mount then keeps the kernel's device
alive, and a path occupied, although nothing can be read or written there.

What always holds: a mount is undone only if its disk is gone by every sign that the machine has: no device node below /dev has
its number, no link of the volume leads to it, and the kernel lists no such device. A disk that is attached is never unmounted
here, whether or not a pod uses it.
"""

from __future__ import annotations

import logging
import posixpath
from collections.abc import Callable

from moyai.csi.node.disks import DiskError, Mount, NodeDisks

_log = logging.getLogger(__name__)


class StaleMounts:
    """``folder``: below it, the kubelet has a folder for each volume of this driver that is staged. ``links``: where a volume
    shows."""

    def __init__(self, disks: NodeDisks, *, folder: str, links: Callable[[str, str], tuple[str, ...]]) -> None:
        self._devices, self._mounts = disks.devices, disks.mounts
        self._folder, self._links = folder.rstrip("/") + "/", links

    def volumes(self) -> list[str]:
        """The ids of the volumes that are staged although their disk is gone. Raises DiskError."""
        return list(dict.fromkeys(self._mounts.volume_at(one.point) for one in self._lost()))

    def clear(self, volume_id: str) -> None:
        """Unmount what is left of the volume: at pods first and where it is staged last, so that a next try finds the rest.

        A mount that is in use stays, and is logged: its process ends with its pod.
        """
        for staged in self._lost():
            if self._mounts.volume_at(staged.point) != volume_id:
                continue
            uses = [one.point for one in self._mounts.all() if one.device == staged.device and one.point != staged.point]
            for point in [*reversed(uses), staged.point]:
                _log.warning("volume %s is not attached any more: unmounting %s", volume_id, point)
                try:
                    self._mounts.unmount(point)
                except DiskError as error:
                    _log.warning("%s stays mounted: %s", point, error)

    def is_gone(self, number: tuple[int, int]) -> bool:
        """Whether no disk with this number is attached."""
        return not self._devices.present({number})

    def _lost(self) -> list[Mount]:
        """What is mounted below the folder although its disk is gone."""
        staged = [one for one in self._mounts.all() if one.point.startswith(self._folder)]
        # after the mounts: a disk that was mounted and is still attached cannot be missed
        present = self._devices.present({one.device for one in staged})
        return [one for one in staged if one.device not in present and not self._is_shown(one)]

    def _is_shown(self, mounted: Mount) -> bool:
        shown = self._devices.find(self._links(self._mounts.volume_at(mounted.point), ""))
        return shown is not None and self._devices.number(shown) == mounted.device


def staging_folder(driver: str, kubelet: str = "/var/lib/kubelet") -> str:
    """Where the kubelet stages volumes of a driver."""
    return posixpath.join(kubelet, "plugins/kubernetes.io/csi", driver)
