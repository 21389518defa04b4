"""Answers that are refusals: CSI's codes, and the code of each error of ``core.errors``.

The codes are gRPC's names. Side-cars and kubelets act on them: they try again after UNAVAILABLE and ABORTED,
look for another node after RESOURCE_EXHAUSTED, and give up a resize after INVALID_ARGUMENT or OUT_OF_RANGE.
"""

from __future__ import annotations

from typing import Literal

from moyai.core.errors import Conflict, MoyaiError, NotFound, QuotaExceeded, Retriable, SizeRefused, UsageError

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
    """An answer other than OK: ``code`` and one line, which Kubernetes shows in the events of the claim or pod."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code: Code = code
        self.message = message


def refusal(error: Exception) -> Refused:
    """``error`` as an answer. An unexpected error is INTERNAL."""
    if isinstance(error, Refused):
        return error
    if not isinstance(error, MoyaiError):
        return Refused("INTERNAL", " ".join(str(error).split()) or type(error).__name__)
    return Refused(_code(error), str(error))


def _code(error: MoyaiError) -> Code:
    if isinstance(error, QuotaExceeded):
        return "RESOURCE_EXHAUSTED"
    if isinstance(error, SizeRefused):
        return "OUT_OF_RANGE"
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
