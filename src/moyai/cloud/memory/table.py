"""Frozen objects by id, with indexes: to find, change or count some of them costs nothing for those that are not meant.

Always holds: an index names exactly the objects that have its key now; order is the order of creation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, Protocol, TypeVar


class Identified(Protocol):
    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=Identified)
Keys = Callable[[T], Iterable[str]]
#: Gets an object as it was and as it is; None: it was not or is not there.
Watcher = Callable[[T | None, T | None], None]


class Table(Generic[T]):
    """``indexes``: name of an index → the keys that an object has in it."""

    def __init__(self, **indexes: Keys[T]) -> None:
        self._items: dict[str, T] = {}
        self._keys = indexes
        # dictionaries as sets that keep their order
        self._index: dict[str, dict[str, dict[str, None]]] = {name: {} for name in indexes}
        self._watchers: list[Watcher[T]] = []

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[T]:
        return iter(list(self._items.values()))

    def __contains__(self, object_id: object) -> bool:
        return object_id in self._items

    def __getitem__(self, object_id: str) -> T:
        return self._items[object_id]

    def get(self, object_id: str) -> T | None:
        return self._items.get(object_id)

    def ids(self) -> list[str]:
        return list(self._items)

    def by(self, index: str, key: str) -> list[T]:
        return [self._items[one] for one in self._index[index].get(key, ())]

    def count(self, index: str, key: str) -> int:
        return len(self._index[index].get(key, ()))

    def put(self, item: T) -> T:
        """Add it, or put it in the place of the object with its id."""
        before = self._items.get(item.id)
        self._items[item.id] = item
        self._reindex(item.id, before, after=item)
        return item

    def drop(self, object_id: str) -> T | None:
        """Remove it; returns it, or None where it was not there."""
        before = self._items.pop(object_id, None)
        if before is not None:
            self._reindex(object_id, before, after=None)
        return before

    def watch(self, watcher: Watcher[T]) -> None:
        """``watcher`` hears of every change from now on."""
        self._watchers.append(watcher)

    def _reindex(self, object_id: str, before: T | None, *, after: T | None) -> None:
        for name, keys_of in self._keys.items():
            old = set(keys_of(before)) if before is not None else set[str]()
            new = set(keys_of(after)) if after is not None else set[str]()
            index = self._index[name]
            for key in old - new:
                del index[key][object_id]
                if not index[key]:
                    del index[key]
            for key in new - old:
                index.setdefault(key, {})[object_id] = None
        for watcher in self._watchers:
            watcher(before, after)


def tags(item: Any) -> Iterable[str]:
    """Keys of an index by tag."""
    return item.tags


def name(item: Any) -> Iterable[str]:
    """Keys of an index by name."""
    return (item.name,)
