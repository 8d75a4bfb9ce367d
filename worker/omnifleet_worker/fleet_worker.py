"""What one worker process holds: the checkpoint, its engine, the storage, the states of jobs."""

from __future__ import annotations

import logging
from typing import Any

from omnifleet_shared.errors import InvalidMessage, JobCancelled, UnknownJob
from omnifleet_shared.job_states import JobStates
from omnifleet_shared.jobs import Job, read_job
from omnifleet_shared.results import JobResult
from omnifleet_shared.storage import open_storage

from .checkpoint import describe, load_pipeline
from .engine.engine import Engine, ModelRunner
from .engine.model_runner import AudioOmniRunner
from .jobs.run import JobRun
from .jobs.runner import JobRunner
from .jobs.tasks import ModelData
from .monitor import JobMonitor
from .settings import WorkerSettings

logger = logging.getLogger(__name__)


class FleetWorker:
    """Takes messages to results. `start` loads the checkpoint and must return before the first message is taken."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        self.states = JobStates.connect(settings)
        self._monitor = JobMonitor(self.states, settings.progress_interval)
        self._engine: Engine
        self._runner: JobRunner

    def start(self) -> None:
        """Load everything and start the engine. Raises PermanentError where the worker can never work."""
        storage = open_storage(self.settings)
        model, runner = self.load()
        self._runner = JobRunner(model, storage, self.settings)
        self._engine = Engine(runner, max_active=self.settings.max_batch)
        self._engine.start()
        self._monitor.start()
        logger.info("the engine runs", extra={"action": "worker_started", "max_batch": self.settings.max_batch})

    def load(self) -> tuple[ModelData, ModelRunner]:
        """The checkpoint, as what jobs need to know of it and as what the engine runs."""
        pipeline = load_pipeline(self.settings)
        return describe(pipeline), AudioOmniRunner(pipeline)

    def stop(self) -> None:
        """End the engine; what is still in it fails as EngineStopped and is tried again elsewhere."""
        self._monitor.stop()
        if hasattr(self, "_engine"):
            self._engine.stop()
        self.states.close()
        logger.info("the engine has stopped", extra={"action": "worker_stopped"})

    def run(self, payload: object, job_id: str) -> dict[str, Any]:
        """The result record of the job in a message, as JSON values.

        Args:
            payload: the job record as it was decoded.
            job_id: the id that the message was sent under.

        Raises:
            OmnifleetError: the job's outcome, unless it is transient and attempts are left.
        """
        job = read_job(payload)
        if job.job_id != job_id:
            problem = f"the message {job_id!r} carries a job of another id"
            raise InvalidMessage(problem, "job_id", "Send a job under its own id")
        result = self._recorded(job_id) or self._run(job)
        return result.model_dump(mode="json")

    def _recorded(self, job_id: str) -> JobResult | None:
        """The outcome of a job that was delivered once more after it had ended."""
        try:
            state = self.states.read(job_id)
        except UnknownJob:  # sent by plain Celery, without our client
            return None
        if state.status.is_final and state.error is not None:
            raise state.error
        return state.result

    def _run(self, job: Job) -> JobResult:
        attempt = self.states.count_attempt(job.job_id)
        if self.states.cancelled([job.job_id]):
            raise JobCancelled("the job was cancelled before it started")
        run = JobRun(job, self._engine, attempt=attempt)
        about = {"job_id": job.job_id, "attempt": attempt, "task": f"{job.namespace}.{job.task.name}"}
        logger.info("job started: %s", job.job_id, extra={"action": "job_started", **about})
        with self._monitor.watching(run):
            result = self._runner.run(run)
        timings = result.timings.model_dump()
        logger.info("job done: %s", job.job_id, extra={"action": "job_done", **about, "timings": timings})
        return result
