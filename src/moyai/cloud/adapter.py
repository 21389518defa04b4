"""What the rest of moyai asks of an adapter before there is a ``Cloud``, and besides it.

An adapter serves one kind of cloud: it knows which of the user's clouds are of this kind, connects to them, and reads what a
machine knows of itself. Each adapter is one object in a package of its own and one line in ``cloud.factory``. Importing the
package sends nothing and imports no client library of the cloud.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from moyai.cloud.capabilities import Cloud
from moyai.cloud.kind import CloudKind, Login
from moyai.cloud.own_machine import Guest
from moyai.core.errors import UsageError


class UnknownCloud(UsageError):
    """The adapter knows no cloud of this name. The hint says which clouds it knows, and where it looks for them."""


class Adapter(CloudKind, Protocol):
    @property
    def login_type(self) -> type[Any]:
        """The dataclass whose fields are the keys of section ``[Global]``, and whose defaults are theirs."""
        ...

    @property
    def login_purpose(self) -> str:
        """Sentences for the reference: with what one logs in."""
        ...

    @property
    def login_meanings(self) -> Mapping[str, str]:
        """Field of ``login_type`` → its meaning, for the reference."""
        ...

    def load(self) -> None:
        """Import what ``connect`` would import: for a process that has something else to wait for meanwhile."""
        ...

    def connect(self, name: str | None) -> Cloud:
        """The cloud that the user calls ``name`` (None: the one that the user's configuration chooses).

        Nothing is sent before the first call. Raises UnknownCloud where this adapter knows no such cloud, UsageError where its
        entry is not complete.
        """
        ...

    def read_login(self, section: Mapping[str, str | None]) -> Login:
        """``section``: key → value as written, of ``[Global]``. Raises UsageError for a value of the wrong type."""
        ...

    def log_in(self, login: Login) -> Cloud:
        """The cloud of a login that this adapter read or issued; a login of another adapter is a TypeError.

        Nothing is sent before the first call. Raises UsageError where something is missing or contradictory.
        """
        ...

    def guest(self) -> Guest:
        """What this machine knows of itself. Asks nothing yet."""
        ...
