"""Why a request failed whose connection failed: read from the exceptions of requests, urllib3 and keystoneauth."""

from __future__ import annotations

from collections.abc import Iterator


def unanswered(error: BaseException) -> bool:
    """Whether the connection failed, as against an answer that says so."""
    from keystoneauth1 import exceptions as ksa

    return isinstance(error.__cause__, ksa.ConnectFailure | ksa.ConnectTimeout)


def never_sent(error: BaseException) -> bool:
    """Whether a failed request certainly never reached the cloud: no connection came about."""
    from urllib3.exceptions import NameResolutionError, NewConnectionError

    return any(isinstance(one, NewConnectionError | NameResolutionError) for one in _chain(error))


def cause(error: BaseException) -> str:
    """The shortest true reason for a connection that failed: the operating system's own words."""
    for one in _chain(error):
        if isinstance(one, OSError) and one.strerror:
            return one.strerror
    return " ".join(str(error).split())[:200]


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception, what it was raised from, and those that requests and urllib3 keep as arguments and reasons."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        one = waiting.pop(0)
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [getattr(one, "reason", None), one.__cause__, one.__context__, *one.args]
