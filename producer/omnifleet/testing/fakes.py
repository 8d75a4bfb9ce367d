"""A fleet in memory, for the tests of whoever uses omnifleet: no Redis, no disk, no model.

    omni = FakeClient(answer=lambda job: "hello" if job.task.name == "transcribe" else None)
    assert omni.understand("transcribe", "call.mp3").result().text == "hello"
    assert omni.jobs[0].task.name == "transcribe"

Requests are checked as by a real client, and refused with the same errors.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from omnifleet_shared.broker.worker_registry import Capacity, WorkerRecord
from omnifleet_shared.catalogue import SHIPPED
from omnifleet_shared.errors import (
    AnswerUnreadable,
    DeadlineExceeded,
    JobCancelled,
    OmnifleetError,
    UnknownJob,
    error_from_wire,
)
from omnifleet_shared.job_state.batch_waiter import BatchResultWaiter, PollingResultWaiter
from omnifleet_shared.schema import answers
from omnifleet_shared.schema import results as records
from omnifleet_shared.schema.adapter import UsedAdapter
from omnifleet_shared.schema.callback import CallbackDelivery
from omnifleet_shared.schema.idempotency import IdempotencyKey
from omnifleet_shared.schema.job_state import JobState
from omnifleet_shared.schema.jobs import EditJob, Job, UnderstandJob, read_job
from omnifleet_shared.schema.parts import StreamedPart
from omnifleet_shared.schema.results import JobStatus, ModelInfo, Progress, Route, Timings
from omnifleet_shared.schema.tasks import SpeechEdit
from omnifleet_shared.settings import FleetSettings
from omnifleet_shared.storage import Storage
from omnifleet_shared.storage.adapters import AdapterFiles

from ..client import Client
from .answers import make_answer, make_plan
from .artifacts import make_artifact, make_video
from .parts import make_parts
from .storage import MemoryStorage

Made = str | answers.Answer | records.EditPlan | bytes
Answer = Callable[[Job], Made | OmnifleetError | None]
"""Makes the answer to a job: a text, the record of a structured task (or its JSON as a text), the plan of a dry run,
the bytes of an audio file, an error that it fails with, or None for the usual."""


class FakeFleet:
    """Does jobs as soon as they are submitted, or when `release` is called. It is a `JobTransport`.

    Args:
        answer: makes the answer to each job. Where there is none, or it returns None, a text task answers "A fake
            answer to <task>." or with a sample record, and an audio task makes a tone of the job's seconds (1 where it
            names none), in the job's format. `mux` returns the video as it was sent.
        storage: where media go; in memory by default.
    """

    def __init__(self, answer: Answer | None = None, storage: Storage | None = None) -> None:
        self.answer = answer
        self.storage = storage or MemoryStorage()
        self.jobs: list[Job] = []
        """Every job that was submitted, as a worker would read it."""
        self.tenants: dict[str, str] = {}
        """Tenants of jobs that were submitted for one, by the jobs' ids."""
        self._holding = False
        self._states: dict[str, JobState] = {}
        self._progress: dict[str, Progress] = {}
        self._routes: dict[str, Route | None] = {}
        self._keys: dict[str, tuple[str, Mapping[str, str]]] = {}
        self._changed = threading.Condition()
        self._listeners: dict[str, list[Callable[[], object]]] = {}

    def hold(self) -> None:
        """Leave jobs that are submitted from now on in the queue."""
        self._holding = True

    def advance(self, job_id: str, step: int = 0, steps: int = 100, eta: float | None = None) -> None:
        """Show a held job as running, this far. Raises UnknownJob."""
        with self._changed:
            if not self.read(job_id).status.is_final:
                self._states[job_id] = JobState(status=JobStatus.RUNNING)
                self._progress[job_id] = Progress(step=step, steps=steps, eta=eta)
            self._notify(job_id)

    def release(self, job_id: str | None = None) -> None:
        """Do one held job; without an id do all of them, and hold no more. Raises UnknownJob."""
        if job_id is None:
            self._holding = False
        for job in list(self.jobs):
            if job_id in (None, job.job_id):
                self._finish(job)
        if job_id is not None:
            self.read(job_id)

    def of_tenant(self, tenant: str) -> FakeFleet:
        """See `JobTransport`."""
        return _FleetOfTenant(self, tenant)

    def submit(self, job: Job, key: IdempotencyKey | None = None, route: Route | None = None) -> str:
        """See `JobTransport`. Nothing is ever full. Raises IdempotencyConflict."""
        # Through the wire's form and back, so that a test sees what a worker would.
        received = read_job(job.model_dump(mode="json"))
        with self._changed:
            if key is not None and (existing := self._existing(key)) is not None:
                return existing
            self.jobs.append(received)
            self._routes[job.job_id] = route
            self._states[job.job_id] = JobState(status=JobStatus.QUEUED)
            if key is not None:
                self._keys[key.key] = (job.job_id, key.request)
        if not self._holding:
            self._finish(received)
        return job.job_id

    def read(self, job_id: str) -> JobState:
        """See `JobTransport`."""
        with self._changed:
            if job_id not in self._states:
                raise UnknownJob(f"no job {job_id[:80]!r} is known here", "job_id", "Submit it to this fake first")
            state = self._states[job_id]
        if state.error is None:
            return state
        # Another instance for every reader: a raised error carries the traceback of whoever raised it.
        return JobState(status=state.status, error=error_from_wire(type(state.error).__name__, state.error.args))

    def wait(self, job_id: str, timeout: float | None) -> JobState:
        """See `JobTransport`."""
        with self._changed:
            self._changed.wait_for(lambda: self.read(job_id).status.is_final, timeout)
            return self.read(job_id)

    def progress(self, job_id: str) -> Progress:
        """See `JobTransport`."""
        self.read(job_id)
        return self._progress.get(job_id, Progress())

    def parts(self, job_id: str, after: int) -> Sequence[StreamedPart]:
        """See `JobTransport`. A streamed job's are there when it is done: a word, or up to 10 s of sound each."""
        result = self.read(job_id).result
        is_streamed = any(job.job_id == job_id and not isinstance(job, EditJob) and job.stream for job in self.jobs)
        return make_parts(self.storage, result)[after:] if is_streamed and result is not None else []

    def callback(self, job_id: str) -> CallbackDelivery | None:
        """See `JobTransport`. Nothing is posted: a callback counts as delivered as soon as the job has its outcome."""
        final = self.read(job_id).status.is_final
        has_callback = any(job.job_id == job_id and job.callback is not None for job in self.jobs)
        return CallbackDelivery(status="delivered", delivery_id=job_id, attempts=1) if has_callback and final else None

    def route(self, job_id: str) -> Route | None:
        """See `JobTransport`."""
        self.read(job_id)
        return self._routes[job_id]

    def cancel(self, job_id: str) -> None:
        """See `JobTransport`. A held job is cancelled at once."""
        self._settle(job_id, JobState(status=JobStatus.CANCELLED, error=JobCancelled("the job was cancelled")))

    @contextmanager
    def listening(self, job_id: str, callback: Callable[[], object]) -> Iterator[None]:
        """Call `callback`, on whichever thread, at every change of the job within the block."""
        with self._changed:
            self._listeners.setdefault(job_id, []).append(callback)
        try:
            yield
        finally:
            with self._changed:
                self._listeners[job_id].remove(callback)

    def watch(self) -> BatchResultWaiter:
        """See `JobTransport`."""
        return PollingResultWaiter(self.read)

    def pending_deletion(self, uris: Sequence[str]) -> bool:
        """See `JobTransport`. Nothing is ever deleted."""
        return False

    def capacity(self, queue: str | None = None) -> Capacity:
        """See `JobTransport`. One worker of 16 slots."""
        return Capacity(workers=1, slots=16, alive=1)

    def workers(self, queue: str) -> Sequence[WorkerRecord]:
        """See `JobTransport`. Every model has a ready worker, and can do what it ships with."""
        now = datetime.now(UTC)
        return [WorkerRecord(name="fake", version="fake", state="ready", started_at=now, reported_at=now, slots=16)]

    def close(self) -> None:
        """See `JobTransport`."""

    def _notify(self, job_id: str) -> None:
        self._changed.notify_all()
        for callback in self._listeners.get(job_id, ()):
            callback()

    def _existing(self, key: IdempotencyKey) -> str | None:
        other, request = self._keys.get(key.key, ("", {}))
        if not other or self._states[other].status in (JobStatus.FAILED, JobStatus.CANCELLED):
            return None
        key.compare(request, other)
        return other

    def _finish(self, job: Job) -> None:
        if not self.read(job.job_id).status.is_final:
            self._settle(job.job_id, self._outcome(job))

    def _settle(self, job_id: str, outcome: JobState) -> None:
        with self._changed:
            if not self.read(job_id).status.is_final:
                self._states[job_id] = outcome
            self._notify(job_id)

    def _outcome(self, job: Job) -> JobState:
        if job.deadline is not None and job.deadline <= datetime.now(UTC):
            return JobState(status=JobStatus.FAILED, error=DeadlineExceeded("the deadline passed", "deadline"))
        answer = self.answer(job) if self.answer else None
        if isinstance(answer, OmnifleetError):
            status = JobStatus.CANCELLED if isinstance(answer, JobCancelled) else JobStatus.FAILED
            return JobState(status=status, error=answer)
        try:
            return JobState(status=JobStatus.SUCCEEDED, result=self._result(job, answer))
        except AnswerUnreadable as error:
            return JobState(status=JobStatus.FAILED, error=error)

    def _adapter(self, job: Job) -> UsedAdapter | None:
        if isinstance(job, UnderstandJob) or job.adapter is None:
            return None
        licence = AdapterFiles(self.storage).manifest(job.adapter.sha256).licence
        return UsedAdapter(**job.adapter.model_dump(), licence=licence)

    def _result(self, job: Job, answer: Made | None) -> records.JobResult:
        made: dict[str, Any]
        if isinstance(job, UnderstandJob):
            made = make_answer(job, answer)
        elif isinstance(job.task, SpeechEdit) and job.task.dry_run:
            made = make_plan(answer)
        else:
            made = {"artifact": make_artifact(self.storage, job, answer), "video": make_video(self.storage, job)}
        return records.JobResult(
            job_id=job.job_id,
            namespace=job.namespace,
            task=job.task.name,
            model=ModelInfo(name=job.model, revision="fake", licence=_licence(job.model)),
            route=self._routes.get(job.job_id),
            adapter=self._adapter(job),
            seed=job.seed,
            attempts=1,
            timings=Timings(),
            **made,
        )


