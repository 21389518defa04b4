"""Work on a cluster: one command at a time, on this machine and on others, with the record's copy in the cluster kept up.

On this machine the lock is the kernel's and vanishes with its holder; across machines it is a Lease in the cluster. Always
holds: a change of the record is in the cluster before the caller acts on it, if the API answers; while it does not, this
machine's record goes on alone, and the copy catches up with a later change or at the end; where somebody else has changed the
copy meanwhile, nothing more is done. Nothing is asked before the API has answered once.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import replace

from moyai.core.clock import Clock, SystemClock
from moyai.core.errors import Conflict, MoyaiError, NotFound, Terminal, UsageError
from moyai.core.ids import is_dns_label
from moyai.core.locks import file_lock
from moyai.core.paths import Paths
from moyai.core.progress import Tell
from moyai.kube.quick import KubeApi
from moyai.lifecycle import record_files
from moyai.lifecycle.cluster_copy import ClusterCopy, read_copy, write_copy
from moyai.lifecycle.cluster_lease import TIMEOUT, ClusterBusy, ClusterLease, WorkHolder, this_worker
from moyai.lifecycle.clusters import open_api
from moyai.lifecycle.copy_choice import CopyFacts, CopyState, Goes, choose, keep_state, load_state, united
from moyai.lifecycle.kubeconfig import write_own
from moyai.lifecycle.record import Record

#: Seconds in which an API is not asked again that did not answer, or that lacked something.
QUIET, SOON = 10.0, 1.0


class Overtaken(ClusterBusy):
    """Somebody else has changed the record's copy while this command worked."""


@contextmanager
def locked(paths: Paths, name: str) -> Generator[None]:
    """Be the only one on this machine who changes cluster ``name`` while the block runs; Terminal at once when somebody else
    is."""
    if not is_dns_label(name):
        raise UsageError(f"{name!r} is no cluster's name", hint="should be a DNS label (a-z, 0-9, '-')")

    def refuse(holder: str) -> None:
        raise Terminal(f"another moyai ({holder}) is working on cluster {name}", hint="wait until it is done")

    with file_lock(paths.make_state("clusters") / f".{name}.lock", refuse):
        yield


@contextmanager
def working(
    paths: Paths, name: str, *, command: str, clock: Clock | None = None, tell: Tell | None = None
) -> Generator[ClusterWork]:
    """Be the only one on any machine. ``command``: as others are told. Terminal when somebody else is at work.

    The record is the newer one of this machine's and the cluster's when the block begins.
    """
    with locked(paths, name):
        worker = this_worker(command, paths.make_state("clusters"))
        work = ClusterWork(paths, name, worker=worker, clock=clock or SystemClock(), tell=tell or (lambda _: None))
        try:
            work.begin()
            yield work
        finally:
            work.end()


def take_newer(paths: Paths, name: str, *, tell: Tell, clock: Clock | None = None) -> None:
    """Bring this machine's record to the cluster's, where that is the newer one. Nothing is done where the API does not answer,
    or a command on this machine works on the cluster, and nothing in the cluster is changed."""
    if not (paths.clusters / name / record_files.RECORD).exists():
        return
    worker = this_worker("", paths.make_state("clusters"))
    work = ClusterWork(paths, name, worker=worker, clock=clock or SystemClock(), tell=tell)
    with suppress(MoyaiError):
        # first without the lock: another command must not be refused because somebody looks
        if work.look(take=False) in (Goes.CLUSTER, Goes.BOTH):
            with locked(paths, name):
                work.look(take=True)


