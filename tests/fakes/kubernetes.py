"""A Kubernetes in memory: one store of objects, with the face that controllers see and the one that the lifecycle sees."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from moyai.core.errors import Conflict, NotFound, Retriable
from moyai.kube.watching import Gone, Json, PatchKind, Resource, WatchEvent
from tests.fakes.object_store import ObjectStore, copied, merged


class Kubernetes(ObjectStore):
    """As controllers see it (``kube.watching.Kube``)."""

    def __init__(self) -> None:
        super().__init__()
        self.break_watches = asyncio.Event()
        #: After so many seconds without news a watch says that it is there still.
        self.bookmark_seconds = float("inf")

    async def list(self, resource: Resource, *, namespace: str | None = None, fields: str = "") -> tuple[list[Json], str]:
        field, _, wanted = fields.partition("=")
        assert field in ("", "spec.nodeName")
        with self.call(f"list {resource.plural}"):
            found = [
                copied(one)
                for one in self.all(resource)
                if namespace in (None, one["metadata"].get("namespace"))
                and (not field or one["spec"].get("nodeName") == wanted)
            ]
            version = str(self.version)
        return found, version

    async def watch(
        self,
        resource: Resource,
        version: str,
        *,
        namespace: str | None = None,
        server_seconds: int,
        silence_seconds: float,
    ) -> AsyncIterator[WatchEvent]:
        self.calls[f"watch {resource.plural}"] += 1
        if int(version) < self.oldest:
            raise Gone("too old")
        loop, seen, news = asyncio.get_running_loop(), int(version), asyncio.Event()

        def tell(plural: str) -> None:
            if plural == resource.plural:
                loop.call_soon_threadsafe(news.set)

        stop = self.listen(tell)
        try:
            while True:
                news.clear()
                for change in self.since(resource.plural, seen):
                    seen = change.version
                    if namespace in (None, change.object["metadata"].get("namespace")):
                        yield WatchEvent(change.kind, copied(change.object))
                if self.break_watches.is_set():
                    raise Retriable("connection reset")
                try:
                    async with asyncio.timeout(min(silence_seconds, self.bookmark_seconds)):
                        await news.wait()
                except TimeoutError:
                    if silence_seconds <= self.bookmark_seconds:
                        raise Retriable("silence") from None
                    yield WatchEvent("BOOKMARK", {"metadata": {"resourceVersion": str(seen)}})
        finally:
            stop()

    async def get(self, resource: Resource, name: str, *, namespace: str | None = None) -> Json:
        with self.call(f"get {resource.plural}"):
            return copied(self.existing(resource.plural, name, namespace)[1])

    async def create(self, resource: Resource, body: Json, *, namespace: str | None = None) -> Json:
        with self.call(f"create {resource.plural}"):
            return self.add(resource.plural, body, namespace)

    async def replace(self, resource: Resource, name: str, body: Json, *, namespace: str | None = None) -> Json:
        with self.call(f"replace {resource.plural}"):
            return self.exchange(*self.existing(resource.plural, name, namespace), body)

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
        assert isinstance(body, dict)
        with self.call(f"patch {resource.plural} {subresource}".strip()):
            key, have = self.existing(resource.plural, name, namespace)
            parts = ("status",) if subresource == "status" else ("metadata", "spec", "count", "lastTimestamp")
            changed = dict(have)
            for part in parts:
                if part in body:
                    changed[part] = merged(changed.get(part), body[part], strategic=kind == "strategic")
            return self.exchange(key, have, changed)

    async def delete(
        self, resource: Resource, name: str, *, namespace: str | None = None, uid: str = "", grace: int | None = None
    ) -> None:
        with self.call(f"delete {resource.plural}"), suppress(NotFound):
            key, have = self.existing(resource.plural, name, namespace)
            if uid and have["metadata"]["uid"] != uid:
                raise Conflict("another uid")
            self.remove(key, have)


class QuickKubernetes:
    """As the lifecycle sees it (``kube.quick.KubeApi``): calls by path."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.server = "https://192.0.2.1:6443"

    def ready(self, *, timeout: float = 2.0) -> bool:
        with self.store.call("get readyz"):
            return True

    def get(self, path: str, *, timeout: float | None = None) -> Json:
        at = _parts(path)
        if not at.name:
            return {"items": self.listed(at)}
        with self.store.call(f"get {at.plural}"):
            return copied(self.store.existing(at.plural, at.name, at.namespace)[1])

    def items(self, path: str, *, timeout: float | None = None) -> list[Json]:
        return self.listed(_parts(path))

    def listed(self, at: Place) -> list[Json]:
        field, _, wanted = at.fields.partition("=")
        assert field in ("", "spec.nodeName")
        with self.store.call(f"list {at.plural}"):
            return [
                copied(one)
                for one in (self.store.objects[key] for key in self.store.kinds.get(at.plural, ()))
                if at.namespace in (None, one["metadata"].get("namespace"))
                and (not field or one["spec"].get("nodeName") == wanted)
            ]

    def create(self, path: str, body: Mapping[str, Any]) -> Json:
        at = _parts(path)
        if at.subresource == "eviction":
            with self.store.call("evict pods"):
                self.evict(at)
            return {}
        with self.store.call(f"create {at.plural}"):
            return self.store.add(at.plural, dict(body), at.namespace)

    def evict(self, at: Place) -> None:
        """Take a pod off its node."""
        self.store.remove(*self.store.existing(at.plural, at.name, at.namespace))

    def patch(self, path: str, body: Mapping[str, Any]) -> Json:
        at = _parts(path)
        with self.store.call(f"patch {at.plural}"):
            key, have = self.store.existing(at.plural, at.name, at.namespace)
            return self.store.exchange(key, have, merged(have, dict(body), strategic=True))

    def delete(self, path: str, body: Mapping[str, Any] | None = None) -> None:
        at = _parts(path)
        with self.store.call(f"delete {at.plural}"), suppress(NotFound):
            self.store.remove(*self.store.existing(at.plural, at.name, at.namespace))


@dataclass(frozen=True)
class Place:
    """What a path of the API names. ``fields``: a field selector."""

    plural: str
    namespace: str | None
    name: str
    subresource: str
    fields: str


def _parts(path: str) -> Place:
    found = urlsplit(path)
    words = found.path.strip("/").split("/")
    rest = words[2:] if words[0] == "api" else words[3:]
    namespace = None
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    plural, name, subresource = [*rest, "", ""][:3]
    return Place(plural, namespace, name, subresource, parse_qs(found.query).get("fieldSelector", [""])[0])
