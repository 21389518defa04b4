"""The clusters that this machine has a record of, and the way to their APIs."""

from __future__ import annotations

from pathlib import Path

from moyai.core.errors import Terminal, UsageError
from moyai.core.paths import Paths
from moyai.kube.quick import KubeApi
from moyai.lifecycle.record import Mirror, Record


def require(paths: Paths, name: str, *, mirror: Mirror | None = None) -> Record:
    """The record of a cluster that must be there. UsageError where it is not."""
    record = Record.open(paths, name, mirror=mirror)
    if record is None:
        known = Record.names(paths)
        there = f"there are {', '.join(known)}" if known else "`moyai up` makes one"
        raise UsageError(f"there is no cluster {name!r}", hint=there)
    return record


def set_aside(folder: Path) -> Path:
    """Where a restore keeps the record that it takes the place of. ``folder``: of the cluster's record."""
    return folder.parent.with_name("restores") / f"{folder.name}.before"


def open_api(record: Record) -> KubeApi | None:
    """The API of a recorded cluster, None when there is no kubeconfig yet, or a damaged one. Nothing is sent."""
    return record.api()


def require_api(record: Record) -> KubeApi:
    """The API of a recorded cluster. Terminal where ``open_api`` has none."""
    api = open_api(record)
    if api is None:
        raise no_kubeconfig(record.name)
    return api


def require_kubeconfig(record: Record) -> Path:
    """The administrator's kubeconfig. Terminal before there is one."""
    file = record.folder / "kubeconfig"
    if not file.exists():
        raise no_kubeconfig(record.name)
    return file


def no_kubeconfig(cluster: str = "") -> Terminal:
    """The error of a command that needs the API of a cluster that was never finished."""
    subject = f"cluster {cluster}" if cluster else "the cluster"
    return Terminal(f"{subject} has no kubeconfig yet", hint="`moyai up` continues to build it")
