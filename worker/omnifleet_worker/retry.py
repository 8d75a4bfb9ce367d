"""Retries: of a call while a service is away, and the waits between a job's or a callback's attempts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from omnifleet_shared.errors import TransientError
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_delay,
    wait_exponential,
    wait_random_exponential,
)

logger = logging.getLogger(__name__)
R = TypeVar("R")


def patiently(
    work: Callable[[], R],
    away: type[TransientError],
    seconds: float,
    *,
    job_id: str | None = None,
    check: Callable[[], None] = lambda: None,
) -> R:
    """Do the work, and again while it raises `away`, for so many seconds.

    Args:
        work: done once at least.
        away: what is waited out.
        seconds: after which the error is raised.
        job_id: for the log, where it is a job that waits.
        check: called before each further try; what it raises ends the waiting.
    """

    def before_sleep(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        about = {"action": "job_waits", "job_id": job_id} if job_id else {"action": "worker_waits"}
        logger.warning("waiting: %s %s", job_id or "", error, extra=about)
        check()

    return Retrying(
        retry=retry_if_exception_type(away),
        wait=wait_random_exponential(multiplier=0.2, max=5),
        stop=stop_after_delay(seconds),
        before_sleep=before_sleep,
        reraise=True,
    )(work)


def backoff_seconds(attempt: int, first: float, longest: float) -> float:
    """Seconds to wait after an attempt: doubled each time, of which between half and all at random.

    Args:
        attempt: that failed, from 1.
        first: the whole wait after the first attempt.
        longest: the whole wait at most.
    """
    state = RetryCallState(Retrying(), None, (), {})
    state.attempt_number = attempt
    half, most = first / 2, longest / 2
    wait = wait_exponential(multiplier=half, max=most) + wait_random_exponential(multiplier=half, max=most)
    return wait(state)
