"""The table of adapters, and the one place where adapters are imported: only when a cloud of their kind is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import cast

from moyai.cloud.adapter import Adapter, UnknownCloud
from moyai.cloud.capabilities import Cloud
from moyai.core.errors import UsageError

#: The adapter that is meant where none is named: files and manifests that are older than the table name none.
DEFAULT = "openstack"


def provider_args(name: str) -> tuple[str, ...]:
    """The argument by which a part inside a cluster knows its adapter: none for the default, since an image of an earlier moyai
    does not know the flag."""
    return () if name == DEFAULT else (f"--cloud-provider={name}",)


class Adapters:
    """Name → what returns the adapter. A name of the user's is asked for in this order."""

    def __init__(self, table: Mapping[str, Callable[[], Adapter]]) -> None:
        self._table = table

    def __iter__(self) -> Iterator[Adapter]:
        return (make() for make in self._table.values())

    def named(self, name: str) -> Adapter:
        """Raises UsageError for a name that is not in the table."""
        if name not in self._table:
            raise UsageError(f"there is no cloud provider {name!r}", hint=f"there are: {', '.join(self._table)}")
        return self._table[name]()

    def connect(self, name: str | None = None) -> Cloud:
        """The cloud that the user calls ``name`` (None: the one that the user's configuration chooses).

        Nothing is sent before the first call. Raises UsageError for a cloud that no adapter knows, and for an entry that is not
        complete.
        """
        unknown: list[UnknownCloud] = []
        for adapter in self:
            try:
                return adapter.connect(name)
            except UnknownCloud as error:
                unknown.append(error)
        # the last one asked is the one that most users have
        raise UsageError(unknown[-1].message, hint="; ".join(error.hint for error in unknown if error.hint))


def _package(path: str) -> Callable[[], Adapter]:
    """The adapter ``ADAPTER`` of a package."""
    return lambda: cast("Adapter", import_module(path).ADAPTER)


ADAPTERS = Adapters(
    {
        "nifcloud": _package("moyai.cloud.nifcloud"),
        "openstack": _package("moyai.cloud.openstack"),
    }
)
