"""A front over a cloud in memory, called by the vendor's SDK without a socket: its serializer and its parser on both ends."""

from __future__ import annotations

from datetime import UTC
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from moyai.cloud.memory.memory_cloud import MemoryCloud
from moyai.cloud.model import Image
from moyai.nifcloud_front.front import Front, FrontParts, HttpAnswer
from moyai.nifcloud_front.pace import FaultOrder, Pace
from moyai.nifcloud_front.store.front_store import KINDS, FrontStore
from moyai.nifcloud_front.store.rows import ImageRow
from moyai.nifcloud_front.wire.service_model import load_model
from moyai.nifcloud_front.wire.signature import signature
from moyai.nifcloud_front.worker import Worker
from moyai.nifcloud_front.works.step import WorkContext
from moyai.nifcloud_front.works.watch import set_zones, watch_images
from tests.fakes.clock import FakeClock
from tests.nifcloud_sdk import NifcloudSdk

KEY, SECRET = "NIFKEY", "nif-secret"
TARGET = ("POST", "front.test", "/api/")
ZONES = (("east-11", "az1"), ("east-12", "az2"))
_SDK = NifcloudSdk()
_MODEL = load_model()


class Refused(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class TestFront:
    """``front`` may be made again over the same file and the same cloud, as after a crash: ``reopen``."""

    __test__ = False

    def __init__(self, folder: Path, *, scale: float = 1.0, committed: Any = None) -> None:
        self.clock = FakeClock()
        self.cloud = MemoryCloud(clock=self.clock)
        self.cloud.store.images.put(Image("img-1", "ubuntu", "ACTIVE"))
        self._file, self._pace, self._committed = folder / "front.db", Pace(scale), committed
        self.reopen()
        set_zones(self.context, ZONES)
        watch_images(self.context)

    def reopen(self) -> None:
        self.store = FrontStore(self._file, self._now, committed=self._committed, durable=False)
        self.context = WorkContext(self.store, self.cloud, self._pace, self._now)
        self.worker = Worker(self.context, self.clock)
        parts = FrontParts(_MODEL, self.store, self.context, self.worker, self.clock, keys={KEY: SECRET})
        self.front = Front(parts)

    def _now(self) -> float:
        return self.clock.now().timestamp()

    def raw(self, name: str, arguments: dict[str, Any]) -> HttpAnswer:
        form = _SDK.form(name, arguments) | {
            "AccessKeyId": KEY,
            "SignatureVersion": "2",
            "SignatureMethod": "HmacSHA256",
            "Timestamp": self.clock.now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        form["Signature"] = signature(SECRET, TARGET, given=form)
        return self.front.answer(TARGET, urlencode(form).encode())

    def call(self, name: str, **arguments: Any) -> dict[str, Any]:
        """Raises Refused for an error."""
        answer = self.raw(name, arguments)
        found = _SDK.understood(name, body=answer.body, status=answer.status)
        if "Error" in found:
            raise Refused(found["Error"]["Code"], found["Error"]["Message"])
        return found

    def settle(self) -> None:
        self.worker.settle()

    def state(self) -> list[Any]:
        """All rows and works."""
        with self.store.transaction() as tx:
            return [*(row for kind in KINDS for row in tx.all(kind)), *tx.works()]

    def order(self, fault: FaultOrder) -> None:
        with self.store.transaction() as tx:
            tx.order(fault.to_json())

    # ---- shortcuts

    def image(self) -> str:
        with self.store.transaction() as tx:
            return tx.all(ImageRow)[0].uid

    def server(self, name: str = "web1", **more: Any) -> dict[str, Any]:
        """A server that runs, as DescribeInstances shows it."""
        self.call("RunInstances", InstanceId=name, ImageId=self.image(), DisableApiTermination=False, **more)
        self.settle()
        return self.shown(name)

    def shown(self, name: str) -> dict[str, Any]:
        found = self.call("DescribeInstances", InstanceId=[name])
        return found["ReservationSet"][0]["InstancesSet"][0]

    def disk(self, name: str) -> dict[str, Any]:
        return self.call("DescribeVolumes", VolumeId=[name])["VolumeSet"][0]

    def pairs(self, name: str) -> list[dict[str, Any]]:
        found = self.call("DescribeLoadBalancers")["DescribeLoadBalancersResult"]["LoadBalancerDescriptions"]
        return [one for one in found if one["LoadBalancerName"] == name]

    def end(self, *names: str) -> None:
        """Stop and terminate servers."""
        self.call("StopInstances", InstanceId=list(names), Force=True)
        self.settle()
        self.call("TerminateInstances", InstanceId=list(names))
        self.settle()
