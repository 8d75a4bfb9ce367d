"""Load generators: each sends a job, waits for its outcome, checks it, and sends the next."""

from __future__ import annotations

import itertools
import random
import threading
import traceback
from dataclasses import dataclass, field
from typing import Any

from omnifleet import BrokerUnavailable, Client, JobHandle, JobStatus, OmnifleetError, ResultTimeout, TransientError

from .workload import WorkloadJob, random_job

RESULT_TIMEOUT = 2.0
"""Seconds after which a waiting generator sees whether the run is over."""
RETRY_INTERVAL = 0.25
"""Seconds before something that failed for the moment is tried again."""


@dataclass
class Outcomes:
    """What became of every job that was accepted. One generator at a time writes of a job."""

    open: set[str] = field(default_factory=set)
    """Jobs without an outcome; once the run is over, these are lost."""
    right: set[str] = field(default_factory=set)
    wrong: dict[str, str] = field(default_factory=dict)
    """What is wrong, by job id."""
    refused: int = 0
    """Submissions that were refused."""
    crashes: dict[str, str] = field(default_factory=dict)
    """Tracebacks of clients' calls that raised what they do not promise to raise, by the job's idempotency key."""

    @property
    def jobs(self) -> list[str]:
        """Ids of all jobs that were accepted."""
        return [*self.right, *self.wrong, *self.open]

    @property
    def count(self) -> int:
        """Number of jobs that were accepted."""
        return len(self.right) + len(self.wrong) + len(self.open)

    def record(self, job_id: str, fault: str | None) -> None:
        """Record an outcome and what is wrong with it; None where it is right."""
        if fault is None:
            self.right.add(job_id)
        else:
            self.wrong[job_id] = fault
        self.open.discard(job_id)


class LoadGenerator:
    """Sends one job after another; each generator runs on a thread of its own.

    Args:
        name: of this generator; part of its jobs' idempotency keys.
        omni: the client that it submits with.
        outcomes: shared by all generators.
        rng: decides what it asks for.
        quiet: ends submitting.
        over: ends waiting.
    """

    def __init__(
        self,
        name: str,
        omni: Client,
        outcomes: Outcomes,
        rng: random.Random,
        quiet: threading.Event,
        over: threading.Event,
    ) -> None:
        self._name = name
        self._omni = omni
        self._outcomes = outcomes
        self._rng = rng
        self._quiet = quiet
        self._over = over

    def run(self) -> None:
        """Send jobs until it is quiet, and wait for the outcome of the last one."""
        for number in itertools.count():
            if self._quiet.is_set():
                return
            self.ask(random_job(f"{self._name} asks {number}", self._rng))

    def ask(self, wanted: WorkloadJob) -> bool:
        """Submit a job and wait for its outcome; tells whether it has one."""
        try:
            job = self._submit(wanted)
            return job is not None and self._await(wanted, job)
        except Exception:
            self._outcomes.crashes[wanted.key] = traceback.format_exc()
            return False

    def _submit(self, wanted: WorkloadJob) -> JobHandle[Any] | None:
        """Submit until it is accepted; gives None where it was refused until it was quiet."""
        while not self._quiet.is_set():
            try:
                job = wanted.submit(self._omni)
            except BrokerUnavailable:
                self._outcomes.refused += 1
                self._quiet.wait(RETRY_INTERVAL)
                continue
            self._outcomes.open.add(job.id)
            return job
        return None

    def _await(self, wanted: WorkloadJob, job: JobHandle[Any]) -> bool:
        while not self._over.is_set():
            try:
                fault = wanted.fault(job.result(timeout=RESULT_TIMEOUT))
            except OmnifleetError as error:
                if not self._is_outcome(job, error):
                    self._over.wait(RETRY_INTERVAL)
                    continue
                fault = wanted.fault_of_error(error)
            self._outcomes.record(job.id, fault)
            return True
        return False

    @staticmethod
    def _is_outcome(job: JobHandle[Any], error: OmnifleetError) -> bool:
        """Tell whether the job ended with the error; otherwise this side could not reach Redis or storage for now."""
        if isinstance(error, ResultTimeout | BrokerUnavailable):
            return False  # of this side alone, also where the job has failed by now
        try:
            return not isinstance(error, TransientError) or job.status() is JobStatus.FAILED
        except BrokerUnavailable:
            return False
