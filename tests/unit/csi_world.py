"""The CSI driver's controller over the cloud in memory, with short waits; ``again`` is a new process after a crash."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from moyai.cloud.credentials import Use
from moyai.cloud.memory import MemoryCloud
from moyai.cloud.openstack.guest import disk_links
from moyai.core.backoff import Backoff
from moyai.csi.access_modes import VolumeAccess
from moyai.csi.controller.cloud_view import CloudView
from moyai.csi.controller.rpc import ControllerService
from moyai.csi.controller.snapshots import SnapshotWork
from moyai.csi.controller.volumes import VolumeRequest, VolumeWork
from moyai.csi.errors import Refused
from moyai.csi.proto import csi_pb2 as pb
from moyai.runtime.metrics import Metrics
from tests.fakes.clock import FakeClock
from tests.fakes.cloud import limited, memory

UID = "0123456789"
QUICK = Backoff(base=0.001, ceiling=0.002)
WRITER = VolumeAccess("SINGLE_NODE_WRITER")


@dataclass
class World:
    raw: MemoryCloud = field(default_factory=memory)
    limit: int = 256
    patience: float = 5.0

    def __post_init__(self) -> None:
        self.again()

    def again(self) -> World:
        self.cloud = CloudView(
            limited(self.raw, Use.VOLUMES),
            metrics=Metrics(),
            clock=FakeClock(),
            cluster="demo",
            uid=UID,
            names=self.raw.kind.volume_names,
            poll=QUICK,
        )
        self.volumes = VolumeWork(self.cloud, limit=self.limit, patience=self.patience, again=QUICK)
        self.snapshots = SnapshotWork(self.cloud, patience=self.patience)
        self.controller = ControllerService(self.cloud, self.volumes, snapshots=self.snapshots, links=disk_links)
        return self


def wanted(name: str = "pvc-1", **more: Any) -> VolumeRequest:
    return VolumeRequest(name=name, accesses=more.pop("accesses", (WRITER,)), **more)


def capability(mode: str = "SINGLE_NODE_WRITER", *, block: bool = False, fs_type: str = "") -> pb.VolumeCapability:
    made = pb.VolumeCapability(access_mode=pb.VolumeCapability.AccessMode(mode=cast("Any", mode)))
    if block:
        made.block.SetInParent()
    else:
        made.mount.fs_type = fs_type
        made.mount.SetInParent()
    return made


async def refused(call: Awaitable[Any]) -> Refused:
    with pytest.raises(Refused) as found:
        await call
    return found.value
