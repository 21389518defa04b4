"""A client that never stops asking the API while its machines die, and what it saw: gaps, and what became of each write.

A write is acknowledged, refused, or unknown: nothing came back, and it may have been done all the same. Every call has a
connection of its own, as a client has that starts again after an error.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from cryptography import x509

from moyai.core.errors import MoyaiError, Retriable
from moyai.core.paths import default_paths
from moyai.kube.objects.node import CONTROL_PLANE
from moyai.kube.quick import KubeApi
from moyai.kube.resources import CONFIG_MAPS, NODES
from moyai.lifecycle.plane_status import PlaneStatus
from moyai.lifecycle.record import Record
from moyai.lifecycle.status import read
from tests.e2e.disks import Zoned

PAUSE, PATIENCE = 0.05, 1.0
#: The goal is 5 s on a busy machine.
ANSWERS_WITHIN = 5.0


@dataclass
class Seen:
    """``answered``: moments of answers. ``acknowledged``, ``unknown``: names of the objects of writes."""

    answered: list[float] = field(default_factory=list[float])
    acknowledged: set[str] = field(default_factory=set[str])
    unknown: set[str] = field(default_factory=set[str])

    def since(self, moment: float) -> int:
        """How many answers there were since then."""
        return sum(one >= moment for one in self.answered)

    def gaps(self, since: float) -> list[tuple[float, float]]:
        """The times without an answer since that moment, the longest first: (seconds, seconds from the moment to its begin)."""
        before = [one for one in self.answered if one < since]
        moments = [*before[-1:], *(one for one in self.answered if one >= since)]
        return sorted(((late - early, early - since) for early, late in pairwise(moments)), reverse=True)

    def gap(self, since: float) -> float:
        """The longest of them, in seconds."""
        return self.gaps(since)[0][0]


class Client:
    """Reads and writes in ``namespace`` every ``PAUSE`` seconds, each in a thread of its own. ``first``: number of a write."""

    def __init__(self, kubeconfig: Path, namespace: str, *, first: int = 0) -> None:
        self._api, self._namespace = KubeApi.from_file(kubeconfig, timeout=PATIENCE), namespace
        self.reads, self.writes = Seen(), Seen()
        self._end, self._first = threading.Event(), first
        self._threads = [threading.Thread(target=one) for one in (self._read, self._write)]

    def start(self) -> Client:
        for thread in self._threads:
            thread.start()
        return self

    def stop(self) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _read(self) -> None:
        while not self._end.wait(PAUSE):
            if self._api.ready(timeout=PATIENCE):
                self.reads.answered.append(time.monotonic())

    def _write(self) -> None:
        number = self._first
        while not self._end.wait(PAUSE):
            number += 1
            name = f"write-{number}"
            try:
                self._api.create(CONFIG_MAPS, {"metadata": {"name": name}}, namespace=self._namespace)
            except Retriable:
                self.writes.unknown.add(name)
            except MoyaiError:
                continue  # refused: nothing was done
            else:
                self.writes.acknowledged.add(name)
                self.writes.answered.append(time.monotonic())

    def lost(self, api: KubeApi) -> set[str]:
        """Acknowledged writes that the cluster does not have."""
        stored = {one["metadata"]["name"] for one in api.list(CONFIG_MAPS, namespace=self._namespace)}
        return self.writes.acknowledged - stored


def holder(api: KubeApi) -> str:
    """The node that answers at the API's address: its name is in the certificate that it shows."""
    shown = x509.load_der_x509_certificate(api.serving_certificate())
    names = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    planes = {one["metadata"]["name"] for one in api.list(NODES) if CONTROL_PLANE in one["metadata"]["labels"]}
    (found,) = planes & set(names)
    return found


class Planes(Zoned):
    """A cluster with three control planes, and a worker in each of two zones."""

    def write(self, workers: int, planes: int = 3) -> None:
        spec = {
            "cloud": self.cloud,
            "controlPlane": {"replicas": planes, "flavor": "m1.small"},
            "nodePools": [{"name": "workers", "replicas": workers}],
        }
        (self.folder / "cluster.yaml").write_text(json.dumps({"metadata": {"name": self.name}, "spec": spec}))

    def settled(self, *, within: float = 120.0) -> tuple[PlaneStatus, ...]:
        """Waits until `status` calls nothing a problem; the control planes as they were at that moment.

        Two readings would not do: what watches a machine that has gone may start once more between them.
        """
        record = Record.open(default_paths(), self.name)
        assert record is not None
        end = time.monotonic() + within
        while (found := read(record, self.provider)).problems:
            assert time.monotonic() < end, f"after {within:.0f} s: {'; '.join(found.problems)}"
            time.sleep(0.5)
        return found.control_planes

    def machines(self) -> set[str]:
        """Names of the cluster's servers."""
        return {server.name for server in self.provider.machines.servers() if server.name.startswith(f"{self.name}-")}


def gaps(client: Client, since: float) -> str:
    """The longest times without an answer, and what became of the writes."""
    found = {
        what: ", ".join(f"{seconds:.2f} s after {begin:.1f} s" for seconds, begin in seen.gaps(since)[:3])
        for what, seen in (("reads", client.reads), ("writes", client.writes))
    }
    return (
        f"{len(client.writes.acknowledged)} writes acknowledged, {len(client.writes.unknown)} unknown; "
        f"without an answer to reads: {found['reads']}; to writes: {found['writes']}"
    )


def taken(said: str) -> str:
    """The steps of an `up` that a client could notice, with the seconds from its start."""
    seen = ("server ", "move ", "stop ", "remove ", "Ready", "drain ")
    return "\n".join(line for line in said.splitlines() if "✓" in line and any(word in line for word in seen))
