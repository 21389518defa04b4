"""What a caller is told when something does not go: CSI's codes, and which of them one of our errors is.

The codes are gRPC's names. What a side-car or kubelet does depends on them: it tries again after UNAVAILABLE and ABORTED,
looks for another node after RESOURCE_EXHAUSTED, and gives up a resize after INVALID_ARGUMENT or OUT_OF_RANGE.
"""

from __future__ import annotations

from typing import Literal

from moyai.core.errors import Conflict, MoyaiError, NotFound, QuotaExceeded, Retriable, UsageError

Code = Literal[
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DEADLINE_EXCEEDED",
]


class Refused(Exception):
    """An answer other than OK: ``code`` and one line for whoever reads the events of a claim or pod."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code: Code = code
        self.message = message


def refusal(error: Exception) -> Refused:
    """``error`` as an answer. An error that nobody foresaw is INTERNAL."""
    if isinstance(error, Refused):
        return error
    if not isinstance(error, MoyaiError):
        return Refused("INTERNAL", " ".join(str(error).split()) or type(error).__name__)
    return Refused(_code(error), str(error))


def _code(error: MoyaiError) -> Code:
    if isinstance(error, QuotaExceeded):
        return "RESOURCE_EXHAUSTED"
    if isinstance(error, NotFound):
        return "NOT_FOUND"
    if isinstance(error, Conflict):
        return "ABORTED"
    if isinstance(error, Retriable):
        return "UNAVAILABLE"
    if isinstance(error, UsageError):
        return "INVALID_ARGUMENT"
    return "INTERNAL"


def need(value: str, what: str) -> str:
    """``value``, or INVALID_ARGUMENT where it is empty."""
    if not value:
        raise Refused("INVALID_ARGUMENT", f"no {what} given")
    return value
