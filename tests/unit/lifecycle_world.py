"""A cloud in memory, a state folder, and the two commands: what the tests of `up` and `down` share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from moyai.bootstrap import pki
from moyai.cloud.model import Power, Snapshot, Volume
from moyai.core.ids import CLUSTER_TAG, cluster_tag
from moyai.core.paths import Paths
from moyai.core.progress import Reporter
from moyai.lifecycle import down as teardown
from moyai.lifecycle import up as building
from moyai.lifecycle.record import Record
from moyai.spec.load import parse
from moyai.spec.model import Cluster
from tests.fakes.clock import FakeClock
from tests.unit.fakecloud import FakeCloud, FakeKube

WHOLE = [
    "balancers",
    "fips moyai.cluster=UID api",
    "groups quickstart-control-plane",
    "groups quickstart-worker",
    "keypair quickstart-UID",
    "networks quickstart-network",
    "ports quickstart-control-plane-0",
    "ports quickstart-workers-0",
    "ports quickstart-workers-1",
    "routers quickstart-router",
    "servers quickstart-control-plane-0",
    "servers quickstart-workers-0",
    "servers quickstart-workers-1",
    "subnets quickstart-subnet",
]


def _no_fsync(handle: int) -> None:
    """Disks are slow."""


class World:
    """A cloud, a state folder, and the two commands."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths = Paths(tmp_path / "cache", tmp_path / "state")
        self.cloud = FakeCloud()
        self.clock = FakeClock()
        self.kubes: dict[str, FakeKube] = {}

        def open_api(record: Record) -> Any:
            self.cloud.look()
            if not (record.folder / "kubeconfig").exists():
                return None
            return self.kubes.setdefault(record.uid, FakeKube(self.cloud, cluster_tag(record.uid)))

        # what costs time on purpose on real disks and with real secrets
        monkeypatch.setattr("os.fsync", _no_fsync)
        monkeypatch.setattr(pki, "PBKDF2_ROUNDS", 1)
        monkeypatch.setattr(building, "open_api", open_api)
        monkeypatch.setattr(teardown, "open_api", open_api)

    def up(self, spec: str | Cluster = "") -> building.UpResult:
        cluster = parse(spec) if isinstance(spec, str) else spec
        return building.up(cluster, self.cloud, self.paths, Reporter(clock=self.clock), clock=self.clock)

    def down(self, name: str = "quickstart", uid: str = "") -> teardown.DownReport:
        target, record = teardown.target_of(name, self.paths, self.cloud, uid)
        return teardown.down(target, record, self.cloud, self.paths, Reporter(clock=self.clock), clock=self.clock)

    def fail(self, name: str, fault: str) -> None:
        """The cloud finds a machine broken."""
        server = next(one for one in self.cloud.all["servers"].values() if one.name == name)
        self.cloud.put("servers", replace(server, status="ERROR", power=Power.FAILED, fault=fault))

    def names(self, name: str = "quickstart") -> list[str]:
        record = Record.open(self.paths, name)
        uid = record.uid if record else "?"
        return [text.replace(uid, "UID") for text in self.cloud.names()]

    def kube(self, name: str = "quickstart") -> FakeKube:
        record = Record.open(self.paths, name)
        assert record is not None
        return self.kubes[record.uid]


def whole() -> list[str]:
    credentials = ["credential quickstart-UID", "credential quickstart-volumes-UID"]
    return sorted([*(line for line in WHOLE if " " in line), *credentials])


def count_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    world = World(tmp_path / "count", monkeypatch)
    world.up()
    return world.cloud.changes


@dataclass(frozen=True)
class Disks:
    """Volumes at the workers: the cluster's own one with a snapshot, one that is the user's."""

    own: Volume
    static: Volume
    snapshot: Snapshot


def with_disks(world: World, policy: str = "Delete") -> Disks:
    uid = world.up(f"spec: {{volumes: {{reclaimPolicy: {policy}}}}}").uid
    first, second = (s for s in world.cloud.all["servers"].values() if "workers" in s.name)
    own = world.cloud.attach("pvc-own", first.id, metadata={CLUSTER_TAG: uid})
    static = world.cloud.attach("precious", second.id)
    snap = Snapshot("snap", "snapshot-1", "AVAILABLE", own.id, 1, metadata={CLUSTER_TAG: uid})
    return Disks(own, static, world.cloud.put("snapshots", snap))


def kept(report: teardown.DownReport) -> list[tuple[str, str]]:
    return sorted((line.kind, line.name) for line in report.lines if line.fate == "kept")
