"""Metrics of one worker process, in a registry of its own. Recording one costs microseconds."""

from __future__ import annotations

import threading
import time
from collections import Counter as Counts
from collections.abc import Callable, Mapping
from functools import cache
from typing import Literal, get_args

from omnifleet_shared.errors import JobCancelled, JobQuarantined, OmnifleetError
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from ..engine.observer import Work

Outcome = Literal["succeeded", "failed", "cancelled", "quarantined", "retried", "handed_back", "dropped"]
"""`retried` and `handed_back` jobs come again; `dropped` ones were another worker's, or had ended before."""

LONG = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
MIDDLING = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
BATCHES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128, 256)
UNREADABLE = "unreadable"
"""Task of a message that holds no job."""


class JobMetrics:
    """Counts the outcomes and times of jobs. Thread-safe."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._jobs = Counter(
            "omnifleet_jobs", "Deliveries of jobs by what became of them.", ["task", "outcome"], registry=registry
        )
        self._errors = Counter(
            "omnifleet_job_errors", "Errors that ended a delivery, retried ones too.", ["error"], registry=registry
        )
        self._delivery = Histogram(
            "omnifleet_job_seconds",
            "From a delivery's start to its recorded outcome.",
            ["task"],
            buckets=LONG,
            registry=registry,
        )
        self._stages = Histogram(
            "omnifleet_job_stage_seconds",
            "Time that attempts spent in a stage.",
            ["stage"],
            buckets=MIDDLING,
            registry=registry,
        )
        self._waits = Histogram(
            "omnifleet_job_queue_wait_seconds",
            "From a job's submission to its first start.",
            ["priority"],
            buckets=LONG,
            registry=registry,
        )
        self._redeliveries = Counter(
            "omnifleet_job_redeliveries", "Starts of jobs whose last worker was lost.", registry=registry
        )
        self._resumed = Counter(
            "omnifleet_job_parts_resumed",
            "Windows and parts of long jobs that were taken over from an earlier attempt.",
            registry=registry,
        )
        self._refused = Counter("omnifleet_messages_refused", "Messages that could not be read.", registry=registry)
        self.counts: Counts[Outcome] = Counts()
        """Deliveries since the process started."""
        # Looked up once each: labels() costs as much as the rest.
        self._of_outcome, self._of_task = cache(self._jobs.labels), cache(self._delivery.labels)
        self._of_stage, self._of_priority = cache(self._stages.labels), cache(self._waits.labels)

    def begun(self, priority: str, queued: float, attempt: int, unfinished: int) -> None:
        """Record the start of an attempt, `queued` seconds after its submission; see `attempts.AttemptStart`."""
        if attempt == 1:
            self._of_priority(priority).observe(queued)
        if unfinished > 1:
            self._redeliveries.inc()

    def ended(self, task: str, outcome: Outcome, seconds: float, error: BaseException | None = None) -> None:
        """Record the end of a delivery."""
        self.counts[outcome] += 1
        self._of_outcome(task, outcome).inc()
        self._of_task(task).observe(seconds)
        if error is not None:
            self._errors.labels(type(error).__name__).inc()

    def spent(self, stages: Mapping[str, float], resumed_from: int = 0) -> None:
        """Record the seconds that an attempt spent in each stage, 0 in those that it did not have.

        Args:
            stages: the seconds.
            resumed_from: windows and parts that it took over from an earlier attempt.
        """
        self._resumed.inc(resumed_from)
        for stage, seconds in stages.items():
            if seconds > 0 and stage != "queued":
                self._of_stage(stage).observe(seconds)

    def refused(self) -> None:
        """Count a message that could not be read."""
        self._refused.inc()


class EngineMetrics:
    """Counts the engine's work as its observer. Thread-safe: steps, conditioning and decoding run side by side."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._calls = Histogram(
            "omnifleet_engine_call_seconds",
            "Time of a call of the model: prepare, a diffusion, chat or speech step as the device takes it, finish.",
            ["work"],
            buckets=SHORT,
            registry=registry,
        )
        self._batches = Histogram(
            "omnifleet_engine_batch_requests",
            "Requests that shared a call of the model.",
            ["work"],
            buckets=BATCHES,
            registry=registry,
        )
        self._busy = Counter(
            "omnifleet_engine_busy_seconds",
            "Time in which the device worked for the model: between the first and last kernel of its calls.",
            registry=registry,
        )
        self._host = Counter(
            "omnifleet_engine_host_seconds",
            "Time in which the engine's thread worked, without its waits for the device and for requests.",
            registry=registry,
        )
        self._failures = Counter(
            "omnifleet_engine_failures", "Calls of the model that raised.", ["work", "error"], registry=registry
        )
        # Looked up once: labels() costs as much as the rest.
        self._by_work: dict[Work, tuple[Histogram, Histogram]] = {
            work: (self._calls.labels(work), self._batches.labels(work)) for work in get_args(Work)
        }
        self.busy_seconds = 0.0
        """Time in which the device worked since the process started, however much of it was done side by side."""
        self.host_seconds = 0.0
        """Time in which the engine's thread worked since the process started."""
        self._busy_until = 0.0
        self._lock = threading.Lock()
        self.steps = 0
        self.stepped_requests = 0
        """Requests in all those steps."""

    def worked(self, work: Work, requests: int, seconds: float, device_seconds: float) -> None:
        """See `EngineObserver`."""
        calls, batches = self._by_work[work]
        calls.observe(seconds)
        batches.observe(requests)
        with self._lock:
            now = time.monotonic()
            added = now - min(now, max(now - device_seconds, self._busy_until))
            self._busy_until = now
            self._busy.inc(added)
            self.busy_seconds += added
            if work not in ("prepare", "finish"):
                self.steps += 1
                self.stepped_requests += requests

    def hosted(self, seconds: float) -> None:
        """See `EngineObserver`."""
        self._host.inc(seconds)
        self.host_seconds += seconds

    def failed(self, work: Work, requests: int, error: Exception) -> None:
        """See `EngineObserver`."""
        self._failures.labels(work, type(error).__name__).inc()


