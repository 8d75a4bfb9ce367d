"""Metrics of a gateway process."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class GatewayMetrics:
    """Counts requests by their routes, never by their paths: those have ids in them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "omnifleet_gateway_requests",
            "Requests that were answered.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "omnifleet_gateway_request_seconds",
            "Time from a request's headers to the end of its answer.",
            ["route"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.open_requests = Gauge(
            "omnifleet_gateway_open_requests", "Requests that are being served.", registry=self.registry
        )
        self.open_streams = Gauge("omnifleet_gateway_open_streams", "Event streams among them.", registry=self.registry)
        self.hung_up = Counter(
            "omnifleet_gateway_abandoned_jobs",
            "Jobs that were cancelled because who waited for them hung up.",
            registry=self.registry,
        )
