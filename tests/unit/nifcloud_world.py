"""`up` and `down` over the wire of the local cloud's NIFCLOUD front, in process: moyai's adapter, the vendor's SDK on both
ends, the front, and below it a cloud in memory."""

from __future__ import annotations

import hashlib
import random
import re
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from moyai.bootstrap import pki
from moyai.cloud.memory import MemoryCloud
from moyai.cloud.model import Image, Server
from moyai.cloud.nifcloud.access_keys import AccessKey
from moyai.cloud.nifcloud.error_codes import LostReply, error_from_code
from moyai.cloud.nifcloud.machines import NifcloudMachines
from moyai.cloud.nifcloud.nifcloud_cloud import NifcloudCloud
from moyai.cloud.nifcloud.nifcloud_limits import Terms
from moyai.cloud.nifcloud.sdk import ApiPlace
from moyai.cloud.nifcloud.wire import Wire
from moyai.core.errors import Retriable
from moyai.core.ids import cluster_tag
from moyai.core.paths import Paths
from moyai.core.progress import Reporter
from moyai.lifecycle import down as teardown
from moyai.lifecycle import up as building
from moyai.lifecycle import work as working
from moyai.lifecycle.record import Record
from moyai.lifecycle.tokens import add_token
from moyai.nifcloud_front.store.rows import BridgeRow, InstanceRow
from moyai.nifcloud_front.works.watch import set_zones, watch_images
from moyai.plan.graph import Plan
from moyai.spec.load import parse
from tests.fakes.cluster_api import ClusterApi
from tests.fakes.nifcloud_front import KEY, SECRET, Refused, TestFront
from tests.fakes.object_store import ObjectStore

SPEC = """
metadata: {name: nif}
spec:
  cloud: {nifcloud: {region: jp-east-1}}
  network: {mode: auto}
  controlPlane: {flavor: e-small4, zone: east-11}
  nodePools: [{name: workers, flavor: e-small2, zones: [east-11], replicas: 1}]
"""


def _no_fsync(handle: int) -> None:
    """Disks are slow."""


class Killed(BaseException):
    """The process has ended."""


