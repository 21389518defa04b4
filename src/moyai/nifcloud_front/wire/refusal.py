"""What the front refuses, in NIFCLOUD's grammar of codes: ``Client|Server.KIND.OBJECT[.DETAIL]``.

Codes that no source of the real service shows are the front's own choice; ``docs/reference/nifcloud-front.md`` lists them.
"""

from __future__ import annotations


class ApiRefusal(Exception):
    """An answer that is an error. ``message``: one sentence. ``status``: of HTTP; clients decide by the code."""

    def __init__(self, code: str, message: str, *, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.status = code, message, status


def not_found(what: str, name: str) -> ApiRefusal:
    """``what``: the object in the words of the codes, such as Instance."""
    return ApiRefusal(f"Client.InvalidParameterNotFound.{what}", f"The {what} '{name}' does not exist.")


def duplicate(what: str, name: str) -> ApiRefusal:
    return ApiRefusal(f"Client.InvalidParameterDuplicate.{what}", f"The {what} '{name}' exists already.")


def inoperable(what: str, message: str, *, side: str = "Client") -> ApiRefusal:
    """The state of an object does not permit the call."""
    return ApiRefusal(f"{side}.Inoperable.{what}", message)


def processing(what: str, name: str) -> ApiRefusal:
    """The object is under change and takes no other change meanwhile."""
    words = f"The {what} '{name}' is being processed."
    return ApiRefusal(f"Server.ResourceIncorrectState.{what}.Processing", words, status=500)


def invalid(parameter: str, message: str, *, kind: str = "Value") -> ApiRefusal:
    """A parameter's value. ``kind``: Value, Format, Required or Unknown."""
    return ApiRefusal(f"Client.InvalidParameter.{kind}.{parameter}", message)


def limit(what: str, message: str) -> ApiRefusal:
    """A number that the account or an object has reached."""
    return ApiRefusal(f"Client.ResourceLimitExceeded.{what}", message)


def not_built(operation: str) -> ApiRefusal:
    return ApiRefusal("Client.UnsupportedOperation", f"The local cloud does not offer the operation {operation}.")


def internal() -> ApiRefusal:
    return ApiRefusal("Server.InternalError", "An internal error occurred. The log of the front has its reason.", status=500)
