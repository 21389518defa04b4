"""Waiting between tries: exponential with a ceiling and jitter."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """``delay(n)`` is the wait in seconds before try ``n + 1`` (n counts from 0), at most ``ceiling``, ± ``jitter``."""

    base: float = 0.2
    factor: float = 2.0
    ceiling: float = 30.0
    jitter: float = 0.1

    def delay(self, attempt: int, random_unit: Callable[[], float] = random.random) -> float:
        # the exponent is bounded because a float overflows long after the ceiling is reached
        plain = min(self.ceiling, self.base * self.factor ** min(attempt, 64))
        return plain * (1 + self.jitter * (2 * random_unit() - 1))
