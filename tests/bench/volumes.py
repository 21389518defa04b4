"""From claims to mounted file systems, against the bare cloud calls for the same: for one, and for fifty at once.

Measured: a pod with so many claims of the default class is created; its start is of no interest, so it is one pod, and the
moment is when the mount table of its machine, read from outside, has the last of them. The floor, on the same machine: so many
threads with a create at Cinder and, when the volume is there, an attach at Nova; then mkfs and mount inside the machine. They
share one look at the cloud every tenth of a second. Both are measured in turns, so that they share the machine's moods.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from moyai.cloud.model import DiskState, Volume
from moyai.cloud.openstack import connect
from moyai.cloud.openstack.guest import disk_links
from moyai.core.errors import NotFound, Retriable
from moyai.core.ids import cluster_tag
from moyai.images import references
from moyai.kube.objects import parse_volume
from moyai.kube.quick import KubeApi
from moyai.kube.resources import CLAIMS, PODS, VOLUMES, Json
from moyai.lifecycle.record import Record
from moyai.linux import mounts
from moyai.linux.process import run

#: How many claims "at once" are.
MANY = 50
_SECONDS = 300.0
_LOOK = 0.1
_SPACE = "default"
#: What the floor's volumes carry.
_MARK = "moyai-bench"
#: The tools and flags of the driver, in one go; the device's link appears a moment after Nova's answer.
_FORMAT = 'until test -b "$1"; do sleep 0.02; done; mkfs.ext4 -q -m 0 "$1" && mkdir -p "$2" && mount "$1" "$2"'


def phase(count: int) -> str:
    return "one claim, mounted" if count == 1 else f"{count} claims at once, mounted"


class VolumeBench:
    """``cloud``: an entry of clouds.yaml, of a local cloud; ``record``: of the cluster, of whose workers one is used."""

    def __init__(self, cloud: str, record: Record, *, kubeconfig: Path) -> None:
        self._cloud = connect(cloud)
        self._api = KubeApi.from_file(kubeconfig)
        servers = self._cloud.machines.servers(tag=cluster_tag(record.uid))
        self._server = next(one for one in servers if one.metadata.get("moyai.role") == "worker")
        self._machine = _machine(self._server.id)
        self._pause = references.load().pause

    def claims(self, count: int) -> dict[str, float]:
        """Phase → seconds, of ``count`` claims in one pod. What was made is gone when it returns."""
        name = f"bench-{secrets.token_hex(3)}"
        names = [f"{name}-{number}" for number in range(count)]
        began = time.monotonic()
        for one in names:
            self._api.create(CLAIMS, _claim(one), namespace=_SPACE)
        pod = self._api.create(PODS, self._pod(name, names), namespace=_SPACE)
        below = f"/pods/{pod['metadata']['uid']}/volumes/kubernetes.io~csi/"
        try:
            _until("the claims to be mounted", lambda: self._mounted(below) >= count, every=0.02)
            return {phase(count): time.monotonic() - began}
        finally:
            self._api.delete(PODS, name, namespace=_SPACE, grace=0)
            _until("the pod's end", lambda: not self._mounted(below) and self._gone(name))
            for one in names:
                self._api.delete(CLAIMS, one, namespace=_SPACE)
            _until("the volumes' end", lambda: not self._left(), every=0.5)

    def direct(self, count: int) -> dict[str, float]:
        """The floor: phase → seconds, of ``count`` volumes on the same machine. What was made is gone when it returns."""
        calls, name = self._cloud, f"bench-{secrets.token_hex(3)}"
        looker = _Looker(lambda: calls.disks.volumes(metadata={_MARK: name}))

        def one(number: int) -> None:
            made = calls.disks.create_volume(name=f"{name}-{number}", size_gb=1, zone=self._server.zone, metadata={_MARK: name})
            looker.until(made.id, lambda volume: volume is not None and volume.state is DiskState.AVAILABLE)
            calls.machines.attach_volume(self._server.id, made.id)
            looker.until(made.id, lambda volume: volume is not None and volume.state is DiskState.IN_USE)
            self._inside(_FORMAT, disk_links(made.id)[0], f"/mnt/{name}-{number}")

        def end(volume: Volume) -> None:
            if volume.attached_server_ids:
                calls.machines.detach_volume(self._server.id, volume.id)
                looker.until(volume.id, lambda seen: seen is None or seen.state is DiskState.AVAILABLE)
            calls.disks.delete_volume(volume.id)
            looker.until(volume.id, lambda seen: seen is None)

        with looker, ThreadPoolExecutor(count) as threads:
            try:
                began = time.monotonic()
                list(threads.map(one, range(count)))
                return {phase(count): time.monotonic() - began}
            finally:
                self._inside('for point in /mnt/"$1"-*; do umount "$point"; rmdir "$point"; done; true', name)
                list(threads.map(end, calls.disks.volumes(metadata={_MARK: name})))

    # ---- what is

    def _pod(self, name: str, claims: list[str]) -> Json:
        volumes = [{"name": one, "persistentVolumeClaim": {"claimName": one}} for one in claims]
        container: Json = {
            "name": "pause",
            "image": self._pause,
            "imagePullPolicy": "Never",
            "volumeMounts": [{"name": one, "mountPath": f"/{one}"} for one in claims],
        }
        place = {"kubernetes.io/hostname": self._server.name}
        spec: Json = {"nodeSelector": place, "containers": [container], "volumes": volumes}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}

    def _mounted(self, below: str) -> int:
        found = mounts.parse((self._machine / "mountinfo").read_text(errors="surrogateescape"))
        return sum(below in one.point for one in found)

    def _inside(self, script: str, *words: str) -> None:
        spaces = ["--mount", "--uts", "--ipc", "--net", "--pid"]
        argv = ["nsenter", "--target", self._machine.name, *spaces, "--", "sh", "-c", script, "bench", *words]
        run(argv, timeout=_SECONDS)

    def _gone(self, pod: str) -> bool:
        try:
            self._api.get(PODS, pod, namespace=_SPACE)
        except NotFound:
            return True
        return False

    def _left(self) -> bool:
        volumes = map(parse_volume, self._api.list(VOLUMES))
        return any(one.claim and one.claim[1].startswith("bench-") for one in volumes)


class _Looker:
    """One poll of the cloud for all waiting threads, every tenth of a second while any thread waits."""

    def __init__(self, look: Callable[[], list[Volume]]) -> None:
        self._look, self._stop = look, threading.Event()
        self._seen = threading.Condition()
        self._looked, self._volumes = False, dict[str, Volume]()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(_LOOK):
            try:
                found = {one.id: one for one in self._look()}
            except Retriable:
                continue  # each waiting thread has its own time limit
            with self._seen:
                self._looked, self._volumes = True, found
                self._seen.notify_all()

    def until(self, volume_id: str, holds: Callable[[Volume | None], bool]) -> None:
        with self._seen:
            # an old look does no harm: no state that is waited for was there before
            if not self._seen.wait_for(lambda: self._looked and holds(self._volumes.get(volume_id)), _SECONDS):
                raise TimeoutError(f"waited {_SECONDS:.0f} s for volume {volume_id}")


def _claim(name: str) -> Json:
    spec: Json = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def _machine(server_id: str) -> Path:
    """The machine's own PID 1 in the host's /proc: of all that are PID 1 somewhere in its control group, the outermost."""
    found: list[tuple[int, Path]] = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if server_id not in (process / "cgroup").read_text():
                continue
            status = (process / "status").read_text()
        except OSError:
            continue
        pids = next(line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:"))
        if pids[-1] == "1":
            found.append((len(pids), process))
    if not found:
        raise RuntimeError(f"no machine of server {server_id} on this host")
    return min(found)[1]


def _until(what: str, look: Callable[[], Any], *, every: float = 0.1) -> None:
    end = time.monotonic() + _SECONDS
    while not look():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {_SECONDS:.0f} s for {what}")
        time.sleep(every)
