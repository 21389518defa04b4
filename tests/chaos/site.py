"""The clusters of the scenarios, driven by the command line as a user does it, and what the cloud holds of them.

A cluster's shape is everything that the cloud, the record and Kubernetes have of it, with the cluster's own name and identity
taken out: two clusters of the same spec have the same shape, whatever happened while they were built.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from moyai.cloud.openstack import connect
from moyai.core.paths import default_paths
from moyai.lifecycle.record import Record
from tests.chaos.results import Broken, Results, insist
from tests.e2e.driver import MOYAI, TIMEOUT, Cluster, named_objects

Shape = Counter[str]


def census(cloud_name: str) -> Shape:
    """Everything that the project has in the cloud, by kind and name."""
    cloud = connect(cloud_name)
    found: Shape = Counter(f"{kind} {name}" for kind, name in named_objects(cloud))
    for kind, items in (
        ("volume", cloud.disks.volumes()),
        ("snapshot", cloud.disks.snapshots()),
        ("credential", cloud.credentials.credentials(name_prefix="")),
    ):
        found.update(f"{kind} {item.name}" for item in items)
    found.update(f"key {name}" for name in cloud.machines.keypairs())
    found.update(f"floating ip {one.description}" for one in cloud.addresses.floating_ips())
    return found


class Place:
    """One cluster. ``before``: what the project had without it."""

    def __init__(self, folder: Path, cloud: str, *, workers: int = 1, manifests: bool = True) -> None:
        self.cluster = Cluster(folder, cloud, workers=workers, manifests=manifests)
        self.name, self.cloud = self.cluster.name, cloud
        self.log = folder / "up.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def record(self) -> Record | None:
        return Record.open(default_paths(), self.name)

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a command; what it says goes to ``log``."""
        environment = {**os.environ, "MOYAI_CLUSTER": self.name}
        with self.log.open("wb") as log:
            self._process = subprocess.Popen([*MOYAI, *words], stdout=log, stderr=log, env=environment)
        return self._process

    def start_up(self) -> subprocess.Popen[bytes]:
        return self.start("up", str(self.cluster.folder), "--output", "json")

    def events(self) -> list[dict[str, Any]]:
        """What the command that ``start`` began has reported so far."""
        found: list[dict[str, Any]] = []
        for line in self.log.read_text(errors="replace").splitlines():
            try:
                one: Any = json.loads(line)
            except ValueError:
                continue
            if isinstance(one, dict) and "kind" in one:
                found.append(cast("dict[str, Any]", one))
        return found

    def under_way(self) -> list[str]:
        """The steps that had begun and not ended."""
        running: dict[str, None] = {}
        for one in self.events():
            if one["kind"] == "started":
                running[one["step"]] = None
            elif one["kind"] in ("finished", "failed"):
                running.pop(one["step"], None)
        return list(running)

    def wait_step(self, process: subprocess.Popen[bytes], words: str, *, seconds: float = 120.0) -> None:
        """Return once the command says that a step of this name has begun."""
        end = time.monotonic() + seconds
        while not any(one["kind"] == "started" and words in one["step"] for one in self.events()):
            insist(process.poll() is None, f"the command ended before it said {words!r}: {self.tail()}")
            insist(time.monotonic() < end, f"the command did not say {words!r} within {seconds:.0f} s: {self.tail()}")
            time.sleep(0.05)

    def ended(self, process: subprocess.Popen[bytes]) -> int:
        """Wait for the command; its exit code."""
        return process.wait(TIMEOUT)

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-1500:]

    def up(self) -> None:
        insist(self.ended(self.start_up()) == 0, f"`up` failed: {self.tail()}")

    def down(self) -> None:
        """Remove it; Broken unless nothing is left."""
        done = self.cluster.moyai("down", self.name, "--yes", "--output", "json")
        left = json.loads(done.stdout)["left"]
        insist(left == 0, f"`down` left {left} objects: {done.stdout[-1500:]}")

    def remove(self) -> None:
        """What a case that went wrong, or was interrupted, left."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self.record is not None:
            self.cluster.moyai("down", self.name, "--yes")

    # ---- what there is of it

    def shape(self) -> Shape:
        """What cloud, record and Kubernetes have of it."""
        record = self.record
        if record is None:
            raise Broken(f"cluster {self.name} has no record")
        found: Shape = Counter()
        for name, count in census(self.cloud).items():
            if self.name in name or record.uid in name:
                found[self._plain(name, record)] += count
        found.update(f"record {self._plain(str(key), record)}" for key in record.objects)
        found.update(f"allocation {self._plain(name, record)}" for name in record.allocations)
        nodes = json.loads(self.cluster.kubectl("get", "nodes", "-o", "json"))["items"]
        found.update(f"node {self._plain(one['metadata']['name'], record)}" for one in nodes)
        return found

    def check(self, wanted: Shape) -> None:
        """Broken unless the cluster is as an undisturbed `up` builds it, and `plan` has nothing to do."""
        found = self.shape()
        insist(set(found.values()) <= {1}, f"doubled: {[name for name, count in found.items() if count > 1]}")
        more, less = found - wanted, wanted - found
        insist(found == wanted, f"too many: {dict(more)}, missing: {dict(less)}")
        plan = json.loads(self.cluster.moyai("plan", str(self.cluster.folder), "--output", "json").stdout)
        insist(not plan["steps"], f"`plan` still has {[step['does'] for step in plan['steps']]}")

    def _plain(self, text: str, record: Record) -> str:
        return text.replace(self.name, "NAME").replace(record.uid, "UID")


@contextmanager
def standing(results: Results, cloud: str, *, folder: Path) -> Generator[Place]:
    """A cluster for several scenarios, which leaves nothing in the end."""
    before, place = census(cloud), Place(folder, cloud)
    try:
        with results.case("cluster", "`up`") as result, result.timed("up"):
            place.up()
        yield place
        with results.case("cluster", "`down`") as result:
            with result.timed("down"):
                place.down()
            insist(census(cloud) == before, f"left {census(cloud) - before}, lost {before - census(cloud)}")
    finally:
        place.remove()


def eventually(true: Callable[[], Any], seconds: float, *, late: Callable[[], str]) -> float:
    """Wait until it is true; returns the seconds. Broken, with what ``late`` says, when they run out."""
    began = time.monotonic()
    while not true():
        insist(time.monotonic() - began < seconds, f"not within {seconds:.0f} s: {late()}")
        time.sleep(0.5)
    return time.monotonic() - began
