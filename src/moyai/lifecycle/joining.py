"""``join``: take over the record of a cluster that was built elsewhere, so that this machine can do all that its maker could.

Always holds: what is not to be taken over is refused before anything is written; a new record gets its name when it is whole;
the administrator's kubeconfig is a new one, made from the authorities in the record.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moyai.cloud.capabilities import Cloud
from moyai.core.clock import Clock
from moyai.core.errors import UsageError
from moyai.core.files import rename_durably
from moyai.core.paths import Paths
from moyai.lifecycle import record_files
from moyai.lifecycle import record_format as form
from moyai.lifecycle.copy_choice import CopyState, keep_state, load_state
from moyai.lifecycle.kubeconfig import write_own
from moyai.lifecycle.observe import find_clusters
from moyai.lifecycle.record import Record
from moyai.lifecycle.record_files import RECORD
from moyai.lifecycle.work import locked

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
#: Where a record lies until it is whole.
_ASIDE = "joining"


@dataclass(frozen=True)
class JoinSource:
    """Where a record comes from. ``authorities``: of the API that it was read through, empty for none. ``said``: for people."""

    files: Mapping[str, bytes]
    said: str
    authorities: bytes = b""


@dataclass(frozen=True)
class Joined:
    """``changed``: False where this machine had this very record already."""

    name: str
    uid: str
    cloud: str
    folder: Path
    serial: int
    changed: bool


def join(name: str, source: JoinSource, *, connect: Callable[[str], Cloud], paths: Paths, clock: Clock) -> Joined:
    """Make it the record of this machine. UsageError, with nothing changed, for a record of another cluster, one that is older
    than this machine's, a name that another cluster has here, and a cloud that does not hold the cluster."""
    uid, cloud = _checked(name, source)
    with locked(paths, name):
        there = Record.open(paths, name)
        if there is not None and there.uid != uid:
            raise UsageError(
                f"this machine knows another cluster {name} ({there.uid}) than that of {source.said} ({uid})",
                hint=f"`moyai down {name}` removes it, or use another state folder (MOYAI_STATE_DIR)",
            )
        here = record_files.read(there.folder) if there else {}
        serial, known = record_files.serial(source.files), record_files.serial(here)
        same = record_files.identity(here) == record_files.identity(source.files)
        if there is not None and not same and known >= serial:
            raise UsageError(
                f"{source.said} is not newer than this machine's record of cluster {name} (write {serial}, here {known})",
                hint="the next `moyai up` brings the cluster's copy up",
            )
        if uid not in find_clusters(connect(cloud)):
            raise UsageError(
                f"cloud {cloud} holds nothing of cluster {name} ({uid})",
                hint="your clouds.yaml should call the cluster's cloud and project by this name",
            )
        folder = paths.make_state("clusters") / name
        if there is None:
            _place(source.files, paths, name=name, clock=clock)
        elif not same:
            record_files.replace(folder, source.files)
            _agree(folder, source.files)
        if there is not None and not (same and (folder / "kubeconfig").exists()):
            write_own(folder, name, clock=clock)
    return Joined(name, uid, cloud, folder, serial=serial, changed=not same)


def _checked(name: str, source: JoinSource) -> tuple[str, str]:
    """(UID, name of the cloud) of the record."""
    try:
        found: dict[str, Any] = form.current(json.loads(source.files[RECORD]))
    except (KeyError, ValueError, RecursionError, form.Unreadable) as error:
        why = "it is not there" if isinstance(error, KeyError) else error
        raise UsageError(f"the record of {source.said} cannot be read: {why}") from None
    if found["name"] != name:
        raise UsageError(f"{source.said} is the record of cluster {found['name']}, not of {name}")
    own = source.files.get("pki/ca.crt", b"")
    if source.authorities and not set(_CERTIFICATE.findall(own)) & set(_CERTIFICATE.findall(source.authorities)):
        raise UsageError(f"{source.said} is the record of another cluster: its authority is not that of the API")
    return str(found["uid"]), str(found["spec"]["spec"]["cloud"])


def _place(files: Mapping[str, bytes], paths: Paths, *, name: str, clock: Clock) -> None:
    aside = paths.make_state(_ASIDE) / name
    # of a killed run: there are keys in it
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(mode=0o700)
    try:
        record_files.replace(aside, files)
        _agree(aside, files)
        write_own(aside, name, clock=clock)
        rename_durably(aside, paths.clusters / name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _agree(folder: Path, files: Mapping[str, bytes]) -> None:
    """From now on, what the cluster has is compared with these files."""
    seat = load_state(folder).seat
    keep_state(folder, CopyState(seat, record_files.serial(files), record_files.identity(files)))
