"""What a cluster's maker remembers: identity, spec, allocations of nodes, and every object that was ever begun.

Folder ``<state>/clusters/NAME`` (0700; files 0600). Always holds: what is on disk is whole (written aside, fsynced, renamed),
and an intent is on disk before the cloud is asked, so that whatever a kill leaves is found by name and adopted or removed.
``lifecycle.work`` has the lock and the copy in the cluster.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol, cast

from moyai.core.clock import Clock, SystemClock
from moyai.core.errors import Terminal
from moyai.core.files import naming, write_private
from moyai.core.ids import new_uid
from moyai.core.keys import Key, Kind
from moyai.core.paths import Paths
from moyai.kube.quick import KubeApi
from moyai.lifecycle import record_files
from moyai.lifecycle import record_format as form
from moyai.lifecycle.tokens import halves
from moyai.plan import keys
from moyai.plan.observed import NodeAllocation, Recorded
from moyai.plan.rotation import Rotation
from moyai.plan.versions import Upgrade
from moyai.spec.load import carried_on, validate
from moyai.spec.model import Cluster

#: A token is renewed when it has lived so long: what is left of its hour must be enough for a machine to boot and join.
TOKEN_FRESH = timedelta(minutes=30)
#: How long a machine that was started may take until its node is Ready: as long as kubeadm waits on it.
JOIN_TIME = timedelta(minutes=15)
_DAMAGED = "put it back from a backup; `moyai down --cloud CLOUD --uid UID` removes a cluster whose record is moved away"


class Mirror(Protocol):
    """Keeps a copy of records elsewhere."""

    def changed(self, record: Record) -> None:
        """What is on disk of the record has changed. Raises Terminal where the change must not be acted on."""
        ...


class Record:
    """A cluster's record, in memory and on disk; safe from several threads. Every change is on disk when the call returns. The
    file is written whole; changes of several threads share a write: else the time for N objects would grow with N²."""

    def __init__(self, folder: Path, data: dict[str, Any], *, clock: Clock | None = None, mirror: Mirror | None = None) -> None:
        self.folder, self._mirror = folder, mirror
        self._data = data
        self._objects = form.read_objects(data["objects"])
        self._clock = clock or SystemClock()
        self._lock = threading.RLock()
        self._writing = threading.Lock()
        self._version, self._written = 0, 0
        self._api: KubeApi | None = None
        self._api_text: str | None = None

    # ---- opening

    @classmethod
    def open(cls, paths: Paths, name: str, *, clock: Clock | None = None, mirror: Mirror | None = None) -> Record | None:
        """The record of cluster ``name``, None when there is none."""
        folder = paths.clusters / name
        file = folder / record_files.RECORD
        try:
            known = form.current(json.loads(file.read_text(encoding="utf-8")))
            if known["name"] != name:
                raise form.Unreadable(f"it is that of cluster {known['name']!r}")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError, form.Unreadable) as error:
            raise Terminal(f"record {file} cannot be read: {' '.join(str(error).split())[:200]}", hint=_DAMAGED) from None
        return cls(folder, known, clock=clock, mirror=mirror)

    @classmethod
    def create(
        cls,
        paths: Paths,
        name: str,
        *,
        spec: Mapping[str, Any],
        clock: Clock | None = None,
        uid: str = "",
        mirror: Mirror | None = None,
    ) -> Record:
        """A new record; without ``uid`` a new one is drawn."""
        clock = clock or SystemClock()
        folder = paths.make_state("clusters") / name
        with naming(folder):
            folder.mkdir(exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        data: dict[str, Any] = {
            "version": form.VERSION,
            "name": name,
            "uid": uid or new_uid(),
            "created": clock.now().isoformat(timespec="seconds"),
            "ready": "",
            "apiAddress": "",
            "spec": dict(spec),
            "seats": {},
            "objects": [],
        }
        record = cls(folder, data, clock=clock, mirror=mirror)
        record._version += 1
        record._save()
        return record

    @classmethod
    def names(cls, paths: Paths) -> list[str]:
        """Names of all clusters that have a record."""
        return sorted(file.parent.name for file in paths.clusters.glob("*/record.json"))

    # ---- reading

    @property
    def name(self) -> str:
        return str(self._data["name"])

    @property
    def uid(self) -> str:
        return str(self._data["uid"])

    @property
    def created(self) -> datetime:
        return datetime.fromisoformat(self._data["created"])

    @property
    def spec(self) -> dict[str, Any]:
        """The spec as ``spec.load.dump`` gave it at the last ``up``."""
        return cast("dict[str, Any]", self._data["spec"])

    @property
    def ready(self) -> bool:
        """Whether the control plane has answered once."""
        return bool(self._data["ready"])

    @property
    def restores(self) -> str:
        """When the backup was made (ISO 8601) that the cluster is being restored from; empty for any other cluster."""
        return str(self._data.get("restores", ""))

    @property
    def upgrade(self) -> Upgrade | None:
        """The upgrade that is under way or not finalized yet."""
        return form.read_upgrade(self._data.get("upgrade"))

    @property
    def rotation(self) -> Rotation | None:
        """The rotation of certificates or keys that is under way."""
        return form.read_rotation(self._data.get("rotation"))

    @property
    def api_address(self) -> str:
        """The API's floating address, empty before it is known."""
        return str(self._data["apiAddress"])

    @property
    def cluster(self) -> Cluster:
        """The same, validated; fields that are younger than the cluster are as the cluster has them. Raises UsageError for a
        spec that this version of moyai does not take."""
        return carried_on(validate(self.spec, source="record", recorded=True), self.spec)

    @property
    def cloud(self) -> str:
        """The name of the cloud that the cluster is in; readable whatever else the spec has."""
        return str(self.spec["spec"]["cloud"])

    @property
    def objects(self) -> dict[Key, form.MadeObject]:
        with self._lock:
            return {key: form.MadeObject(key, **value) for key, value in self._objects.items()}

    @property
    def allocations(self) -> dict[str, NodeAllocation]:
        """Node → its allocation."""
        with self._lock:
            return form.read_allocations(self._data["seats"])

    @property
    def intended(self) -> frozenset[Key]:
        """Objects whose making was begun at some time."""
        with self._lock:
            return frozenset(self._objects)

    def api(self) -> KubeApi | None:
        """The cluster's API, None where there is no kubeconfig, or one that cannot be used: `up` writes it again. Nothing is
        sent. The kubeconfig is taken apart once for each content."""
        try:
            text = (self.folder / "kubeconfig").read_text(encoding="utf-8")
        except (OSError, ValueError):
            return None
        with self._lock:
            if text != self._api_text:
                try:
                    self._api = KubeApi(text)
                except Terminal:
                    self._api = None
                self._api_text = text
            return self._api

    def recorded(self) -> Recorded:
        """What the planner asks of the past."""
        with self._lock:
            awaited = {key.name: entry["begun"] for key, entry in self._objects.items() if key.kind is Kind.NODE}
            return Recorded(
                self.name,
                self.uid,
                self.allocations,
                self.intended,
                ready=self.ready,
                api_address=self.api_address if self.api() else "",
                token_fresh=self.token_fresh,
                token_id=halves(self.secret("token"))[0],
                awaited=frozenset(awaited),
                joining=frozenset(name for name, begun in awaited.items() if not self._past(begun)),
                applied=self.ready and self._past(self._data["ready"]),
                restores=self.restores,
            )

    def _past(self, begun: str) -> bool:
        """Whether all that a machine does at its start is done, if it began then."""
        try:
            return self._clock.now() - datetime.fromisoformat(begun) >= JOIN_TIME
        except (TypeError, ValueError):
            return True  # edited by hand: nothing is waited for because of it

    # ---- changing

    def intend(self, key: Key, name: str = "") -> None:
        """Put on disk that the object ``key`` is about to be made. A key begun earlier keeps its date."""
        with self._lock:
            if key not in self._objects:
                self._objects[key] = {"begun": self._now(), "name": name}
                self._version += 1
        self._save()

    def made(self, key: Key, object_id: str, *, name: str = "") -> None:
        with self._lock:
            entry = self._objects.setdefault(key, {"begun": self._now()})
            entry["id"] = object_id
            if name:
                entry["name"] = name
            self._version += 1
        self._save()

    def await_node(self, name: str) -> None:
        """The machine of this node starts now; the node is to be seen Ready soon (``seen``)."""
        with self._lock:
            self._objects[keys.node_object(name)] = {"begun": self._now()}
            self._version += 1
        self._save()

    def seen(self, names: Iterable[str]) -> None:
        """These nodes are Ready."""
        self.forget(*map(keys.node_object, names))

    def forget(self, *gone: Key) -> None:
        """The objects are gone from the cloud."""
        with self._lock:
            if {key for key in gone if self._objects.pop(key, None) is not None}:
                self._version += 1
        self._save()

    def allocate(self, allocations: Mapping[str, NodeAllocation]) -> None:
        """These nodes have these indices and zones until they are released."""
        with self._lock:
            self._data["seats"] |= form.write_allocations(allocations)
            self._version += 1
        self._save()

    def release(self, name: str) -> None:
        """Nothing of the node is left: its index is free for another node."""
        with self._lock:
            if self._data["seats"].pop(name, None) is not None:
                self._version += 1
        self._save()

    def set_spec(self, spec: Mapping[str, Any]) -> None:
        self._set("spec", dict(spec))

    def set_upgrade(self, upgrade: Upgrade | None, *, version: str = "") -> None:
        """``version``: what the cluster has from now on, empty for what it had."""
        with self._lock:
            if version:
                inner = {**self.spec["spec"], "kubernetesVersion": version}
                self._data["spec"] = {**self.spec, "spec": inner}
                self._version += 1
        self._set("upgrade", form.write_upgrade(upgrade) if upgrade else {})

    def set_rotation(self, rotation: Rotation | None) -> None:
        self._set("rotation", form.write_rotation(rotation) if rotation else {})

    def set_api_address(self, address: str) -> None:
        self._set("apiAddress", address)

    def set_ready(self) -> None:
        with self._lock:
            if not self.ready:
                self._data["ready"] = self._now()
                self._version += 1
        self._save()

    def restored(self) -> None:
        """The cluster has come to what its backup says."""
        self._set("restores", "")

    def _set(self, field: str, value: Any) -> None:
        with self._lock:
            if self._data.get(field, "") != value:
                self._data[field] = value
                self._version += 1
        self._save()

    def remove(self) -> None:
        """Take the keys away, and the record last, so that a killed removal is seen. Terminal when anything stays."""
        record_files.remove(self.folder)

    # ---- secrets

    def secret(self, name: str) -> str:
        """A secret kept beside the record, empty when there is none."""
        with self._lock:
            return self.secrets().get(name, "")

    def keep_secret(self, name: str, value: str) -> None:
        with self._lock:
            self._write_secrets({**self.secrets(), name: value})
        self.publish()

    def keep_token(self, token: str) -> None:
        """The bootstrap token that machines join with, which lives from now on."""
        with self._lock:
            kept = {**self.secrets(), "token": token, "token made": self._clock.now().isoformat()}
            self._write_secrets(kept)
        self.publish()

    def forget_token(self) -> None:
        """Machines that join later need another token."""
        self.drop_secret("token", "token made")

    def drop_secret(self, *names: str) -> None:
        with self._lock:
            self._write_secrets({name: value for name, value in self.secrets().items() if name not in names})
        self.publish()

    def publish(self) -> None:
        """Files beside the record have changed."""
        with self._lock:
            self._version += 1
        self._save()

    @property
    def token_fresh(self) -> bool:
        """Whether the token lives long enough for a machine to boot and join."""
        made = self.secret("token made")
        if not made:
            return False
        # an age below zero: the clock was set back, so that the age is not known
        return timedelta() <= self._clock.now() - datetime.fromisoformat(made) < TOKEN_FRESH

    def secrets(self) -> dict[str, str]:
        """All secrets kept beside the record, in one read. Terminal where they are damaged."""
        return record_files.read_secrets(self.folder)

    def _write_secrets(self, secrets: Mapping[str, str]) -> None:
        write_private(self.folder / record_files.SECRETS, json.dumps(secrets, indent=1))

    def _now(self) -> str:
        return self._clock.now().isoformat(timespec="seconds")

    def _save(self) -> None:
        """Returns when everything that was changed until now is on disk, also where another thread wrote it."""
        version = self._version
        with self._writing:
            if self._written >= version:
                return
            with self._lock:
                version = self._version
                self._data["objects"] = [form.write_object(key, entry) for key, entry in self._objects.items()]
                self._data["serial"] = self._data.get("serial", 0) + 1
                text = json.dumps(self._data, indent=1)
            write_private(self.folder / record_files.RECORD, text)
            if self._mirror is not None:
                self._mirror.changed(self)
            self._written = version
