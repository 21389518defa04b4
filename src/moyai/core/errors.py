"""The errors that moyai raises on purpose, by what their receiver can do about them.

A message is one line: what is wrong, where, and (as ``hint``) what would be right. The command line prints it and exits
with ``exit_code``; a reconciler looks only at the class: ``Retriable`` and ``Conflict`` come again, ``Terminal`` does not.
"""

from __future__ import annotations


class MoyaiError(Exception):
    """Something went wrong that a user or an operator can act on.

    ``message``: what is wrong and where. ``hint``: what would be right or help. ``operation``, ``object_id`` and
    ``request_id`` name the cloud call, where there was one.
    """

    exit_code = 1

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        operation: str | None = None,
        object_id: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.operation = operation
        self.object_id = object_id
        self.request_id = request_id

    def __str__(self) -> str:
        text = f"{self.message}: {self.hint}" if self.hint else self.message
        details = [
            f"{name} {value}"
            for name, value in (("in", self.operation), ("of", self.object_id), ("request", self.request_id))
            if value and value not in text
        ]
        return f"{text} ({', '.join(details)})" if details else text


def one_line(error: BaseException) -> str:
    """An error as one line of a report."""
    return " ".join(str(error).split()) if isinstance(error, MoyaiError) else f"{type(error).__name__}: {error}"


class UsageError(MoyaiError):
    """The input is wrong; nothing was changed. Exit code 2."""

    exit_code = 2


class Retriable(MoyaiError):
    """Went wrong now, may go right later: a time-out, a 5xx, a resource that is still busy."""


class Unreachable(Retriable):
    """The cloud, or a service of it, does not answer, or a proxy answers in its place. Whatever waits goes on soon after."""


class Conflict(Retriable):
    """Somebody else changed the object meanwhile (409, an immutable state): read it again, then again."""


class Terminal(MoyaiError):
    """Will not go right by itself: a refused request, a server in ERROR, an exhausted quota."""


class CredentialsRefused(Terminal):
    """The cloud does not accept who we say we are. A command ends; what keeps running logs in again: keys rotate, and the
    service that checks them restarts."""


class PermissionRefused(Terminal):
    """The cloud knows the account, and does not permit it to make this call."""


class QuotaExceeded(Terminal):
    """The project has no more of what was asked for."""


class NoSpace(Terminal):
    """A file system has no room for a file, or the user's share of it is used up."""


class SizeRefused(Terminal):
    """A size is outside of what the cloud offers. ``least_gb``, ``most_gb``: the bound in GiB, where the cloud names it."""

    least_gb: int | None = None
    most_gb: int | None = None


class NotFound(Terminal):
    """The object does not exist (any more)."""
