"""Long answers in pages: all objects are sorted by id, and a page's token is the last id of the page. Pure.

Objects may be created or deleted between two pages. Every object that stays is listed exactly once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar
from uuid import UUID

from moyai.csi.errors import Refused

T = TypeVar("T")


def page(things: Iterable[T], key: Callable[[T], str], *, token: str, most: int) -> tuple[list[T], str]:
    """At most ``most`` (0: all) of ``things`` after ``token``, and the token of the next page (empty: there is none).

    ABORTED for a token that is none of ours, INVALID_ARGUMENT for a negative ``most``.
    """
    if most < 0:
        raise Refused("INVALID_ARGUMENT", "max_entries is negative")
    if token:
        try:
            UUID(token)
        except ValueError:
            raise Refused("ABORTED", f"{token!r} is no token of a page: begin at the first one") from None
    left = sorted((one for one in things if key(one) > token), key=key)
    if not most or len(left) <= most:
        return left, ""
    return left[:most], key(left[most - 1])
