"""A Kubernetes in memory: one store of objects, with the clients of the controllers and of the lifecycle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from moyai.core.errors import Conflict, NotFound, Retriable, Unreachable
from moyai.kube.errors import Gone
from moyai.kube.resources import PODS, Json, Resource
from moyai.kube.watching import PatchKind, WatchEvent
from tests.fakes.object_store import ObjectStore, copied, merged


class Kubernetes(ObjectStore):
    """As controllers see it (``kube.watching.Kube``)."""

    def __init__(self) -> None:
        super().__init__()
        self.break_watches = asyncio.Event()
        #: A watch sends a bookmark after so many seconds without an event.
        self.bookmark_seconds = float("inf")

    async def list(
        self, resource: Resource, *, namespace: str | None = None, fields: str = "", labels: str = ""
    ) -> tuple[list[Json], str]:
        label, _, value = labels.partition("=")
        with self.call(f"list {resource.plural}"):
            found = [copied(one) for one in self.all(resource) if chosen(one, namespace, fields=fields)]
            found = [one for one in found if not label or one["metadata"].get("labels", {}).get(label) == value]
            version = str(self.version)
        return found, version

    async def pages(self, resource: Resource, *, namespace: str | None = None) -> AsyncIterator[tuple[list[Json], str]]:
        yield await self.list(resource, namespace=namespace)

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
            return copied(self.existing(resource.plural, name, namespace=namespace)[1])

    async def create(self, resource: Resource, body: Json, *, namespace: str | None = None) -> Json:
        with self.call(f"create {resource.plural}"):
            return self.add(resource.plural, body, namespace=namespace)

    async def replace(self, resource: Resource, name: str, *, body: Json, namespace: str | None = None) -> Json:
        with self.call(f"replace {resource.plural}"):
            return self.exchange(*self.existing(resource.plural, name, namespace=namespace), body=body)

    async def patch(
        self,
        resource: Resource,
        name: str,
        *,
        body: Json | list[Json],
        namespace: str | None = None,
        kind: PatchKind = "merge",
        subresource: str = "",
    ) -> Json:
        assert isinstance(body, dict)
        with self.call(f"patch {resource.plural} {subresource}".strip()):
            key, have = self.existing(resource.plural, name, namespace=namespace)
            # metadata of a Node is taken with its status, as flannel and kubelets rely on it
            parts = ("metadata", "status") if subresource == "status" else ("metadata", "spec", "count", "lastTimestamp")
            changed = dict(have)
            for part in parts:
                if part in body:
                    changed[part] = merged(changed.get(part), body[part], strategic=kind == "strategic")
            return self.exchange(key, have, body=changed)

    async def delete(
        self, resource: Resource, name: str, *, namespace: str | None = None, uid: str = "", grace: int | None = None
    ) -> None:
        with self.call(f"delete {resource.plural}"), suppress(NotFound):
            key, have = self.existing(resource.plural, name, namespace=namespace)
            if uid and have["metadata"]["uid"] != uid:
                raise Conflict("another uid")
            self.remove(key, have)


class Way:
    """One process's way to it, for controllers; ``cut``: every call fails."""

    def __init__(self, kube: Kubernetes) -> None:
        self._kube = kube
        self.cut = False

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._kube, name)
        if name in ("watch", "pages"):
            return found

        async def call(*words: Any, **fields: Any) -> Any:
            if self.cut:
                raise Unreachable("no way to the API")
            return await found(*words, **fields)

        return call


class QuickKubernetes:
    """As the lifecycle sees it (``kube.quick.KubeApi``)."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.server = "https://192.0.2.1:6443"

    def ready(self, *, timeout: float = 2.0) -> bool:
        with self.store.call("get readyz"):
            return True

    def execute(self, namespace: str, pod: str, *, command: Sequence[str], timeout: float, given: bytes = b"") -> str:
        """No program runs here."""
        raise Retriable(f"exec in {namespace}/{pod}: not here")

    def serving_certificate(self, *, timeout: float = 5.0) -> bytes:
        self.store.on_call("get certificate", False)
        raise Retriable("nothing here speaks TLS")

    def get(self, resource: Resource, name: str, *, namespace: str | None = None, timeout: float | None = None) -> Json:
        with self.store.call(f"get {resource.plural}"):
            return copied(self.store.existing(resource.plural, name, namespace=namespace)[1])

    def list(
        self, resource: Resource, *, namespace: str | None = None, fields: str = "", timeout: float | None = None
    ) -> list[Json]:
        with self.store.call(f"list {resource.plural}"):
            return [copied(one) for one in self.store.all(resource) if chosen(one, namespace, fields=fields)]

    def create(
        self, resource: Resource, body: Mapping[str, Any], *, namespace: str | None = None, timeout: float | None = None
    ) -> Json:
        with self.store.call(f"create {resource.plural}"):
            return self.store.add(resource.plural, dict(body), namespace=namespace)

    def replace(
        self,
        resource: Resource,
        body: Mapping[str, Any],
        *,
        namespace: str | None = None,
        subresource: str = "",
        timeout: float | None = None,
    ) -> Json:
        with self.store.call(f"replace {resource.plural}"):
            found = self.store.existing(resource.plural, body["metadata"]["name"], namespace=namespace)
            return self.store.exchange(*found, body=dict(body))

    def patch(self, resource: Resource, name: str, *, body: Mapping[str, Any], namespace: str | None = None) -> Json:
        with self.store.call(f"patch {resource.plural}"):
            key, have = self.store.existing(resource.plural, name, namespace=namespace)
            return self.store.exchange(key, have, body=merged(have, dict(body), strategic=True))

    def apply(self, resource: Resource, body: Mapping[str, Any], *, manager: str) -> Json:
        """All fields but the status are the one manager's."""
        meta = body["metadata"]
        with self.store.call(f"apply {resource.plural}"):
            try:
                key, have = self.store.existing(resource.plural, meta["name"], namespace=meta.get("namespace"))
            except NotFound:
                return self.store.add(resource.plural, dict(body), namespace=meta.get("namespace"))
            kept = {name: have["metadata"][name] for name in ("uid", "resourceVersion")}
            changed = {**body, "metadata": {**meta, **kept}, "status": have.get("status", {})}
            return self.store.exchange(key, have, body=changed)

    def delete(self, resource: Resource, name: str, *, namespace: str | None = None, grace: int | None = None) -> None:
        with self.store.call(f"delete {resource.plural}"), suppress(NotFound):
            self.store.remove(*self.store.existing(resource.plural, name, namespace=namespace))

    def evict(self, namespace: str, pod: str) -> None:
        """Take a pod off its node."""
        with self.store.call(f"evict {PODS.plural}"):
            self.store.remove(*self.store.existing(PODS.plural, pod, namespace=namespace))


def chosen(found: Json, namespace: str | None, *, fields: str) -> bool:
    """Whether an object is in the namespace and fits the field selector."""
    field, _, wanted = fields.partition("=")
    about = found.get("involvedObject", {})
    fields_of = {
        "": "",
        "spec.nodeName": found.get("spec", {}).get("nodeName"),
        "type": found.get("type"),
        "involvedObject.uid": about.get("uid"),
        "involvedObject.kind": about.get("kind"),
    }
    return namespace in (None, found["metadata"].get("namespace")) and fields_of[field] == wanted