class ClusterWork:
    """The mirror of the records that are opened for one command."""

    def __init__(self, paths: Paths, name: str, *, worker: WorkHolder, clock: Clock, tell: Tell) -> None:
        self._paths, self._name, self._worker = paths, name, worker
        self._clock, self._tell = clock, tell
        self._folder = paths.clusters / name
        self._lock = threading.Lock()
        self._lease: ClusterLease | None = None
        self._copy: ClusterCopy | None = None
        self._begun = False
        self._state = CopyState("")
        self._quiet_until = 0.0
        self._behind = ""

    # ---- for the command

    def begin(self) -> None:
        """ClusterBusy where somebody else is at work."""
        record = Record.open(self._paths, self._name, clock=self._clock)
        if record is not None and record.ready:
            with self._lock:
                self._bear(record, first=True)

    def look(self, *, take: bool) -> Goes:
        """Which copy goes on; ``take``: this machine's becomes it. Raises what the API's errors are."""
        record = Record.open(self._paths, self._name, clock=self._clock)
        api = open_api(record) if record is not None and record.ready else None
        if record is not None and api is not None and (found := read_copy(api, timeout=TIMEOUT)) is not None:
            self._state = load_state(self._folder)
            return self._settle(record, found, take=take)
        return Goes.SAME

    def end(self) -> None:
        """Bring the copy up, and let others work."""
        with self._lock:
            there = (self._folder / record_files.RECORD).exists()
            if self._lease is not None and not there:
                # the cluster is gone, and its API with it
                self._lease.stop()
                return
            with suppress(MoyaiError):
                record = Record.open(self._paths, self._name, clock=self._clock)
                if self._behind and record is not None and not isinstance(self._refused(), Overtaken):
                    self._quiet_until = 0.0
                    self._bear(record)
            if self._behind:
                self._tell(f"the record's copy in the cluster may be behind this machine's: {self._behind}")
            if self._copy is not None and there:
                state = replace(self._state, serial=self._copy.facts.serial, identity=self._copy.facts.identity)
                if state != load_state(self._folder):
                    keep_state(self._folder, state)
            if self._lease is not None:
                self._lease.release()

    def changed(self, record: Record) -> None:
        """As of ``Mirror``."""
        with self._lock:
            if refused := self._refused():
                raise refused
            if record.ready:
                self._bear(record)

    # ---- the copy

    def _refused(self) -> Overtaken | None:
        lost = self._lease.lost if self._lease else ""
        return self._overtaken(lost) if lost else None

    def _overtaken(self, who: str) -> Overtaken:
        return Overtaken(f"{who} on cluster {self._name} meanwhile", hint="the same command again goes on from there")

    def _bear(self, record: Record, *, first: bool = False) -> None:
        """Begin if need be, and write; where that does not work, the record goes on alone."""
        if self._clock.monotonic() < self._quiet_until:
            return
        api = open_api(record)
        if api is None:
            return
        try:
            if not self._begun:
                self._enter(api, record, first=first)
            self._write(api, record)
            self._behind = ""
        except ClusterBusy:
            raise
        except MoyaiError as error:
            self._behind = error.message
            # a cluster that has just begun to answer has no namespaces yet
            self._quiet_until = self._clock.monotonic() + (SOON if isinstance(error, NotFound) else QUIET)

    def _enter(self, api: KubeApi, record: Record, *, first: bool) -> None:
        """Take the Lease, and compare. ``first``: whether nothing was read of the record yet."""
        if self._lease is None:
            lease = ClusterLease(api, self._worker, name=self._name, clock=self._clock, tell=self._tell)
            lease.take(void=bool(record.restores))
            self._lease = lease
        found = read_copy(api, timeout=TIMEOUT)
        self._state = load_state(self._folder)
        if found is not None:
            goes = self._settle(record, found, take=first)
            if not first and goes in (Goes.CLUSTER, Goes.BOTH):
                raise self._overtaken(f"the record was changed ({found.said})")
        self._copy, self._begun = found, True

    def _settle(self, record: Record, found: ClusterCopy, *, take: bool) -> Goes:
        """Which copy goes on; ``take``: this machine's becomes it."""
        if found.uid and found.uid != record.uid:
            text = f"the API of cluster {self._name} is that of another cluster ({found.uid} instead of {record.uid})"
            raise Terminal(text, hint="`moyai up` writes the kubeconfig again")
        files = record_files.read(self._folder)
        here = CopyFacts(record_files.serial(files), record_files.identity(files), self._state.seat)
        goes = choose(here, found.facts, agreed=self._state, restores=bool(record.restores))
        if take and goes in (Goes.CLUSTER, Goes.BOTH):
            record_files.replace(self._folder, found.files if goes is Goes.CLUSTER else united(files, found.files))
            if any(files.get(one) != found.files.get(one) for one in ("pki/ca.crt", "pki/ca.key")):
                # the one that is there is trusted no more once a rotation has come to its end
                write_own(self._folder, self._name, clock=self._clock)
            self._state = replace(self._state, serial=found.facts.serial, identity=found.facts.identity)
            keep_state(self._folder, self._state)
            more = ", with the objects that only this machine has begun" if goes is Goes.BOTH else ""
            old, new = f"this machine's record of cluster {self._name} (write {here.serial})", f"the cluster's ({found.said})"
            self._tell(f"{old} is older than {new}, which takes its place{more}")
        return goes

    def _write(self, api: KubeApi, record: Record) -> None:
        """One request, if anything has changed."""
        files = record_files.read(self._folder)
        if self._copy is not None and record_files.identity(files) == self._copy.facts.identity:
            return
        for _ in range(3):
            try:
                self._copy = write_copy(
                    api,
                    files,
                    version=self._copy.version if self._copy else "",
                    seat=self._state.seat,
                    uid=record.uid,
                    writer=self._worker.person,
                    now=self._clock.now(),
                    timeout=TIMEOUT,
                )
            except NotFound:
                if self._copy is None:
                    # the namespace is not there yet
                    raise
                self._copy = None
            except Conflict:
                self._copy = self._ours(read_copy(api, timeout=TIMEOUT))
            else:
                return
        raise Conflict(f"the record's copy in cluster {self._name} changes all the time")

    def _ours(self, found: ClusterCopy | None) -> ClusterCopy | None:
        """The copy in another version, written by nobody else: a lost answer of our own, or another field. Overtaken where it
        is somebody else's."""
        known = self._copy.facts.identity if self._copy else ""
        if found is not None and found.facts.identity != known and found.facts.seat != self._state.seat:
            raise self._overtaken(f"the record was changed ({found.said})")
        return found
