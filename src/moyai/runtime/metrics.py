"""Counters, gauges and times, in Prometheus' text format. Written by hand: the format is small, the client library is not.

Everything belongs to a ``Metrics`` object; nothing is global. Label values must come from small sets (controller, operation …).
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Mapping

_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

Labels = tuple[tuple[str, str], ...]


class Metrics:
    """Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters: dict[str, dict[Labels, float]] = {}
        self._gauges: dict[str, Callable[[], Mapping[Labels, float]]] = {}
        self._times: dict[str, dict[Labels, tuple[list[int], float]]] = {}
        self._help: dict[str, str] = {}

    def describe(self, name: str, text: str) -> None:
        self._help[name] = text

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        key = tuple(sorted(labels.items()))
        with self._lock:
            series = self._counters.setdefault(name, {})
            series[key] = series.get(key, 0) + amount

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        key = tuple(sorted(labels.items()))
        with self._lock:
            buckets, total = self._times.setdefault(name, {}).get(key, ([0] * (len(_BUCKETS) + 1), 0.0))
            buckets[bisect_left(_BUCKETS, seconds)] += 1
            self._times[name][key] = (buckets, total + seconds)

    def gauge(self, name: str, read: Callable[[], Mapping[Labels, float]]) -> None:
        """``read`` is asked at each scrape."""
        self._gauges[name] = read

    def value(self, name: str, **labels: str) -> float:
        """A counter's value."""
        with self._lock:
            return self._counters.get(name, {}).get(tuple(sorted(labels.items())), 0)

    def text(self) -> str:
        lines: list[str] = []
        with self._lock:
            for name, series in sorted(self._counters.items()):
                lines += self._head(name, "counter")
                lines += [f"{name}{_labels(key)} {_number(value)}" for key, value in sorted(series.items())]
            for name, times in sorted(self._times.items()):
                lines += self._head(name, "histogram")
                for key, (buckets, total) in sorted(times.items()):
                    seen = 0
                    for limit, amount in zip((*map(str, _BUCKETS), "+Inf"), buckets, strict=True):
                        seen += amount
                        lines.append(f"{name}_bucket{_labels((*key, ('le', limit)))} {seen}")
                    lines += [f"{name}_sum{_labels(key)} {_number(total)}", f"{name}_count{_labels(key)} {seen}"]
        for name, read in sorted(self._gauges.items()):
            lines += self._head(name, "gauge")
            lines += [f"{name}{_labels(key)} {_number(value)}" for key, value in sorted(read().items())]
        return "\n".join(lines) + "\n"

    def _head(self, name: str, kind: str) -> list[str]:
        text = self._help.get(name)
        return [*([f"# HELP {name} {text}"] if text else []), f"# TYPE {name} {kind}"]


def _labels(key: Labels) -> str:
    if not key:
        return ""

    def escape(value: str) -> str:
        return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

    return "{" + ",".join(f'{name}="{escape(value)}"' for name, value in key) + "}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
