"""The copy of a record in its cluster: a Secret of kube-system, which goes with the cluster.

Always holds: it is replaced only in the version that this process has read or written last, so that a change of somebody else
is never lost; one request for a change. Whoever may read Secrets of kube-system has the cluster's authorities by it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from moyai.core.errors import NotFound, Terminal
from moyai.core.ids import CLUSTER_RECORD
from moyai.kube.objects.meta import part, stamp, text, text_map
from moyai.kube.quick import KubeApi
from moyai.kube.resources import KUBE_SYSTEM, SECRETS, Json
from moyai.lifecycle import record_files
from moyai.lifecycle.copy_choice import CopyFacts
from moyai.lifecycle.record_files import UnreadableCopy

_KEY = "record"
_TYPE = "moyai.dev/record"
_SERIAL, _SEAT, _WRITER, _WRITTEN, _UID = (
    f"moyai.dev/{name}" for name in ("serial", "seat", "written-by", "written-at", "cluster-uid")
)


@dataclass(frozen=True)
class ClusterCopy:
    """``version``: the API's, of the Secret. ``writer``: a person and a machine. ``written``: when, by the writer's clock."""

    files: Mapping[str, bytes]
    facts: CopyFacts
    version: str
    writer: str
    written: str
    uid: str

    @property
    def said(self) -> str:
        return f"write {self.facts.serial}, by {self.writer or 'somebody'} at {self.written or 'some time'}"


def read_copy(api: KubeApi, *, timeout: float) -> ClusterCopy | None:
    """None where the cluster has none. Terminal for one that this version of moyai cannot read."""
    try:
        found = api.get(SECRETS, CLUSTER_RECORD, namespace=KUBE_SYSTEM, timeout=timeout)
    except NotFound:
        return None
    return parse_copy(found)


def parse_copy(found: Json) -> ClusterCopy:
    """Of the Secret as the API shows it. Terminal where it is damaged."""
    notes = text_map(found, "metadata", "annotations")
    try:
        files = record_files.unpack(base64.b64decode(text(part(found, "data"), _KEY), validate=True))
    except (UnreadableCopy, binascii.Error) as error:
        why = str(error) if isinstance(error, UnreadableCopy) else "it is damaged"
        text_ = f"the record in Secret {KUBE_SYSTEM}/{CLUSTER_RECORD} cannot be read: {why}"
        raise Terminal(text_, hint="delete the Secret: the next `moyai up` on a machine with the record writes it") from None
    facts = CopyFacts(record_files.serial(files), record_files.identity(files), notes.get(_SEAT, ""))
    version = text(part(found, "metadata"), "resourceVersion")
    return ClusterCopy(files, facts, version, notes.get(_WRITER, ""), notes.get(_WRITTEN, ""), notes.get(_UID, ""))


def write_copy(
    api: KubeApi,
    files: Mapping[str, bytes],
    *,
    version: str,
    seat: str,
    uid: str,
    writer: str,
    now: datetime,
    timeout: float,
) -> ClusterCopy:
    """Make the Secret, or replace it in this ``version``; empty: there is none. Conflict where that is not so any more,
    NotFound where it is gone."""
    facts = CopyFacts(record_files.serial(files), record_files.identity(files), seat)
    notes = {_SERIAL: str(facts.serial), _SEAT: seat, _WRITER: writer, _WRITTEN: stamp(now), _UID: uid}
    labels = {"app.kubernetes.io/managed-by": "moyai", "app.kubernetes.io/name": CLUSTER_RECORD}
    meta: Json = {"name": CLUSTER_RECORD, "namespace": KUBE_SYSTEM, "labels": labels, "annotations": notes}
    if version:
        meta["resourceVersion"] = version
    data = {_KEY: base64.b64encode(record_files.pack(files)).decode("ascii")}
    body: Json = {"apiVersion": "v1", "kind": "Secret", "type": _TYPE, "metadata": meta, "data": data}
    call = api.replace if version else api.create
    made = call(SECRETS, body, namespace=KUBE_SYSTEM, timeout=timeout)
    return ClusterCopy(files, facts, text(part(made, "metadata"), "resourceVersion"), writer, stamp(now), uid)
