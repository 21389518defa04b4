"""How a call reaches the store: it is counted, it takes its time, it fails or dies where a test orders that, and it needs a
login that may make it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Concatenate, ParamSpec, TypeVar, cast

from moyai.cloud.credentials import CALLS
from moyai.cloud.memory.store import Store, StoredCredential
from moyai.cloud.memory.table import Table
from moyai.core.errors import CredentialsRefused, MoyaiError, NotFound

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound="MemoryApi")
Item = TypeVar("Item")
E = TypeVar("E", bound=MoyaiError)


@dataclass(frozen=True)
class Session:
    """Somebody's way in: the owner's, or that of an application ``credential`` (its id), which may do less."""

    store: Store
    credential: str = ""

    @contextmanager
    def call(self, service: str, method: str) -> Generator[None]:
        store, name = self.store, f"{service}.{method}"
        if store.delays.call:
            store.clock.sleep(store.delays.call)
        with store.lock:
            store.mortal.check()
            store.calls[name] += 1
            store.catch_up()
            if self.credential:
                self._check(service, name)
            failure = store.faults.failure(name)
            if failure and not failure.after:
                raise failure.error
            yield
            if failure:
                raise failure.error

    def own(self) -> tuple[str, StoredCredential] | None:
        """Name and credential that the caller is logged in with."""
        return next(((name, one) for name, one in self.store.credentials.items() if one.id == self.credential), None)

    def _check(self, service: str, name: str) -> None:
        """Refuse what the credential may not call. The call that creates further ones has an error of its own."""
        own = self.own()
        if own is None:
            raise CredentialsRefused("the application credential is not known", request_id=self.store.new_request())
        if (use := own[1].use) is None:
            return
        # who is logged in stands in the token
        if name not in CALLS[use] and service not in ("account", "credentials") and name != "survey.login":
            raise CredentialsRefused(f"the application credential may not call {name}", request_id=self.store.new_request())


class MemoryApi:
    """One capability over the store. ``service``: what its calls are counted under (``service.method``)."""

    service: ClassVar[str]

    def __init__(self, session: Session) -> None:
        self._session = session
        self._store = session.store

    def _change(self) -> AbstractContextManager[None]:
        """Around each change: counted, and the place where the caller may die."""
        return self._store.mortal.change()

    def _refused(self, kind: type[E], words: str, *, object_id: str = "") -> E:
        """The error for a refused call. Returned, not raised."""
        return kind(words, object_id=object_id or None, request_id=self._store.new_request())

    def _find(self, table: Table[Any], object_id: str) -> Any:
        found = table.get(object_id)
        if found is None:
            raise self._refused(NotFound, f"the cloud knows no such object: {object_id}", object_id=object_id)
        return found

    def _make(self, table: Table[Any], item: Item, *, tags: Sequence[str], also: Callable[[], object] = lambda: None) -> Item:
        """Make, then tag: two changes, as Neutron needs them. A caller that dies between them leaves an object without
        tags. A cloud that cannot tag what exists makes it with its tags.

        ``also``: what the cloud itself makes along with the object.
        """
        tagged = replace(cast("Any", item), tags=tuple(sorted(tags)))
        with self._change():
            table.put(item if self._store.tags_later else tagged)
            also()
        if not (tags and self._store.tags_later):
            return tagged
        with self._change():
            return table.put(tagged)

    @staticmethod
    def _listed(table: Table[Any], tag: str | None) -> list[Any]:
        return list(table) if tag is None else table.by("tag", tag)


def api(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """A call that users make; within the cloud, services reach into the store instead."""

    @functools.wraps(method)
    def called(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        session, name = self._session, f"{self.service}.{method.__name__}"  # pyright: ignore[reportPrivateUsage]
        with session.call(self.service, method.__name__):
            answer = method(self, *args, **kwargs)
            session.store.answered[name] += _size(answer)
        return answer

    return called


def _size(answer: object) -> int:
    """How many objects an answer holds."""
    return len(cast("list[Any]", answer)) if isinstance(answer, list) else 1
