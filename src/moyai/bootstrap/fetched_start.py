"""A machine's start that is fetched: a script of some hundred bytes as user data, for clouds that take little and run scripts
only.

Always holds: the script runs nothing but content with the digest that stands in it, so the places that it fetches from need
not be trusted; it has no secret but what its addresses contain; running it again does nothing. It is POSIX sh, and needs
sha256sum, date and curl or wget. ADR 0138 has the reasons.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import datetime
from importlib.resources import files

from moyai.core.errors import UsageError

#: What stands between quotes of the shell and is not changed by it.
_ADDRESS = re.compile(r"https?://[\w.:@%/?&=+~\[\]-]+")


def fetched_start(content: bytes, addresses: Sequence[str], *, until: datetime) -> str:
    """The script that fetches ``content`` from the first of ``addresses`` that has it, and runs it. ``until``: when it gives
    up.

    Raises UsageError for an address that is none of HTTP.
    """
    if not addresses:
        raise UsageError("a machine's start is fetched from at least one address")
    for one in addresses:
        if not _ADDRESS.fullmatch(one):
            raise UsageError(f"{one!r} is no address that a machine can fetch its start from")
    text = (files("moyai.bootstrap") / "data" / "fetch-start").read_text()
    return (
        text.replace("@DIGEST@", hashlib.sha256(content).hexdigest())
        .replace("@UNTIL@", str(int(until.timestamp())))
        .replace("@ADDRESSES@", " ".join(addresses))
    )
