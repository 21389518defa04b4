"""What a failed call to NIFCLOUD means for its caller: by the error's code alone, never by the status of HTTP.

Codes have the form ``Client|Server.KIND.OBJECT[.DETAIL]``. The API's model names none, and its statuses are not documented: a
client's mistake may come as 500. An answer without a code is no answer: nobody knows whether the call had its effect.
"""

from __future__ import annotations

import re

from moyai.core.errors import Conflict, CredentialsRefused, MoyaiError, NotFound, Retriable, Terminal, Unreachable


class NeverSent(Unreachable):
    """No connection came about: the call had no effect."""


class LostReply(Unreachable):
    """The call was sent and no answer came: it may have had its effect, now or a little later."""


class StillBusy(Retriable):
    """The object is being changed and takes no other change: the call had no effect."""


class NameTaken(Conflict):
    """There is such an object already; its owner must be looked up."""


class StillUsed(Conflict):
    """Something else hangs on the object."""


class NoSuchObject(NotFound):
    """``what``: which of the objects that the call named is missing, in the API's word (``Instance``, ``Volume`` …)."""

    what: str = ""


#: Put by botocore in place of a code, where the answer has none.
_STATUS = re.compile(r"\d{3}")
_AUTH_HINT = "check NIFCLOUD_ACCESS_KEY_ID and NIFCLOUD_SECRET_ACCESS_KEY, and this machine's clock: the signature has its time"


def error_from_code(code: str, words: str, *, operation: str, object_id: str = "", request_id: str = "") -> MoyaiError:
    """The error for an answer with this code and message. Returned, not raised."""
    kind, hint = _classify(code)
    said = " ".join(words.split())
    text = f"NIFCLOUD: {said} [{code}]" if said else f"NIFCLOUD answered {code}"
    made = kind(text, hint=hint, operation=operation, object_id=object_id or None, request_id=request_id or None)
    if isinstance(made, NoSuchObject):
        made.what = code.split(".")[2] if code.count(".") >= 2 else ""
    return made


def _classify(code: str) -> tuple[type[MoyaiError], str | None]:
    if _STATUS.fullmatch(code) or not code:
        return LostReply, None
    _, _, rest = code.partition(".")
    kind = rest.partition(".")[0]
    if kind == "InvalidParameterNotFound":
        return NoSuchObject, None
    if kind == "InvalidParameterDuplicate" or code.endswith(
        (".AlreadyExists", ".HavingRegisteredInstance", ".AlreadyAttached")
    ):
        return NameTaken, None
    if kind == "Inoperable":
        return (StillUsed if code.endswith(".InUse") else Conflict), None
    if kind == "ResourceIncorrectState":
        return StillBusy, None
    if kind in ("InternalError", "ProcessingFailure"):
        return Retriable, None
    if kind.startswith("AuthFailure"):
        return CredentialsRefused, _AUTH_HINT
    return Terminal, None
