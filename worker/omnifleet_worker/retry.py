"""Retries: of a call while a service is away, and the waits between a job's or a callback's attempts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from omnifleet_shared.errors import TransientError
from omnifleet_shared.observability.outage_log import OutageLog
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_delay,
    wait_exponential,
    wait_random_exponential,
)

logger = logging.getLogger(__name__)
R = TypeVar("R")


def retry_until(
    call: Callable[[], R],
    retry_on: type[Exception],
    timeout: float,
    *,
    give_up_on: tuple[type[TransientError], ...] = (),
    job_id: str | None = None,
    before_retry: Callable[[], None] = lambda: None,
) -> R:
    """Call until it succeeds or the timeout is over, with exponential waits of at most 5 seconds in between.

    Args:
        call: what is tried, at least once.
        retry_on: the error that is retried; any other is raised at once.
        timeout: seconds after which `retry_on` is raised too.
        give_up_on: errors among `retry_on` that are raised at once all the same.
        job_id: for the log, where it is a job that waits.
        before_retry: called before each further try; what it raises ends the retries.

    Returns:
        What the call returns.
    """

    try:
        return call()
    except retry_on as error:
        first = [error]

    def call_again() -> R:
        if first:
            raise first.pop()
        return call()

    # The same reason is not logged at every try.
    action, who = ("job_waits", job_id) if job_id else ("worker_waits", "the worker")
    waits = OutageLog(logger, action, f"{who} waits", f"{who} goes on")

    def before_sleep(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, Exception):
            waits.failed(error)
        before_retry()

    result = Retrying(
        retry=retry_if_exception(lambda error: isinstance(error, retry_on) and not isinstance(error, give_up_on)),
        wait=wait_random_exponential(multiplier=0.2, max=5),
        stop=stop_after_delay(timeout),
        before_sleep=before_sleep,
        reraise=True,
    )(call_again)
    waits.answered()
    return result


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
