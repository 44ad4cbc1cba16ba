"""What Prometheus sees: counts and histograms of what happened, and gauges read at the moment of the scrape."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hardroute.runtime.prediction import Prediction

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
MARGINS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)


@dataclass(frozen=True)
class Reading:
    """A number that somebody else keeps, as it is at the scrape.

    name: without the prefix; of a counter if it ends in "_total". labels: names and values.
    """

    name: str
    help: str
    value: float
    labels: Mapping[str, str] | None = None


class Metrics:
    """All metrics of one service, in a registry of their own.

    Args:
        readings: called at each scrape.
    """

    def __init__(self, readings: Callable[[], Iterable[Reading]]) -> None:
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._registry = registry
        self.requests = Counter(
            "hardroute_requests", "Requests by endpoint and status.", ["endpoint", "code"], registry=registry
        )
        self.in_flight = Gauge("hardroute_in_flight", "Requests for an answer under way.", registry=registry)
        self._clips = Counter("hardroute_clips", "Clips answered, by expert.", ["expert"], registry=registry)
        self._abstained = Counter("hardroute_abstained", "Answers that were withheld.", registry=registry)
        self._margin = Histogram(
            "hardroute_router_margin", "Weight of the first minus weight of the second expert.",
            buckets=MARGINS, registry=registry,
        )  # fmt: skip
        self._stages = Histogram(
            "hardroute_stage_seconds", "Wall clock of one clip: upload, decode, queue, route, expert, log.",
            ["stage"], buckets=SECONDS, registry=registry,
        )  # fmt: skip
        registry.register(_Readings(readings))

    def clip(self, prediction: Prediction, abstained: bool) -> None:
        """Counts an answer that has its line, given or withheld."""
        self._abstained.inc(abstained)
        self._clips.labels(str(prediction.route.expert)).inc()
        self._margin.observe(prediction.route.margin)
        self.stage("route", prediction.milliseconds.route / 1000)
        self.stage("expert", prediction.milliseconds.expert / 1000)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Records the time of a `with` block that ends well."""
        started = time.perf_counter()
        yield
        self.stage(stage, time.perf_counter() - started)

    def stage(self, name: str, seconds: float) -> None:
        """Records how long one stage took for one clip."""
        self._stages.labels(name).observe(seconds)

    def render(self) -> bytes:
        """Everything, in Prometheus' text format 0.0.4."""
        return generate_latest(self._registry)


class _Readings(Collector):
    def __init__(self, readings: Callable[[], Iterable[Reading]]) -> None:
        self._readings = readings

    def collect(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        for reading in self._readings():
            labels = dict(reading.labels or {})
            kind = CounterMetricFamily if reading.name.endswith("_total") else GaugeMetricFamily
            name = f"hardroute_{reading.name}"
            family = families.setdefault(name, kind(name, reading.help, labels=list(labels)))
            family.add_metric(list(labels.values()), reading.value)  # type: ignore[attr-defined]
        return families.values()

    def describe(self) -> Iterable[Metric]:
        # Asked at registration, when there is nothing to read yet.
        return ()
