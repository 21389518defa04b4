"""What a Kubernetes API server keeps: objects with versions, finalizers and a history of changes to watch.

Both faces of the Kubernetes in memory stand on it, that of controllers and that of the lifecycle. Always holds: what comes in
or goes out is a copy; an object without finalizers that is being deleted is gone.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from moyai.core.errors import Conflict, NotFound
from moyai.kube.resources import Json

#: Plural, namespace, name.
Key = tuple[str, str, str]


@dataclass(frozen=True)
class Change:
    version: int
    kind: str
    object: Json


def copied(value: Any) -> Any:
    """A deep copy of JSON; copy.deepcopy takes ten times as long."""
    if isinstance(value, dict):
        return {key: copied(one) for key, one in value.items()}  # pyright: ignore[reportUnknownVariableType]
    return [copied(one) for one in value] if isinstance(value, list) else value  # pyright: ignore[reportUnknownVariableType]


class ObjectStore:
    """``on_call``: hears of each call before (name, False) and after (name, True) its effect; may raise. ``calls`` counts."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.objects: dict[Key, Json] = {}
        self.kinds: dict[str, dict[Key, None]] = {}
        self.version = 100
        self.oldest = 0
        self.calls: Counter[str] = Counter()
        self.on_call: Callable[[str, bool], None] = lambda _name, _after: None
        self._log: dict[str, list[Change]] = {}
        self._listeners: list[Callable[[str], None]] = []

    # ---- for tests

    def put(self, resource: Any, body: Json) -> None:
        """Set an object from outside, as a user would."""
        meta = body["metadata"]
        key = (resource.plural, str(meta.get("namespace") or ""), str(meta["name"]))
        body.setdefault("status", {})
        meta.setdefault("uid", f"uid-{meta['name']}")
        with self.lock:
            self._store("MODIFIED" if key in self.objects else "ADDED", key, body=body)

    def find(self, resource: Any, name: str, *, namespace: str = "") -> Json:
        return self.objects[(resource.plural, namespace, name)]

    def all(self, resource: Any) -> list[Json]:
        return [self.objects[key] for key in self.kinds.get(resource.plural, ())]

    def forget_history(self) -> None:
        """From now on every earlier version is too old to watch from."""
        with self.lock:
            self._log.clear()
            self.oldest = self.version

    def vanish(self, resource: Any, name: str, *, namespace: str = "") -> None:
        """Remove without an event: what a client misses during a break."""
        with self.lock:
            self.version += 1
            key = (resource.plural, namespace, name)
            del self.objects[key]
            del self.kinds[resource.plural][key]

    # ---- history

    def listen(self, listener: Callable[[str], None]) -> Callable[[], None]:
        """``listener`` hears the plural of whatever changes, in the thread that changes it. Returns how to stop that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def since(self, plural: str, version: int) -> list[Change]:
        with self.lock:
            log = self._log.get(plural, [])
            return log[bisect_right(log, version, key=lambda one: one.version) :]

    # ---- what a server does

    @contextmanager
    def call(self, name: str) -> Generator[None]:
        self.on_call(name, False)
        self.calls[name] += 1
        with self.lock:
            yield
        self.on_call(name, True)

    def existing(self, plural: str, name: str, *, namespace: str | None) -> tuple[Key, Json]:
        key = (plural, namespace or "", name)
        if key not in self.objects:
            raise NotFound(f"{plural} {name} is not there")
        return key, self.objects[key]

    def add(self, plural: str, body: Json, *, namespace: str | None) -> Json:
        key = (plural, namespace or "", str(body["metadata"]["name"]))
        if key in self.objects:
            raise Conflict("already exists")
        made = copied(body)
        if namespace:
            made["metadata"]["namespace"] = namespace
        made["metadata"].setdefault("uid", f"uid-{self.version}")
        self._store("ADDED", key, body=made)
        return copied(made)

    def exchange(self, key: Key, have: Json, *, body: Json) -> Json:
        """Put ``body`` in the place of ``have``, unless it says that it is a change of another version."""
        wanted = body.get("metadata", {}).get("resourceVersion")
        if wanted and wanted != have["metadata"]["resourceVersion"]:
            raise Conflict("the object has been modified")
        changed = copied(body)
        changed["metadata"]["resourceVersion"] = have["metadata"]["resourceVersion"]
        if changed != have:
            self._store("MODIFIED", key, body=changed)
        return copied(self.objects.get(key, changed))

    def remove(self, key: Key, have: Json) -> None:
        gone = copied(have)
        if gone["metadata"].get("finalizers"):
            gone["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            self._store("MODIFIED", key, body=gone)
        else:
            self._store("DELETED", key, body=gone)

    def _store(self, kind: str, key: Key, *, body: Json) -> None:
        self.version += 1
        meta = body["metadata"]
        meta["resourceVersion"] = str(self.version)
        if meta.get("deletionTimestamp") and not meta.get("finalizers"):
            kind = "DELETED"
        if kind == "DELETED":
            self.objects.pop(key, None)
            self.kinds.get(key[0], {}).pop(key, None)
        else:
            self.objects[key] = body
            self.kinds.setdefault(key[0], {})[key] = None
        self._log.setdefault(key[0], []).append(Change(self.version, kind, copied(body)))
        for listener in list(self._listeners):
            listener(key[0])


def merged(have: Any, patch: Any, *, strategic: bool) -> Any:
    """A merge patch; of strategic ones, moyai uses lists of conditions, merged by their type."""
    if not isinstance(patch, dict):
        return patch
    result: dict[str, Any] = dict(have) if isinstance(have, dict) else {}  # pyright: ignore[reportUnknownArgumentType]
    for key, value in patch.items():  # pyright: ignore[reportUnknownVariableType]
        name = str(key)  # pyright: ignore[reportUnknownArgumentType]
        if value is None:
            result.pop(name, None)
        elif strategic and name == "conditions":
            known = {one["type"]: one for one in result.get(name, [])}
            known.update({one["type"]: one for one in value})  # pyright: ignore[reportUnknownVariableType]
            result[name] = list(known.values())
        else:
            result[name] = merged(result.get(name), value, strategic=strategic)
    return result