class _FleetOfTenant(FakeFleet):
    """The same fleet, for the jobs of one tenant."""

    __slots__ = ("_tenant",)  # what is its own; all else is the fleet's

    def __init__(self, fleet: FakeFleet, tenant: str) -> None:
        self.__dict__ = fleet.__dict__
        self._tenant = tenant

    def submit(self, job: Job, key: IdempotencyKey | None = None, route: Route | None = None) -> str:
        """See `FakeFleet`."""
        self.tenants[job.job_id] = self._tenant
        return super().submit(job, key, route)


def _licence(model: str) -> str:
    return SHIPPED[model].licence if model in SHIPPED else "unknown"


class FakeClient(Client):
    """A `Client` of a `FakeFleet`.

    Args:
        answer: makes the answer to each job; see `FakeFleet`.
        fleet: one to share with other clients; `answer` is then the fleet's own.
        settings: from the environment by default; only the limits matter here.
    """

    def __init__(
        self, answer: Answer | None = None, *, fleet: FakeFleet | None = None, settings: FleetSettings | None = None
    ) -> None:
        self.fleet = fleet or FakeFleet(answer)
        """Holds jobs, shows progress, and can be given another `answer`."""
        super().__init__(settings, transport=self.fleet, storage=self.fleet.storage)

    @property
    def jobs(self) -> list[Job]:
        """Every job that was submitted, the first one first."""
        return self.fleet.jobs
