"""How large a volume is to be: Kubernetes asks in bytes, between two bounds; the cloud sells whole GiB. Pure.

A message about a size says what the claim would have to say, in the claim's own unit and under the claim's own field.
"""

from __future__ import annotations

from dataclasses import dataclass

from moyai.core.errors import SizeRefused
from moyai.csi.errors import Refused

GIB = 1 << 30
_UNITS = ("Ti", "Gi", "Mi", "Ki")
_REQUEST, _LIMIT = "spec.resources.requests.storage", "spec.resources.limits.storage"
#: A request of a claim can be raised once the claim has its volume, and never before.
_AGAIN = "a claim without a volume cannot be changed, so delete it and create it with"


def quantity(size: int) -> str:
    """Bytes as a claim has them: in the largest unit that leaves a whole number."""
    for power, unit in zip((40, 30, 20, 10), _UNITS, strict=True):
        if size and size % (1 << power) == 0:
            return f"{size >> power}{unit}"
    return str(size)


@dataclass(frozen=True)
class Range:
    """Bytes: at least ``required``, at most ``limit``; 0 means no bound."""

    required: int = 0
    limit: int = 0

    def __post_init__(self) -> None:
        if self.required < 0 or self.limit < 0:
            raise Refused("INVALID_ARGUMENT", "a size is negative")
        if self.limit and self.required > self.limit:
            raise Refused(
                "INVALID_ARGUMENT",
                f"the claim asks for {quantity(self.required)} in {_REQUEST}, more than the {quantity(self.limit)} in its "
                f"{_LIMIT}",
            )

    def holds(self, size_gb: int) -> bool:
        size = size_gb * GIB
        return self.required <= size and (not self.limit or size <= self.limit)


def choose_gb(wanted: Range, *, least_gb: int = 1, step_gb: int = 1) -> int:
    """The smallest multiple of ``step_gb`` GiB in the range, at least ``least_gb`` (of a source); OUT_OF_RANGE where there is
    none."""
    chosen = -(-max(-(-wanted.required // GIB), least_gb, 1) // step_gb) * step_gb
    if wanted.limit and chosen * GIB > wanted.limit:
        if least_gb > 1 and least_gb * GIB > wanted.limit:
            why = f"the source of the copy has {least_gb}Gi, more than the claim's limit of {quantity(wanted.limit)}"
        else:
            whole = "whole GiB" if step_gb == 1 else f"steps of {step_gb}Gi"
            why = f"volumes have {whole}, and the claim's limit of {quantity(wanted.limit)} is below {chosen}Gi"
        raise Refused("OUT_OF_RANGE", f"{why}: {_AGAIN} {_LIMIT}: {chosen}Gi, or without a limit")
    return chosen


def refused_by_type(error: SizeRefused, *, type_name: str, size_gb: int, grows: bool = False) -> Refused:
    """The cloud's refusal of a size, as what the claim would have to ask for. ``grows``: the claim has its volume already."""
    kind = f"volumes of the type {type_name}" if type_name else "volumes of this type"
    if error.least_gb is not None:
        bound, ask = f"{kind} have at least {error.least_gb}Gi", f"{error.least_gb}Gi or more"
    elif error.most_gb is not None:
        bound, ask = f"{kind} have at most {error.most_gb}Gi", f"{error.most_gb}Gi or less"
    else:
        return Refused("OUT_OF_RANGE", str(error))
    how = "set" if grows else _AGAIN
    return Refused("OUT_OF_RANGE", f"{bound}, and the claim asks for {size_gb}Gi: {how} {_REQUEST}: {ask}")
