"""What all executors of one run share: the cloud, the record, what is made so far, and the way into the cluster.

Always holds: the intent is on disk before anything is made, and the id at once afterwards. Thread-safe: steps run side by side.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar

from moyai.cloud.capabilities import Cloud
from moyai.core.clock import Clock
from moyai.core.errors import Terminal
from moyai.core.ids import cluster_tag
from moyai.core.keys import Key
from moyai.core.progress import Progress
from moyai.kube.quick import KubeApi
from moyai.lifecycle.clusters import no_kubeconfig
from moyai.lifecycle.machine_notes import MachineNotes
from moyai.lifecycle.record import Record
from moyai.plan.graph import Made
from moyai.plan.steps import Step

#: Carries out one step; it may be called again at any time.
Handler = Callable[[Step, Progress], None]
S = TypeVar("S", bound=Step)


def handles(kind: type[S], call: Callable[[S, Progress], None]) -> tuple[type[Step], Handler]:
    """A row of the table from class of step to call: ``call`` takes steps of this class."""

    def handler(step: Step, progress: Progress) -> None:
        assert isinstance(step, kind)
        call(step, progress)

    return kind, handler


class Context:
    """``record`` and ``machine_notes`` are None where nothing is kept. ``open_api``: the cluster's API, None
    while no kubeconfig is there."""

    def __init__(
        self,
        cloud: Cloud,
        record: Record | None,
        *,
        uid: str,
        clock: Clock,
        made: Made | None = None,
        open_api: Callable[[], KubeApi | None] = lambda: None,
        machine_notes: MachineNotes | None = None,
    ) -> None:
        self.cloud = cloud
        self.record = record
        self.uid = uid
        self.tags = (cluster_tag(uid),)
        self.clock = clock
        self.abort = threading.Event()
        self.notes: list[str] = []
        self.machine_notes = machine_notes
        self._open_api = open_api
        self._api: KubeApi | None = None
        start = made or Made()
        self._ids = dict(start.ids)
        # a view: what is made later is seen in it
        self._made = replace(start, ids=MappingProxyType(self._ids))
        self._lock = threading.Lock()

    @property
    def made(self) -> Made:
        """What is made so far."""
        with self._lock:
            return self._made

    def id(self, key: Key) -> str:
        """The id of an object that exists or was made by an earlier step."""
        return self.made.id(key)

    def intend(self, key: Key, name: str = "") -> None:
        if self.record is not None:
            self.record.intend(key, name)

    def keep(self, key: Key, object_id: str, *, name: str = "", mtu: int = 0, api_address: str = "") -> None:
        """The object is made: known to later steps, and on record."""
        with self._lock:
            self._ids[key] = object_id
            if mtu or api_address:
                made = self._made
                self._made = replace(made, network_mtu=mtu or made.network_mtu, api_address=api_address or made.api_address)
        if self.record is not None:
            self.record.made(key, object_id, name=name)

    def await_node(self, name: str) -> None:
        """The node's machine starts now."""
        if self.record is not None:
            self.record.await_node(name)

    def use(self, key: Key, object_id: str) -> None:
        """An object that is not the cluster's serves as ``key`` in later steps; it is not on record."""
        with self._lock:
            self._ids[key] = object_id

    def forget(self, key: Key) -> None:
        if self.record is not None:
            self.record.forget(key)

    def require_record(self) -> Record:
        """The record of a run that has one."""
        if self.record is None:
            raise Terminal("this step needs the cluster's record, and there is none")
        return self.record

    def api(self) -> KubeApi:
        """The cluster's API; a plan's order sees to it that its kubeconfig is written."""
        with self._lock:
            if self._api is None:
                self._api = self._open_api()
            if self._api is None:
                raise no_kubeconfig(self.record.name if self.record else "")
            return self._api
