"""A cache of all objects of one kind, kept by list and watch, that never misses a deletion.

Always holds: after every break of the watch that could have lost something (410, an error in the stream) everything is listed
again and compared with the cache, so that handlers hear of each object that came, changed or went. A watch that breaks
again and again, or hears nothing, is counted, logged and makes ``healthy`` false: an alarm, not a silence. An object that
``parse`` fails on ends nothing: it is reported, and what was known of it before stays known.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Collection
from typing import Generic, TypeVar

from moyai.core.backoff import Backoff
from moyai.core.clock import Clock, SystemClock
from moyai.core.errors import MoyaiError, NotFound
from moyai.kube.errors import Gone
from moyai.kube.objects import object_key
from moyai.kube.resources import Json, Resource
from moyai.kube.watching import Kube

T = TypeVar("T")
#: Called with an object as the API has it, and why it cannot be read.
Unreadable = Callable[[Json, Exception], None]
#: Called with (key, old, new): old None for what came, new None for what went. In the event loop; must not block.
Handler = Callable[[str, T | None, T | None], None]

_log = logging.getLogger(__name__)

#: The API server ends a watch after this long (a random part spreads the watches of all clients).
_SERVER_SECONDS = 300
#: The API server sends a bookmark about once a minute: silence for longer means that the connection is dead.
_SILENCE_SECONDS = 100.0
_UNHEALTHY_SECONDS = 60.0


class Informer(Generic[T]):
    """``parse`` makes a fact of an object; handlers and readers see only facts. ``run`` works until cancelled.

    ``namespace``: only what is in it; the keys are ``namespace/name`` all the same. ``optional``: the API may have no such
    resource; then there are no objects, until it has.
    """

    def __init__(
        self,
        kube: Kube,
        resource: Resource,
        *,
        parse: Callable[[Json], T],
        namespace: str | None = None,
        optional: bool = False,
        clock: Clock | None = None,
        on_break: Callable[[str, str], None] = lambda _resource, _why: None,
        on_unreadable: Unreadable = lambda _object, _why: None,
        silence_seconds: float = _SILENCE_SECONDS,
        backoff: Backoff | None = None,
    ) -> None:
        self.resource = resource
        self.synced = asyncio.Event()
        self._kube = kube
        self._parse = parse
        self._namespace = namespace
        self._optional = optional
        self._clock = clock or SystemClock()
        self._on_break = on_break
        self._on_unreadable = on_unreadable
        self._silence = silence_seconds
        self._backoff = backoff or Backoff(base=0.2, ceiling=10)
        self._handlers: list[Handler[T]] = []
        self._cache: dict[str, tuple[str, T]] = {}
        #: Key → version of what could not be parsed.
        self._unreadable: dict[str, str] = {}
        self._broken_since: float | None = self._clock.monotonic()

    def add_handler(self, handler: Handler[T]) -> None:
        """Before ``run``: it hears of everything from the start."""
        self._handlers.append(handler)

    def get(self, key: str) -> T | None:
        entry = self._cache.get(key)
        return entry[1] if entry else None

    def all(self) -> list[T]:
        return [fact for _, fact in self._cache.values()]

    @property
    def unreadable(self) -> Collection[str]:
        """Keys of objects that exist and cannot be parsed; in ``all`` they are missing, or as they were before."""
        return self._unreadable.keys()

    @property
    def where(self) -> str:
        """`` in NAMESPACE`` for a cache of one namespace, else empty."""
        return f" in {self._namespace}" if self._namespace else ""

    @property
    def healthy(self) -> bool:
        """Whether the cache was true within the last minute."""
        return self._broken_since is None or self._clock.monotonic() - self._broken_since < _UNHEALTHY_SECONDS

    async def run(self) -> None:
        version = ""
        failures = 0
        while True:
            try:
                if not version:
                    version = await self._relist()
                self._broken_since = None
                before = version
                version = await self._follow(version)
                failures = 0 if version != before else failures
            except Gone:
                version = ""
                failures += 1
                self._broke("its version is too old, listing again", loud=failures >= 3)
                if failures > 1:
                    # too old right after a list: an API server that cannot keep up must not be hammered
                    await asyncio.sleep(self._backoff.delay(failures - 1))
            except NotFound as error:
                version = ""
                failures += 1
                if self._optional:
                    self._keep_only(())
                    self._broken_since = None
                else:
                    self._broke(str(error), loud=failures >= 3)
                await asyncio.sleep(self._backoff.delay(failures - 1))
            except MoyaiError as error:
                # a broken stream may have cut an event in two: only a new list is certain
                version = ""
                failures += 1
                self._broke(str(error), loud=failures >= 3)
                await asyncio.sleep(self._backoff.delay(failures - 1))

    async def _relist(self) -> str:
        version = ""
        seen: set[str] = set()
        async for items, of_list in self._kube.pages(self.resource, namespace=self._namespace):
            version = of_list
            for found in items:
                key = object_key(found)
                seen.add(key)
                self._take(key, found)
        self._keep_only(seen)
        return version

    def _keep_only(self, seen: Collection[str]) -> None:
        for key in [key for key in (*self._cache, *self._unreadable) if key not in seen]:
            self._drop(key)
        self.synced.set()

    async def _follow(self, version: str) -> str:
        """Watch until the server ends it; returns the version to go on from."""
        seconds = _SERVER_SECONDS + int(random.random() * 60)
        events = self._kube.watch(
            self.resource, version, namespace=self._namespace, server_seconds=seconds, silence_seconds=self._silence
        )
        async for event in events:
            version = str(event.object["metadata"]["resourceVersion"])
            if event.type == "DELETED":
                self._drop(object_key(event.object))
            elif event.type != "BOOKMARK":
                self._take(object_key(event.object), event.object)
        return version

    def _take(self, key: str, found: Json) -> None:
        version = str(found["metadata"].get("resourceVersion") or "")
        known = self._cache.get(key)
        if known and known[0] == version and version:
            return
        try:
            fact = self._parse(found)
        except Exception as error:
            if self._unreadable.get(key) != version:
                _log.exception("%s of %s cannot be read", key, self.resource.plural)
                self._unreadable[key] = version
                self._on_unreadable(found, error)
            return
        self._unreadable.pop(key, None)
        self._cache[key] = (version, fact)
        self._notify(key, known[1] if known else None, new=fact)

    def _drop(self, key: str) -> None:
        self._unreadable.pop(key, None)
        known = self._cache.pop(key, None)
        if known:
            self._notify(key, known[1], new=None)

    def _notify(self, key: str, old: T | None, *, new: T | None) -> None:
        for handler in self._handlers:
            try:
                handler(key, old, new)
            except Exception:
                _log.exception("handler of %s failed for %s", self.resource.plural, key)

    def _broke(self, why: str, *, loud: bool = False) -> None:
        if self._broken_since is None:
            self._broken_since = self._clock.monotonic()
        _log.log(logging.ERROR if loud else logging.INFO, "watch of %s broke: %s", self.resource.plural, why)
        self._on_break(self.resource.plural, why)
