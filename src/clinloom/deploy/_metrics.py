"""What the service counts, for Prometheus: requests, times, refusals, risks. No patient's value.

With several workers the counts of all are added up, by files in ``PROMETHEUS_MULTIPROC_DIR``.
"""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
TENTHS = tuple(n / 10 for n in range(1, 11))
APART = (0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
SHARED = "PROMETHEUS_MULTIPROC_DIR"
TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The counters of one process."""

    def __init__(self) -> None:
        self._registry = one = CollectorRegistry()
        self.requests = Counter(
            "clinloom_requests", "requests answered", ["front", "status"], registry=one
        )
        self.seconds = Histogram(
            "clinloom_request_seconds", "to answer", ["front"], buckets=SECONDS, registry=one
        )
        self.refusals = Counter(
            "clinloom_refusals", "requests refused, and why", ["front", "reason"], registry=one
        )
        self.refused = Counter(
            "clinloom_refused_facts", "facts of requests not taken", ["reason"], registry=one
        )
        self.predictions = Counter("clinloom_predictions", "risks answered", registry=one)
        self.risk = Histogram(
            "clinloom_risk", "risks: served, shadow", ["role"], buckets=TENTHS, registry=one
        )
        self.apart = Histogram(
            "clinloom_shadow_difference", "between both risks", buckets=APART, registry=one
        )
        self.shadow = Counter("clinloom_shadow", "how shadow scoring ended", ["end"], registry=one)
        self.swaps = Counter("clinloom_swaps", "bundles taken up, or not", ["end"], registry=one)
        self.running = Gauge(
            "clinloom_running", "requests in work", multiprocess_mode="livesum", registry=one
        )

    def text(self) -> bytes:
        """Everything counted, as Prometheus reads it (TYPE)."""
        registry = self._registry
        if os.environ.get(SHARED):
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
