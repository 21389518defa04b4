"""A small Kubernetes API in memory: versions, conflicts, finalizers, status apart, watches (``kube.client.Kube``)."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable
from typing import Any

from moyai.core.errors import Conflict, NotFound, Retriable
from moyai.kube.errors import Gone
from moyai.kube.resources import Json, Resource
from moyai.kube.watching import PatchKind, WatchEvent

Key = tuple[str, str, str]


class FakeKube:
    """``on_call``: told of each call before (name, False) and after (name, True) its effect; may raise."""

    def __init__(self) -> None:
        self.objects: dict[Key, Json] = {}
        self.version = 100
        self.log: list[tuple[int, str, str, Json]] = []
        self.oldest = 0
        self.on_call: Callable[[str, bool], None] = lambda _name, _after: None
        self.break_watches = asyncio.Event()
        self._changed = asyncio.Condition()

    # --- for tests

    def put(self, resource: Resource, body: Json) -> None:
        """Set an object from outside, as a user would."""
        asyncio.get_running_loop()
        meta = body["metadata"]
        key = (resource.plural, str(meta.get("namespace") or ""), str(meta["name"]))
        kind = "MODIFIED" if key in self.objects else "ADDED"
        body.setdefault("status", {})
        meta.setdefault("uid", f"uid-{meta['name']}")
        self._store(kind, key, body)

    def find(self, resource: Resource, name: str, namespace: str = "") -> Json:
        return self.objects[(resource.plural, namespace, name)]

    def all(self, resource: Resource) -> list[Json]:
        return [one for key, one in self.objects.items() if key[0] == resource.plural]

    def forget_history(self) -> None:
        """From now on every earlier version is too old to watch from."""
        self.log.clear()
        self.oldest = self.version

    def vanish(self, resource: Resource, name: str, namespace: str = "") -> None:
        """Remove without an event: what a client misses during a break."""
        self.version += 1
        del self.objects[(resource.plural, namespace, name)]

    def _store(self, kind: str, key: Key, body: Json) -> None:
        self.version += 1
        body["metadata"]["resourceVersion"] = str(self.version)
        meta = body["metadata"]
        if kind != "DELETED" and meta.get("deletionTimestamp") and not meta.get("finalizers"):
            kind = "DELETED"
        if kind == "DELETED":
            self.objects.pop(key, None)
        else:
            self.objects[key] = body
        self.log.append((self.version, kind, key[0], copy.deepcopy(body)))
        # kept: a task that nobody refers to may be collected
        self._notice = asyncio.ensure_future(self._notify())

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    # --- Kube

    async def list(self, resource: Resource, *, namespace: str | None = None, fields: str = "") -> tuple[list[Json], str]:
        self.on_call("list", False)
        field, _, wanted = fields.partition("=")
        assert field in ("", "spec.nodeName")
        found = [
            copy.deepcopy(one)
            for one in self.all(resource)
            if namespace in (None, one["metadata"].get("namespace")) and (not field or one["spec"].get("nodeName") == wanted)
        ]
        self.on_call("list", True)
        return found, str(self.version)

    async def watch(
        self,
        resource: Resource,
        version: str,
        *,
        namespace: str | None = None,
        server_seconds: int,
        silence_seconds: float,
    ) -> AsyncIterator[WatchEvent]:
        if int(version) < self.oldest:
            raise Gone("too old")
        seen = int(version)
        while True:
            for number, kind, plural, body in list(self.log):
                if number > seen and plural == resource.plural and namespace in (None, body["metadata"].get("namespace")):
                    seen = number
                    yield WatchEvent(kind, copy.deepcopy(body))
            if self.break_watches.is_set():
                raise Retriable("connection reset")
            async with self._changed:
                if not any(entry[0] > seen and entry[2] == resource.plural for entry in self.log):
                    try:
                        async with asyncio.timeout(silence_seconds):
                            await self._changed.wait()
                    except TimeoutError:
                        raise Retriable("silence") from None

    async def get(self, resource: Resource, name: str, *, namespace: str | None = None) -> Json:
        self.on_call("get", False)
        return copy.deepcopy(self._existing(resource, name, namespace)[1])

    async def create(self, resource: Resource, body: Json, *, namespace: str | None = None) -> Json:
        self.on_call("create " + resource.plural, False)
        key = (resource.plural, namespace or "", str(body["metadata"]["name"]))
        if key in self.objects:
            raise Conflict("already exists")
        made = copy.deepcopy(body)
        made["metadata"].setdefault("uid", f"uid-{self.version}")
        self._store("ADDED", key, made)
        self.on_call("create " + resource.plural, True)
        return copy.deepcopy(made)

    async def replace(self, resource: Resource, name: str, body: Json, *, namespace: str | None = None) -> Json:
        self.on_call("replace " + resource.plural, False)
        key, have = self._existing(resource, name, namespace)
        _check_version(have, body)
        self._store("MODIFIED", key, copy.deepcopy(body))
        self.on_call("replace " + resource.plural, True)
        return copy.deepcopy(self.objects[key])

    async def patch(
        self,
        resource: Resource,
        name: str,
        body: Json | list[Json],
        *,
        namespace: str | None = None,
        kind: PatchKind = "merge",
        subresource: str = "",
    ) -> Json:
        self.on_call(f"patch {resource.plural} {subresource}".strip(), False)
        assert isinstance(body, dict)
        key, have = self._existing(resource, name, namespace)
        _check_version(have, body)
        parts = ("status",) if subresource == "status" else ("metadata", "spec", "count", "lastTimestamp")
        changed = copy.deepcopy(have)
        for part in parts:
            if part in body:
                changed[part] = _merge(changed.get(part), body[part], strategic=kind == "strategic")
        if changed != have:
            self._store("MODIFIED", key, changed)
        self.on_call(f"patch {resource.plural} {subresource}".strip(), True)
        return copy.deepcopy(changed)

    async def delete(
        self, resource: Resource, name: str, *, namespace: str | None = None, uid: str = "", grace: int | None = None
    ) -> None:
        self.on_call("delete " + resource.plural, False)
        try:
            key, have = self._existing(resource, name, namespace)
        except NotFound:
            return
        if uid and have["metadata"]["uid"] != uid:
            raise Conflict("another uid")
        if have["metadata"].get("finalizers"):
            changed = copy.deepcopy(have)
            changed["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            self._store("MODIFIED", key, changed)
        else:
            self._store("DELETED", key, have)
        self.on_call("delete " + resource.plural, True)

    def _existing(self, resource: Resource, name: str, namespace: str | None) -> tuple[Key, Json]:
        key = (resource.plural, namespace or "", name)
        if key not in self.objects:
            raise NotFound(f"{resource.plural} {name} is not there")
        return key, self.objects[key]


def _check_version(have: Json, body: Json) -> None:
    wanted = body.get("metadata", {}).get("resourceVersion")
    if wanted and wanted != have["metadata"]["resourceVersion"]:
        raise Conflict("the object has been modified")


def _merge(have: Any, patch: Any, *, strategic: bool) -> Any:
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
            result[name] = _merge(result.get(name), value, strategic=strategic)
    return result