class NifcloudWorld:
    """Implements ``sdk.Caller``. ``started``: ids of the instances that have run their start. ``silent``: machines take no
    login. ``others``: further zones, whose private LANs a private ``bridge`` of this range joins. ``die_at``: number of the
    call at which the process ends, before or after its effect."""

    def __init__(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, others: tuple[str, ...] = (), bridge: str = ""
    ) -> None:
        folder = tmp_path / "front"
        folder.mkdir(parents=True)
        self.paths = Paths(tmp_path / "cache", tmp_path / "state")
        self.front = TestFront(folder)
        properties = {"moyai_kubernetes_version": "1.37.1"}
        self.front.cloud.store.images.put(Image("node", "moyai-node-1.37.1", "ACTIVE", properties=properties))
        watch_images(self.front.context)
        if others:
            self.front.cloud.store.zones = ("az1", "az2", "az3")
            set_zones(self.front.context, [("east-13", "az3")])
        if bridge:
            with self.front.store.transaction() as tx:
                tx.put(BridgeRow(bridge, bridge))
        self.terms = Terms("east-11", others=others, whole_region=False)
        self.clock = self.front.clock
        self.count: Counter[str] = Counter()
        self.calls = 0
        self.die_at: float | None = None
        self.dead = self.silent = False
        #: Share of the replies that are lost, before or after the call's effect.
        self.losses, self.luck = 0.0, random.Random(0)
        self.started: set[str] = set()
        self.kubes: dict[str, ClusterApi] = {}
        self._lock = threading.RLock()
        #: Machines that have run their start, as Kubernetes sees them.
        self._seen = MemoryCloud()
        self.cloud = connected(self)
        monkeypatch.setattr("os.fsync", _no_fsync)
        monkeypatch.setattr(pki, "PBKDF2_ROUNDS", 1)
        monkeypatch.setattr(building, "open_api", self.open_api)
        monkeypatch.setattr(teardown, "open_api", self.open_api)
        monkeypatch.setattr(working, "open_api", self.open_api)
        monkeypatch.setattr(building, "send_by_ssh", self.send)

    # ---- the wire

    def call(self, operation: str, arguments: Mapping[str, Any], *, object_id: str = "") -> Mapping[str, Any]:
        with self._lock:
            self.calls += 1
            self._live(self.calls)
            self.count[operation] += 1
            self.front.settle()
            lost = self.luck.random() < self.losses
            reply = LostReply("the reply was lost", operation=operation, object_id=object_id)
            if lost and self.luck.random() < 0.5:
                raise reply
            try:
                answer = self.front.call(operation, **arguments)
            except Refused as error:
                words = str(error).partition(": ")[2]
                raise error_from_code(error.code, words, operation=operation, object_id=object_id) from error
            finally:
                self._live(self.calls + 0.5)
            self._see()
            if lost:
                raise reply
            return answer

    def _live(self, moment: float) -> None:
        if self.die_at is not None and moment >= self.die_at:
            self.dead = True
        if self.dead:
            raise Killed

    def instances(self) -> list[InstanceRow]:
        with self.front.store.transaction() as tx:
            return tx.all(InstanceRow)

    def _see(self) -> None:
        if not self.kubes:
            return
        shown = {one.id: one for one in self.cloud_servers()}
        for one in self._seen.store.servers:
            if one.id not in shown:
                self._seen.store.servers.drop(one.id)
        for one in shown.values():
            if one.id in self.started and self._seen.store.servers.get(one.id) != one:
                self._seen.store.servers.put(one)

    def cloud_servers(self) -> list[Server]:
        """As the adapter shows them; the look is none of the process that may die."""
        return NifcloudMachines(Wire(_Past(self.front), self.clock), cloud="", terms=Terms()).servers()

    # ---- machines

    def send(self, address: str, start: str, *, told: str, folder: Path) -> str:
        with self._lock:
            if self.dead:
                raise Killed
            self.front.settle()
            row = next((one for one in self.instances() if one.public == address and one.state == "running"), None)
            if row is None or self.silent:
                raise Retriable(f"{address} does not take a login yet")
            digest = re.search(r"^digest=(\w+)$", row.user_data, re.MULTILINE)
            assert digest is not None
            if hashlib.sha256(start.encode()).hexdigest() != digest[1]:
                return "moyai: another start is expected\n"
            assert told == f"{row.uid} {row.zone}"
            self.started.add(row.uid)
            self._see()
            return "moyai: started\n"

    def open_api(self, record: Record) -> Any:
        with self._lock:
            if self.dead:
                raise Killed
            if not (record.folder / "kubeconfig").exists():
                return None
            if record.uid not in self.kubes:
                plane = record.cluster.spec.control_plane
                kube = ClusterApi(
                    ObjectStore(),
                    self._seen,
                    tag=cluster_tag(record.uid),
                    copies=min(2, plane.replicas),
                    elected=plane.virtual,
                )
                names = self.cloud.kind.volume_names
                kube.deployment(names.controller)
                kube.daemon_set(names.node)
                kube.daemon_set("moyai-agent", "--controllers=pod-network,policy")
                self.kubes[record.uid] = kube
                if token := record.secret("token"):
                    add_token(cast("Any", kube), token, clock=self.clock)
            self._see()
            return self.kubes[record.uid]

    # ---- commands

    def up(self, spec: str = SPEC) -> building.UpResult:
        reporter = Reporter(clock=self.clock)
        return building.up(parse(spec), self.cloud, paths=self.paths, reporter=reporter, clock=self.clock)

    def preview(self, spec: str = SPEC) -> Plan:
        return building.preview(parse(spec), self.cloud, paths=self.paths, clock=self.clock)

    def down(self, name: str = "nif") -> teardown.DownReport:
        target, record = teardown.target_of(name, self.paths, cloud=self.cloud)
        return teardown.down(
            target, record, cloud=self.cloud, paths=self.paths, reporter=Reporter(clock=self.clock), clock=self.clock
        )

    def revive(self) -> None:
        """Another process goes on."""
        self.dead, self.die_at = False, None
        self.cloud = connected(self)

    def left(self) -> list[str]:
        """What the front has that somebody made."""
        self.front.settle()
        kinds = {
            "DescribeInstances": "ReservationSet",
            "DescribeSecurityGroups": "SecurityGroupInfo",
            "NiftyDescribePrivateLans": "PrivateLanSet",
            "DescribeKeyPairs": "KeySet",
            "DescribeVolumes": "VolumeSet",
            "DescribeAddresses": "AddressesSet",
        }
        found = [f"{name} {len(rows)}" for name, key in kinds.items() if (rows := self.front.call(name).get(key))]
        balancers = self.front.call("DescribeLoadBalancers")["DescribeLoadBalancersResult"].get("LoadBalancerDescriptions")
        return [*found, *([f"balancers {len(balancers)}"] if balancers else [])]


class _Past:
    """Implements ``sdk.Caller``: straight to the front."""

    def __init__(self, front: TestFront) -> None:
        self._front = front

    def call(self, operation: str, arguments: Mapping[str, Any], *, object_id: str = "") -> Mapping[str, Any]:
        return self._front.call(operation, **arguments)


def connected(world: NifcloudWorld) -> NifcloudCloud:
    return NifcloudCloud(
        world,
        ApiPlace("jp-east-1"),
        name="nifcloud:jp-east-1",
        terms=world.terms,
        clock=world.clock,
        key=AccessKey(KEY, SECRET),
    )
