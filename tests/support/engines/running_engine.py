"""A step engine that runs while a test's block does, and jobs whose first attempt fails on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from omnifleet_shared.errors import OutOfMemory
from omnifleet_shared.schema.jobs import Job
from omnifleet_shared.schema.results import JobResult
from omnifleet_shared.storage import Storage
from omnifleet_worker.engine.engine import Engine
from omnifleet_worker.engines.loaded_model import LoadedModel
from omnifleet_worker.jobs.job_context import JobContext
from omnifleet_worker.jobs.parts.finished_parts import FinishedParts
from omnifleet_worker.jobs.runner import JobRunner
from omnifleet_worker.settings import WorkerSettings


@contextmanager
def running(loaded: LoadedModel) -> Iterator[Engine]:
    """The engine of a model, which steps until the block ends."""
    engine = Engine(loaded.runner, loaded.limits)
    engine.start()
    try:
        yield engine
    finally:
        engine.stop()


@dataclass(frozen=True)
class Resumption:
    """A job that failed and was tried again.

    Attributes:
        calls: of the model in both attempts, the one that failed among them.
        again: result of the second attempt.
        alone: result of the same job in one go.
    """

    calls: int
    again: JobResult
    alone: JobResult


def fail_and_resume(
    loaded: LoadedModel, works: type[Any], job: Job, storage: Storage, patch: pytest.MonkeyPatch, *, at: int = 3
) -> Resumption:
    """Run a job that fails at one of the model's calls, run it again, and once more with nothing kept.

    Args:
        loaded: the model.
        works: class whose `work` does a step of the job.
        job: to be run.
        storage: of its media, and of what the first attempt keeps.
        patch: for `works`.
        at: call that fails, from 1.
    """
    work, calls = works.work, list[Any]()

    def failing(model: Any, inputs: Any) -> Any:
        calls.append(inputs)
        if len(calls) == at:
            raise OutOfMemory("none is left")
        return work(model, inputs)

    patch.setattr(works, "work", failing)
    parts = FinishedParts(storage, (loaded.model.card.name,))
    with running(loaded) as engine:
        runner = JobRunner(loaded.model, storage, WorkerSettings(), parts)
        with pytest.raises(OutOfMemory):
            runner.run(JobContext(job, engine))
        again = runner.run(JobContext(job, engine, attempt=2))
        made = len(calls)
        alone = JobRunner(loaded.model, storage, WorkerSettings()).run(JobContext(job, engine))
    parts.close()
    return Resumption(made, again, alone)
