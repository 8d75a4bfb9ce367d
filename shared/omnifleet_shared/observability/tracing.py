"""Traces, where OpenTelemetry is installed (`omnifleet[otel]`); otherwise all of this does nothing.

The context of a trace travels in the headers of a job's message, as W3C `traceparent`. Baggage does not: it may hold
secrets.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

trace: Any
propagator: Any
try:
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError:
    trace, propagator = None, None
else:
    propagator = TraceContextTextMapPropagator()

logger = logging.getLogger(__name__)
HEADERS = ("traceparent", "tracestate")
ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
Kind = Literal["internal", "client", "producer", "consumer"]
_NOTHING: AbstractContextManager[Any] = nullcontext()


def span(
    name: str,
    kind: Kind = "internal",
    *,
    parent: Mapping[str, str] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> AbstractContextManager[Any]:
    """Open a span for the length of the block, as a child of the current span or of the one in a message's headers.

    Gives the span, or None where the process traces nothing.
    """
    if not _is_set_up():
        return _NOTHING
    context = None if parent is None else propagator.extract(parent)
    kinds: Any = trace.SpanKind
    begun: AbstractContextManager[Any] = _tracer().start_as_current_span(name, context, kinds[kind.upper()], attributes)
    return begun


def record_wait(name: str, since: float, parent: Mapping[str, str]) -> None:
    """Record a span from `since` (Unix time) until now, as a child of the one in a message's headers."""
    if trace is None:
        return
    now = time.time_ns()
    # Clocks of two machines may disagree, and no span ends before it begins.
    start = min(int(since * 1e9), now)
    _tracer().start_span(name, propagator.extract(parent), start_time=start).end(now)


def add_event(span: Any, event: str, seconds_ago: float = 0.0, **attributes: int) -> None:
    """Add an event to a span that `span` gave, so many seconds before now."""
    if span is not None:
        span.add_event(event, attributes, time.time_ns() - int(seconds_ago * 1e9))


def set_attribute(name: str, value: str) -> None:
    """Set an attribute of the current span, where there is one."""
    if trace is not None:
        trace.get_current_span().set_attribute(name, value)


def headers() -> dict[str, str]:
    """Make the headers that carry the current span in a message; empty where there is none."""
    carried: dict[str, str] = {}
    if trace is not None:
        propagator.inject(carried)
    return carried


def export_traces(service: str, instance: str | None = None) -> None:
    """Export this process's spans to OTEL_EXPORTER_OTLP_ENDPOINT; the other OTEL_* variables count as usual.

    Does nothing where that is not set, or where the process has set up a tracer provider already.

    Args:
        service: name of the service, unless OTEL_SERVICE_NAME gives another.
        instance: id of this instance of the service.
    """
    if not any(os.environ.get(name) for name in ENDPOINTS):
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        logger.warning("no traces: pip install 'omnifleet[otel]'", extra={"action": "traces_unavailable"})
        return
    if isinstance(trace.get_tracer_provider(), TracerProvider):
        return
    named = {"service.name": os.environ.get("OTEL_SERVICE_NAME", service)}
    about = named if instance is None else named | {"service.instance.id": instance}
    # It sends what is left when the process ends.
    provider = TracerProvider(resource=Resource.create(about))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def _is_set_up() -> bool:
    # Spans of no provider cost as much as a round trip to Redis, in sum for a job.
    return trace is not None and not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def _tracer() -> Any:
    # Asked for every time: the application may set its provider up after this module was imported.
    return trace.get_tracer("omnifleet")
