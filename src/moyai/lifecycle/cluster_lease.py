"""Who works on a cluster, across machines: a Lease of kube-system that a command holds while it changes the cluster.

Always holds: clocks of different machines are never compared, a holder that renews within the Lease's time is at work;
a holder that was killed loses it after that time, or at once to a command on the same machine, where the kernel's lock shows
that nobody else is at work. Whoever waits is told who holds it.
"""

from __future__ import annotations

import getpass
import os
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from moyai.core.clock import Clock
from moyai.core.errors import Conflict, MoyaiError, NotFound, Terminal
from moyai.core.ids import CLUSTER_RECORD
from moyai.core.progress import Tell
from moyai.kube.leader import micro_time
from moyai.kube.objects.meta import number, part, text, text_map
from moyai.kube.quick import KubeApi
from moyai.kube.resources import KUBE_SYSTEM, LEASES, Json
from moyai.linux.proc import boot

#: Seconds: after so many without a renewal somebody else may take over; between two renewals; between two looks.
DURATION, RENEWAL, LOOK = 30, 5.0, 1.0
#: Seconds for a call that a command waits for.
TIMEOUT = 5.0
_COMMAND, _PLACE = "moyai.dev/command", "moyai.dev/place"


class ClusterBusy(Terminal):
    """Somebody else changes the cluster."""


@dataclass(frozen=True)
class WorkHolder:
    """Who works. ``person``: user and machine. ``command``: as typed. ``place``: the folder of records on a running kernel."""

    person: str
    process: int
    command: str
    place: str

    @property
    def holder(self) -> str:
        return f"{self.person} (process {self.process})"


def this_worker(command: str, folder: Path) -> WorkHolder:
    """This process. ``folder``: of the records."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"user {os.getuid()}"
    status = folder.stat()
    return WorkHolder(f"{user}@{socket.gethostname()}", os.getpid(), command, f"{boot()}/{status.st_dev}/{status.st_ino}")


class ClusterLease:
    """``lost``: who has taken it, empty while it is held or not taken yet."""

    def __init__(self, api: KubeApi, worker: WorkHolder, *, name: str, clock: Clock, tell: Tell) -> None:
        """``name``: the cluster's, for messages."""
        self._api, self._worker, self._name = api, worker, name
        self._clock, self._tell = clock, tell
        self._version = ""
        self._since = ""
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._renewing: threading.Thread | None = None
        self.lost = ""

    def take(self, *, void: bool = False) -> None:
        """Hold it from now on. ClusterBusy where somebody else is at work. ``void``: whoever held it is gone for certain."""
        seen, begun = "", self._clock.monotonic()
        while True:
            found = self._found()
            holder, place = _holder(found), text_map(found or {}, "metadata", "annotations").get(_PLACE, "")
            version = text(part(found or {}, "spec"), "renewTime") + holder
            late = self._clock.monotonic() - begun >= (number(part(found or {}, "spec"), "leaseDurationSeconds") or DURATION)
            if found is None or not holder or void or place == self._worker.place or (seen == version and late):
                if self._put(found):
                    break
                continue
            if not seen:
                self._tell(f"{_said(found)} on cluster {self._name}: looking whether that goes on")
                seen, begun = version, self._clock.monotonic()
            elif version != seen:
                raise ClusterBusy(f"{_said(found)} on cluster {self._name}", hint="wait until it is done")
            self._clock.sleep(LOOK)
        self._renewing = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._renewing.start()

    def release(self) -> None:
        """Hand it back, where it is held and the API answers."""
        self.stop()
        if self._renewing is None or self.lost:
            return
        with suppress(MoyaiError):
            self._put(self._found(), holder="")

    def stop(self) -> None:
        """Renew it no more; it ends by its own time."""
        self._stop.set()
        if self._renewing is not None:
            self._renewing.join(timeout=TIMEOUT)

    def _found(self) -> Json | None:
        try:
            return self._api.get(LEASES, CLUSTER_RECORD, namespace=KUBE_SYSTEM, timeout=TIMEOUT)
        except NotFound:
            return None

    def _put(self, found: Json | None, *, holder: str | None = None) -> bool:
        """Write it; False where somebody else was quicker."""
        now = micro_time(self._clock.now())
        holder = self._worker.holder if holder is None else holder
        spec: Json = {"holderIdentity": holder, "leaseDurationSeconds": DURATION, "renewTime": now}
        spec["acquireTime"] = self._since = self._since or now
        notes = {_COMMAND: self._worker.command, _PLACE: self._worker.place}
        labels = {"app.kubernetes.io/managed-by": "moyai"}
        meta: Json = {"name": CLUSTER_RECORD, "namespace": KUBE_SYSTEM, "labels": labels, "annotations": notes}
        body: Json = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}
        try:
            if found is None:
                made = self._api.create(LEASES, body, namespace=KUBE_SYSTEM, timeout=TIMEOUT)
            else:
                meta["resourceVersion"] = text(part(found, "metadata"), "resourceVersion")
                made = self._api.replace(LEASES, body, namespace=KUBE_SYSTEM, timeout=TIMEOUT)
        except Conflict:
            return False
        self._version = text(part(made, "metadata"), "resourceVersion")
        return True

    def _renew(self) -> None:
        while not self._stop.wait(RENEWAL):
            # what goes wrong now may go right in the next round; until then nobody else takes it
            with suppress(MoyaiError):
                self.renew()
            if self.lost:
                return

    def renew(self) -> None:
        """Once, for another while. Sets ``lost`` where somebody else has it."""
        with self._lock:
            found = {"metadata": {"resourceVersion": self._version}}
            if self._put(found):
                return
            there = self._found()
            if there is not None and _holder(there) not in ("", self._worker.holder):
                self.lost = _said(there)
            else:
                # a lost answer of an earlier renewal, or somebody's label
                self._put(there)


def _holder(found: Json | None) -> str:
    return text(part(found or {}, "spec"), "holderIdentity")


def _said(found: Json) -> str:
    notes, spec = text_map(found, "metadata", "annotations"), part(found, "spec")
    since = text(spec, "acquireTime")[:19]
    return f"{_holder(found)} has worked with `{notes.get(_COMMAND, 'moyai')}` since {since}Z"
