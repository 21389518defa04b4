"""How large a volume is to be: Kubernetes asks in bytes, between two bounds; the cloud sells whole GiB. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from moyai.csi.errors import Refused

GIB = 1 << 30


@dataclass(frozen=True)
class Range:
    """Bytes: at least ``required``, at most ``limit``; 0 means no bound."""

    required: int = 0
    limit: int = 0

    def __post_init__(self) -> None:
        if self.required < 0 or self.limit < 0:
            raise Refused("INVALID_ARGUMENT", "a size is negative")
        if self.limit and self.required > self.limit:
            raise Refused("INVALID_ARGUMENT", f"the size asked for ({self.required}) is over its own limit ({self.limit})")

    def holds(self, size_gb: int) -> bool:
        size = size_gb * GIB
        return self.required <= size and (not self.limit or size <= self.limit)


def choose_gb(wanted: Range, *, least_gb: int = 1) -> int:
    """The smallest number of GiB in the range, at least ``least_gb`` (of a source); OUT_OF_RANGE where there is none."""
    chosen = max(-(-wanted.required // GIB), least_gb, 1)
    if wanted.limit and chosen * GIB > wanted.limit:
        if least_gb * GIB > wanted.limit:
            raise Refused("OUT_OF_RANGE", f"the source has {least_gb} GiB, more than the limit of {wanted.limit} bytes")
        raise Refused("OUT_OF_RANGE", f"volumes have whole GiB, and the limit of {wanted.limit} bytes is below {chosen} GiB")
    return chosen
