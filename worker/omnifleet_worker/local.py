"""A client's transport that runs jobs on an engine in this process."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Self

from omnifleet_shared.broker.worker_registry import Capacity, WorkerRecord
from omnifleet_shared.errors import CallbackRefused, EngineStopped, JobCancelled, JobFailed, OmnifleetError, UnknownJob
from omnifleet_shared.job_state.batch_waiter import BatchResultWaiter, PollingResultWaiter
from omnifleet_shared.keys import MODEL
from omnifleet_shared.schema.idempotency import IdempotencyKey
from omnifleet_shared.schema.job_state import JobState
from omnifleet_shared.schema.jobs import Job
from omnifleet_shared.schema.parts import StreamedPart
from omnifleet_shared.schema.results import JobResult, JobStatus, Progress, Route
from omnifleet_shared.storage import Storage

from .engine.engine import Engine
from .engines.table import load_model
from .jobs.job_context import JobContext
from .jobs.runner import JobRunner
from .jobs.streaming.job_stream import JobStreams
from .settings import WorkerSettings


class PartLog:
    """Keeps the parts of all streamed jobs in memory."""

    def __init__(self) -> None:
        self._parts: dict[str, list[StreamedPart]] = {}

    def commit(self, job_id: str, tag: str, part: StreamedPart) -> StreamedPart:
        """Append a part; there is one attempt only."""
        self._parts.setdefault(job_id, []).append(part)
        return part

    def read(self, job_id: str) -> list[StreamedPart]:
        """Return all parts so far."""
        return list(self._parts.get(job_id, ()))


class LocalTransport:
    """Runs jobs on threads of this process and one engine; see `omnifleet.transport.celery.JobTransport`.

    Args:
        settings: checkpoint, device and limits.
        storage: where media come from and results go.
    """

    def __init__(self, settings: WorkerSettings, storage: Storage) -> None:
        self._loaded = loaded = load_model(settings)
        self._engine = Engine(loaded.runner, loaded.limits)
        self._part_log = PartLog()
        streams = JobStreams(storage, self._part_log, settings)
        self._jobs = JobRunner(loaded.model, storage, settings, streams=streams)
        self._places = settings.concurrency
        self._threads = ThreadPoolExecutor(settings.concurrency, thread_name_prefix="job")
        self._runs: dict[str, tuple[JobContext, Future[JobResult]]] = {}
        self._keys: dict[str, tuple[str, Mapping[str, str]]] = {}
        self._lock = threading.Lock()
        self._engine.start()

    def of_tenant(self, tenant: str) -> Self:
        """Return itself: nobody else has a share in a local model."""
        return self

    def submit(self, job: Job, key: IdempotencyKey | None = None, route: Route | None = None) -> str:
        """Run the job as soon as a thread is free, unless one with that key waits, runs or has succeeded.

        Raises:
            CallbackRefused: it asks for a callback.
            IdempotencyConflict: the key is that of another request.
        """
        if job.callback is not None:
            raise CallbackRefused("a local model calls nobody back", "callback", "Wait for the result")
        context = JobContext(job, self._engine)
        with self._lock:
            if key is not None:
                known_id, request = self._keys.get(key.key, ("", {}))
                if known_id and _is_live(self._runs[known_id][1]):
                    key.compare(request, known_id)
                    return known_id
                self._keys[key.key] = (job.job_id, key.request)
            self._runs[job.job_id] = (context, self._threads.submit(self._run, context))
        return job.job_id

    def read(self, job_id: str) -> JobState:
        """Return the job's state now. Raises UnknownJob."""
        _, outcome = self._find(job_id)
        if not outcome.done():
            return JobState(status=JobStatus.RUNNING if outcome.running() else JobStatus.QUEUED)
        if outcome.cancelled():
            return JobState(status=JobStatus.FAILED, error=EngineStopped("the model was closed before the job began"))
        error = outcome.exception()
        if error is None:
            return JobState(status=JobStatus.SUCCEEDED, result=outcome.result())
        typed = error if isinstance(error, OmnifleetError) else JobFailed(str(error))
        status = JobStatus.CANCELLED if isinstance(typed, JobCancelled) else JobStatus.FAILED
        return JobState(status=status, error=typed)

    def wait(self, job_id: str, timeout: float | None) -> JobState:
        """The state once it is final, or as it is after `timeout` seconds. Raises UnknownJob."""
        with suppress(FutureTimeout, CancelledError):
            self._find(job_id)[1].exception(timeout)
        return self.read(job_id)

    def progress(self, job_id: str) -> Progress:
        """Return the job's progress. Raises UnknownJob."""
        return self._find(job_id)[0].progress()

    def parts(self, job_id: str, after: int) -> Sequence[StreamedPart]:
        """Return the parts that the job has given out behind number `after`."""
        return self._part_log.read(job_id)[after:]

    def callback(self, job_id: str) -> None:
        """Return None: a local model makes no callbacks. Raises UnknownJob."""
        self._find(job_id)

    def route(self, job_id: str) -> None:
        """Return None: there is one model. Raises UnknownJob."""
        self._find(job_id)

    def cancel(self, job_id: str) -> None:
        """Stop the job before it starts, or at its next step. Raises UnknownJob."""
        self._find(job_id)[0].cancel()

    def watch(self) -> BatchResultWaiter:
        """Waits for many jobs at once."""
        return PollingResultWaiter(self.read)

    def pending_deletion(self, uris: Sequence[str]) -> bool:
        """Give False: nobody collects what a local model stores."""
        return False

    @property
    def model_name(self) -> str:
        """Name that jobs have for the model: Audio-Omni's own for every checkpoint of it."""
        capabilities = self._loaded.model.capabilities
        return MODEL if capabilities.engine == MODEL else capabilities.name

    def workers(self, queue: str) -> Sequence[WorkerRecord]:
        """Return this process, which is the worker of its model."""
        now, capabilities = datetime.now(UTC), self._loaded.model.capabilities
        about: dict[str, Any] = {"started_at": now, "reported_at": now, "capabilities": capabilities}
        return [WorkerRecord(name="local", version=version("omnifleet"), state="ready", slots=self._places, **about)]

    def capacity(self, queue: str | None = None) -> Capacity:
        """This process, and the jobs that it holds at once."""
        return Capacity(workers=1, slots=self._places, alive=1)

    def close(self) -> None:
        """End the engine; jobs that are not done fail with EngineStopped."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._engine.stop()
        self._threads.shutdown(wait=True)
        self._loaded.close()

    def _run(self, context: JobContext) -> JobResult:
        try:
            return self._jobs.run(context)
        except OmnifleetError:
            raise
        except Exception as error:
            name = type(error).__name__
            raise JobFailed(f"the model failed with {name}: {error}", details={"type": name}) from error

    def _find(self, job_id: str) -> tuple[JobContext, Future[JobResult]]:
        with self._lock:
            found = self._runs.get(job_id)
        if found is None:
            raise UnknownJob(f"no job {job_id[:80]!r} is known here", "job_id", "Jobs are known to their own process")
        return found


def _is_live(outcome: Future[JobResult]) -> bool:
    return not outcome.done() or (not outcome.cancelled() and outcome.exception() is None)
