"""The clusters that this machine has a record of, and the way to their APIs."""

from __future__ import annotations

from moyai.core.errors import UsageError
from moyai.core.paths import Paths
from moyai.kube.quick import KubeApi
from moyai.lifecycle.record import Record


def require(paths: Paths, name: str) -> Record:
    """The record of a cluster that must be there. UsageError where it is not."""
    record = Record.open(paths, name)
    if record is None:
        known = Record.names(paths)
        there = f"there are {', '.join(known)}" if known else "`moyai up` makes one"
        raise UsageError(f"there is no cluster {name!r}", hint=there)
    return record


def open_api(record: Record) -> KubeApi | None:
    """The API of a recorded cluster, None when there is no kubeconfig yet, or a damaged one. Nothing is sent."""
    return record.api()
