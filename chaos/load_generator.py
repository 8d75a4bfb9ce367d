"""Customers: each sends a job, waits for its outcome, judges it, and sends the next."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from omnifleet import BrokerUnavailable, Client, JobHandle, JobStatus, OmnifleetError, TransientError

from .workload import Order, draw

WAIT = 2.0
"""Seconds after which a waiting customer looks whether the run is over."""
AGAIN = 0.25
"""Seconds before something that failed for the moment is tried again."""


@dataclass
class Ledger:
    """What became of every job that was taken. One customer at a time writes of a job."""

    open: set[str] = field(default_factory=set)
    """No outcome yet; once the run is over, these are lost."""
    right: set[str] = field(default_factory=set)
    wrong: dict[str, str] = field(default_factory=dict)
    """What is wrong, by job."""
    refused: int = 0
    """Submissions that were refused."""

    @property
    def jobs(self) -> list[str]:
        """All that were taken."""
        return [*self.right, *self.wrong, *self.open]

    def judge(self, job_id: str, fault: str | None) -> None:
        """Note an outcome."""
        if fault is None:
            self.right.add(job_id)
        else:
            self.wrong[job_id] = fault
        self.open.discard(job_id)


class Customer:
    """One of several; `serve` on a thread of its own.

    Args:
        name: of this one.
        omni: takes the jobs.
        ledger: of all customers.
        luck: what it asks for.
        over: ends waiting.
    """

    def __init__(self, name: str, omni: Client, ledger: Ledger, luck: random.Random, over: threading.Event) -> None:
        self._name = name
        self._omni = omni
        self._ledger = ledger
        self._luck = luck
        self._over = over

    def serve(self, closing: float) -> None:
        """Send jobs until `closing` (monotonic time), and wait for the last one."""
        number = 0
        while time.monotonic() < closing and not self._over.is_set():
            order = draw(f"{self._name} asks {number}", self._luck)
            job = self._submit(order, closing)
            if job is not None:
                self._await(order, job)
            number += 1

    def _submit(self, order: Order, closing: float) -> JobHandle[Any] | None:
        """The job, taken at last; None where it was refused until closing time."""
        while time.monotonic() < closing:
            try:
                job = order.submit(self._omni)
            except BrokerUnavailable:
                self._ledger.refused += 1
                self._over.wait(AGAIN)
                continue
            self._ledger.open.add(job.id)
            return job
        return None

    def _await(self, order: Order, job: JobHandle[Any]) -> None:
        while not self._over.is_set():
            try:
                fault = order.fault(job.result(timeout=WAIT))
            except OmnifleetError as error:
                if not self._is_outcome(job, error):
                    self._over.wait(AGAIN)
                    continue
                fault = f"{type(error).__name__}: {error}"
            self._ledger.judge(job.id, fault)
            return

    @staticmethod
    def _is_outcome(job: JobHandle[Any], error: OmnifleetError) -> bool:
        """Whether the job ended with the error; else it is of this moment, and of this side."""
        try:
            return not isinstance(error, TransientError) or job.status() is JobStatus.FAILED
        except BrokerUnavailable:
            return False