class WorkerMetrics:
    """All metrics of one process, to be scraped from `registry`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.jobs = JobMetrics(self.registry)
        self.engine = EngineMetrics(self.registry)
        self.storage_errors = Counter(
            "omnifleet_storage_errors",
            "Calls of the object storage that failed, each try counted.",
            ["operation", "error"],
            registry=self.registry,
        )

    def watch_failures_in_a_row(self, failures: Callable[[], int]) -> None:
        """Show how many different jobs failed with the same unforeseen error since one succeeded."""
        help_text = "Jobs that failed with the same unforeseen error since one succeeded."
        Gauge("omnifleet_unforeseen_failures_in_a_row", help_text, registry=self.registry).set_function(failures)

    def watch_host_memory(self, limit: int, reserved: Callable[[], int], waiting: Callable[[], int]) -> None:
        """Show the budget for decoded media, in bytes, with what is reserved of it and how many jobs wait for it."""
        values: dict[tuple[str, str], Callable[[], float]] = {
            ("budget_bytes", "Memory that decoded media of all jobs may take."): lambda: limit,
            ("reserved_bytes", "What jobs hold of it, or were promised."): reserved,
            ("waiting_jobs", "Jobs that wait for their share of it."): waiting,
        }
        for (name, help_text), value in values.items():
            Gauge(f"omnifleet_host_memory_{name}", help_text, registry=self.registry).set_function(value)


def outcome_of(error: OmnifleetError) -> Outcome:
    """What became of a job that ended with this error for good."""
    if isinstance(error, JobCancelled):
        return "cancelled"
    return "quarantined" if isinstance(error, JobQuarantined) else "failed"
