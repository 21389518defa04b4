"""Counters, histograms and gauges of one process part, on prometheus-client.

Everything belongs to a ``Metrics`` object with a registry of its own; the library's global registry is not used. Label values
must come from small sets (controller, operation …). A series appears with its first value, so that a scrape shows only the
labels that occurred.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

#: (label name, value) pairs of one series.
Labels = tuple[tuple[str, str], ...]

# the library would add a series with the time of creation to each counter
disable_created_metrics()


class Metrics:
    """Safe from any thread."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._lock = threading.Lock()
        self._counters: dict[str, Counter] = {}
        self._histograms: dict[str, Histogram] = {}
        self._help: dict[str, str] = {}

    def describe(self, name: str, text: str) -> None:
        """The help text of ``name``; before its first value."""
        self._help[name] = text

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """``name`` ends in ``_total``; it has the same labels each time."""
        with self._lock:
            counter = self._counters.get(name)
            if counter is None:
                counter = Counter(name, self._help.get(name, ""), sorted(labels), registry=self._registry)
                self._counters[name] = counter
        (counter.labels(**labels) if labels else counter).inc(amount)

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        """``name`` has the same labels each time."""
        with self._lock:
            histogram = self._histograms.get(name)
            if histogram is None:
                text = self._help.get(name, "")
                histogram = Histogram(name, text, sorted(labels), buckets=_BUCKETS, registry=self._registry)
                self._histograms[name] = histogram
        (histogram.labels(**labels) if labels else histogram).observe(seconds)

    def gauge(self, name: str, read: Callable[[], Mapping[Labels, float]]) -> None:
        """``read`` is asked at each scrape; all of its keys have the same label names."""
        self._registry.register(_Read(name, GaugeMetricFamily, read=read, text=lambda: self._help.get(name, "")))

    def counter(self, name: str, read: Callable[[], Mapping[Labels, float]]) -> None:
        """A counter that somebody else counts. ``name`` ends in ``_total``; ``read`` as in ``gauge``."""
        self._registry.register(_Read(name, CounterMetricFamily, read=read, text=lambda: self._help.get(name, "")))

    def value(self, name: str, **labels: str) -> float:
        """A counter's value; 0 before its first."""
        return self._registry.get_sample_value(name, labels) or 0.0

    def text(self) -> str:
        """All series in Prometheus' text format."""
        return generate_latest(self._registry).decode()


_Family = GaugeMetricFamily | CounterMetricFamily


class _Read(Collector):
    """``family``: makes the series of one name."""

    def __init__(
        self,
        name: str,
        family: Callable[..., _Family],
        *,
        read: Callable[[], Mapping[Labels, float]],
        text: Callable[[], str],
    ) -> None:
        self._name, self._family, self._read, self._text = name, family, read, text

    def describe(self) -> Iterable[_Family]:
        # without it the registry would call ``collect`` when the series is registered, before what it reads is there
        return [self._family(self._name, "")]

    def collect(self) -> Iterable[_Family]:
        series = self._read()
        family = self._family(self._name, self._text(), labels=[name for name, _ in next(iter(series), ())])
        for labels, value in series.items():
            family.add_metric([text for _, text in labels], value)
        return [family]
