"""Versions of Kubernetes as text: which texts are versions, how two versions compare, and which one moyai uses by default."""

from __future__ import annotations

import re

#: Where a cluster's spec names no version.
DEFAULT_KUBERNETES_VERSION = "1.37.1"


def is_version(text: str) -> bool:
    """Whether ``text`` is a version of Kubernetes in full, such as 1.37.1."""
    return re.fullmatch(r"1\.[0-9]{1,4}\.[0-9]{1,4}", text) is not None


def version_numbers(version: str) -> tuple[int, ...]:
    """``1.37.1`` for comparing."""
    return tuple(map(int, version.split(".")))


def minor_version(version: str) -> str:
    """``1.37`` of ``1.37.1``."""
    return ".".join(version.split(".")[:2])
