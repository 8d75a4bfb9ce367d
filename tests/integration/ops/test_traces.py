"""One trace of a job, from a client's process through a worker's, as a collector gets it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from omnifleet_shared.observability import tracing as traces
from support import services
from support.collector import Collector, collector
from support.data import media_files
from support.scripted_fleet import WAIT, ScriptedFleet

OF_A_CLIP = {"generate t2a", "publish", "queue", "process", "steps", "encode", "store"}


@pytest.fixture
def collected() -> Iterator[Collector]:
    with collector() as running:
        yield running


def test_one_trace_leads_from_the_call_to_the_stored_result(scripted: ScriptedFleet, collected: Collector) -> None:
    worker = scripted.start(**collected.environment)
    command = [sys.executable, "-m", "omnifleet", "generate", "t2a", "a tone", "--steps", "20"]

    environment = os.environ | scripted.environment | collected.environment
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=WAIT)

    services.wait_until(lambda: collected.names() >= OF_A_CLIP, WAIT, "all spans")
    assert worker.status("/livez") == 200
    spans = {span.name: span for _, span in collected.spans}
    assert len(spans) == len(collected.spans) == len(OF_A_CLIP)
    assert len({span.trace_id for span in spans.values()}) == 1
    parents = {span.span_id: name for name, span in spans.items()}
    assert {name: parents.get(span.parent_span_id) for name, span in spans.items()} == {
        "generate t2a": None,
        "publish": "generate t2a",
        "queue": "publish",
        "process": "publish",
        **dict.fromkeys(("steps", "encode", "store"), "process"),
    }
    services_of = {span.name: service for service, span in collected.spans}
    assert {name for name, service in services_of.items() if service == "omnifleet"} == {"generate t2a", "publish"}
    assert services_of["steps"] == "omnifleet-worker"


def test_the_steps_are_one_span_with_events(scripted: ScriptedFleet, collected: Collector) -> None:
    scripted.start(**collected.environment)

    scripted.omni.generate("t2a", "a tone", steps=40).result(WAIT)

    services.wait_until(lambda: "store" in collected.names(), WAIT, "the last span")
    (steps,) = [span for _, span in collected.spans if span.name == "steps"]
    events = [event.name for event in steps.events]
    assert events.count("first step") == 1
    found = [dict(_attributes(event)) for event in steps.events if event.name == "progress"]
    assert found == sorted(found, key=lambda one: one["step"])
    assert {one["steps"] for one in found} == {40}
    # It lasts 2 s, and is looked at four times a second.
    assert len(found) >= 2


@pytest.mark.parametrize(
    ("files", "of_files"), [({}, set()), ({"audio": media_files.wav()}, {"fetch", "decode"})], ids=["", "file"]
)
def test_a_message_without_a_trace_starts_its_own(
    scripted: ScriptedFleet, collected: Collector, files: dict[str, bytes], of_files: set[str]
) -> None:
    scripted.start(**collected.environment)

    scripted.omni.understand(question="who?", max_new_tokens=2, **files).result(WAIT)

    services.wait_until(lambda: "process" in collected.names(), WAIT, "the last span")
    assert collected.names() == {"process", "steps"} | of_files
    (root,) = [span for _, span in collected.spans if not span.parent_span_id]
    assert root.name == "process"


@pytest.mark.parametrize("traceparent", ["", "garbage", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "x" * 10_000])
def test_a_message_with_a_broken_trace_runs_all_the_same(
    scripted: ScriptedFleet, collected: Collector, monkeypatch: pytest.MonkeyPatch, traceparent: str
) -> None:
    monkeypatch.setattr(traces, "headers", lambda: {"traceparent": traceparent})
    scripted.start(**collected.environment)

    assert scripted.omni.understand(question="who?", max_new_tokens=2).result(WAIT).text


def test_a_job_that_fails_says_so_in_its_trace(scripted: ScriptedFleet, collected: Collector) -> None:
    scripted.start(**collected.environment)

    job = scripted.omni.understand(question="what?", audio=b"no audio")
    services.wait_until(lambda: job.status().is_final, WAIT, "an end")

    services.wait_until(lambda: "process" in collected.names(), WAIT, "the last span")
    failed = {span.name for _, span in collected.spans if span.status.code == 2}
    assert failed == {"decode", "process"}


def test_without_the_extra_nothing_is_traced_and_everything_works() -> None:
    program = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "import omnifleet\n"
        "from omnifleet_shared.observability import tracing as traces\n"
        "with traces.span('a', 'client') as span: print(span, traces.headers())\n"
        "traces.record_wait('queue', 0.0, {'traceparent': 'x'})\n"
        "traces.export_traces('omnifleet')\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=WAIT,
    )

    assert done.stdout == "None {}\n"
    assert "omnifleet[otel]" in done.stderr


def _attributes(event: Any) -> Iterator[tuple[str, int]]:
    for one in event.attributes:
        yield one.key, one.value.int_value
