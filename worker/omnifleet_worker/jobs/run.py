"""One attempt at one job: what it does now, what it has spent, and whether it is still wanted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
from omnifleet_shared.errors import DeadlineExceeded, JobCancelled
from omnifleet_shared.jobs import Job, UnderstandJob
from omnifleet_shared.results import Progress, Timings

from ..engine.engine import Engine
from ..engine.request import ChatInputs, DiffusionInputs, Request
from ..models.chat import Chat

Stage = Literal["fetched", "decoded", "conditioned", "sampled", "encoded", "stored"]


class JobRun:
    """The job's thread drives it; the monitor's thread reads `progress` and may `cancel`."""

    def __init__(self, job: Job, engine: Engine, *, attempt: int = 1) -> None:
        self.job = job
        self.attempt = attempt
        self._engine = engine
        self._request: Request | None = None
        self._cancelled = False
        queued = (datetime.now(UTC) - job.submitted_at).total_seconds()
        self._spent: dict[str, float] = {"queued": max(0.0, queued)}  # clocks of two machines may disagree

    @property
    def timings(self) -> Timings:
        """Seconds spent in each stage so far."""
        return Timings.model_validate(self._spent)

    def cancel(self) -> None:
        """Stop at the next stage or engine step."""
        self._cancelled = True
        if self._request is not None:
            self._request.cancel()

    def progress(self) -> Progress:
        """How far the newest engine request is; zeros before the first."""
        return self._request.progress() if self._request is not None else Progress()

    def check_wanted(self) -> None:
        """Raise JobCancelled or DeadlineExceeded when nobody waits for the result any more."""
        if self._cancelled:
            raise JobCancelled("the job was cancelled")
        if self.job.deadline is not None and datetime.now(UTC) > self.job.deadline:
            raise DeadlineExceeded("the deadline passed before the result was there", "deadline", "Allow more time")

    @contextmanager
    def stage(self, name: Stage) -> Iterator[None]:
        """Count the time of the block to a stage."""
        self.check_wanted()
        start = time.monotonic()
        try:
            yield
        finally:
            self._count(name, time.monotonic() - start)

    def ask(self, chat: Chat, max_new_tokens: int = 512) -> str:
        """The thinker's answer. Raises the engine's typed errors."""
        temperature = self.job.temperature if isinstance(self.job, UnderstandJob) else 0.0
        return str(
            self._submit(
                ChatInputs(chat=chat, max_new_tokens=max_new_tokens, temperature=temperature, seed=self.job.seed)
            )
        )

    def sample(self, prompt: Chat, *, speech: str | None = None, audio: np.ndarray | None = None) -> np.ndarray:
        """A clip, float32 [2, 483328] at 44.1 kHz with a peak of 1. Raises the engine's typed errors."""
        assert not isinstance(self.job, UnderstandJob)
        inputs = DiffusionInputs(
            prompt=prompt,
            speech=speech,
            audio=audio,
            steps=self.job.steps,
            guidance=self.job.guidance,
            seed=self.job.seed,
        )
        clip: np.ndarray = self._submit(inputs)
        return clip

    def _submit(self, inputs: ChatInputs | DiffusionInputs) -> Any:
        self.check_wanted()
        deadline = self.job.deadline.timestamp() if self.job.deadline else None
        self._request = request = Request(inputs=inputs, priority=self.job.priority, deadline=deadline)
        if self._cancelled:  # between the check and the assignment
            request.cancel()
        outcome: Future[Any] = self._engine.submit(request).outcome
        try:
            return outcome.result()
        finally:
            self._count_request(request)

    def _count_request(self, request: Request) -> None:
        now = time.monotonic()
        started = request.started_at or now
        self._count("conditioned", started - request.submitted_at)
        self._count("sampled", now - started)

    def _count(self, name: Stage, seconds: float) -> None:
        self._spent[name] = self._spent.get(name, 0.0) + seconds
