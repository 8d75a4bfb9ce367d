"""Sends the jobs of a batch from an iterator, a limited number at a time, and gives each out once when it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from omnifleet_shared.errors import (
    BrokerUnavailable,
    InvalidSetting,
    OmnifleetError,
    QueueFull,
    QuotaExceeded,
    StorageRefused,
    StorageUnavailable,
    UnknownJob,
)
from omnifleet_shared.schema.job_state import JobState
from omnifleet_shared.schema.results import JobStatus

from ..request.request import Request
from .concurrency import InFlightLimit
from .sender import JobSender

SENDERS = 8
"""Threads that upload and send."""
POLL_INTERVAL = 0.05
"""Seconds between looks at what is being sent, while nothing else happens."""
IDLE_INTERVAL = 0.5
"""Seconds between looks at a limit that changed, or at a request to stop."""
RESEND_DELAY = 2.0
"""Seconds before sending again what found no Redis or no storage."""
LONGEST_DELAY = 600.0
"""Seconds after which it is tried again in any case: a quota may have been raised before the day ends."""


@dataclass(frozen=True)
class WorkItem:
    """A job that is to be done."""

    number: int
    """Unique within the batch."""
    request: Request | OmnifleetError
    """What to do, or why the item is no request."""
    job_id: str
    sent_at: float | None = None
    """Unix time at which it may have been sent before, by a process that is gone; None where it was not."""


@dataclass(frozen=True)
class Completion:
    """A work item with its final state."""

    item: WorkItem
    job_id: str
    """The item's own, or that of a job that stands for it by its idempotency key."""
    state: JobState


class Dispatcher:
    """Sends work items and gives out their completions. Iterate it once; leaving it early lets sent jobs go on.

    Args:
        sender: sends the jobs.
        items: pulled only when there is room: never more than the limit ahead of what was given out.
        limit: most jobs at a time.
        in_order: give completions out in the order of the items, and not as they come.
        on_wait: called with what the batch waits for other than its jobs, and with None when it goes on.
        on_tick: called at least every half second, while jobs are waited for.

    Raises, while it is iterated:
        BrokerUnavailable, StorageUnavailable, StorageRefused, InvalidSetting: before the first job was sent. From then
            on a fleet that does not answer is waited for.
    """

    def __init__(
        self,
        sender: JobSender,
        items: Iterator[WorkItem],
        limit: InFlightLimit,
        *,
        in_order: bool = False,
        on_wait: Callable[[OmnifleetError | None], None] = lambda _: None,
        on_tick: Callable[[], None] = lambda: None,
    ) -> None:
        self._sender = sender
        self._items = items
        self._limit = limit
        self._in_order = in_order
        self._on_wait = on_wait
        self._on_tick = on_tick
        self._waiter = sender.transport.watch()
        self._threads = ThreadPoolExecutor(SENDERS, thread_name_prefix="batch-send")
        self._sending: dict[Future[str], WorkItem] = {}
        self._in_fleet: dict[str, list[WorkItem]] = {}
        """By job id, those that are being sent too; several items may be of one job, by their idempotency key."""
        self._delayed: list[tuple[float, WorkItem]] = []
        """Items to send later, with the monotonic time from which on they may be sent."""
        self._completed: dict[int, Completion] = {}
        """Completions that were not given out yet, by the items' numbers."""
        self._pending: dict[int, None] = {}
        """Numbers of the items that were pulled and not given out, in order."""
        self._exhausted = False
        self._stopping = False
        self._cancelled: set[str] = set()
        """Ids of the jobs that were asked to stop."""
        self._fleet_answered = False

    def __iter__(self) -> Generator[Completion]:
        try:
            while True:
                self._feed()
                if (completion := self._next()) is not None:
                    yield completion
                elif self._pending:
                    self._wait()
                else:
                    return
        finally:
            self._threads.shutdown(cancel_futures=True)
            self._waiter.close()

    @property
    def in_fleet(self) -> int:
        """Jobs that were sent, or are being sent, and have not ended yet."""
        return len(self._in_fleet)

    def stop(self) -> None:
        """Pull no more items, and cancel every job that is in the fleet; their completions are still given out.

        To be called again and again until they are: what is being sent, or finds no Redis, is cancelled the next time.
        """
        self._exhausted = self._stopping = True
        for _, item in self._delayed:
            del self._pending[item.number]
        self._delayed.clear()
        for job_id in self._in_fleet.keys() - self._cancelled - self._ids_being_sent():
            try:
                self._sender.transport.cancel(job_id)
            except UnknownJob:
                continue  # noticed as any other job that is lost
            except BrokerUnavailable as error:
                self._on_wait(error)
                return
            self._cancelled.add(job_id)

    def _ids_being_sent(self) -> set[str]:
        return {item.job_id for item in self._sending.values()}

    def _feed(self) -> None:
        now = time.monotonic()
        due = [entry for entry in self._delayed if entry[0] <= now]
        for entry in due:
            self._delayed.remove(entry)
            self._send(entry[1])
        # Delayed items found the fleet full or away: more of the same would find it so too.
        while not self._exhausted and not self._delayed and len(self._pending) < self._limit.size:
            self._pull()

    def _pull(self) -> None:
        item = next(self._items, None)
        if item is None:
            self._exhausted = True
            return
        self._pending[item.number] = None
        if isinstance(item.request, OmnifleetError):
            self._fail(item, item.request)
        elif item.sent_at is not None:
            self._watch(item.job_id, item)
        else:
            self._send(item)

    def _next(self) -> Completion | None:
        number = next(iter(self._pending if self._in_order else self._completed), None)
        if number is None or number not in self._completed:
            return None
        del self._pending[number]
        return self._completed.pop(number)

    def _wait(self) -> None:
        """Wait until something may be given out, or for a moment."""
        self._on_tick()
        for future in [one for one in self._sending if one.done()]:
            self._finish_sending(future, self._sending.pop(future))
        try:
            ended = self._waiter.wait(self._wait_seconds())
        except BrokerUnavailable as error:
            self._wait_out(error)
            time.sleep(POLL_INTERVAL)
            return
        self._complete(ended)
        for job_id in (self._waiter.unknown & self._in_fleet.keys()) - self._ids_being_sent():
            self._handle_lost(job_id)

    def _wait_seconds(self) -> float:
        if self._completed:
            return 0
        return POLL_INTERVAL if self._sending or self._delayed else IDLE_INTERVAL

    def _complete(self, ended: list[tuple[str, JobState]]) -> None:
        if ended:
            self._note_answer()
        for job_id, state in ended:
            for item in self._in_fleet.pop(job_id, []):
                self._completed[item.number] = Completion(item, job_id, state)

    def _note_answer(self) -> None:
        self._fleet_answered = True
        self._on_wait(None)

    def _send(self, item: WorkItem) -> None:
        assert isinstance(item.request, Request)
        # Watched from now on: a short job may have ended before anybody looks whether it was sent.
        self._watch(item.job_id, item)
        self._sending[self._threads.submit(self._sender.send, item.request, item.job_id)] = item

    def _finish_sending(self, future: Future[str], item: WorkItem) -> None:
        if item not in self._in_fleet.get(item.job_id, ()):
            return  # it has ended already, whatever its sender saw
        try:
            job_id = future.result()
        except OmnifleetError as error:
            self._unwatch(item)
            self._handle_not_sent(item, error)
            return
        self._note_answer()
        if job_id != item.job_id:
            self._unwatch(item)
            self._watch(job_id, item)

    def _handle_not_sent(self, item: WorkItem, error: OmnifleetError) -> None:
        if isinstance(error, QueueFull | QuotaExceeded | BrokerUnavailable | StorageUnavailable):
            self._send_later(item, error)
        elif isinstance(error, StorageRefused | InvalidSetting) and not self._fleet_answered:
            raise error
        else:
            self._fail(item, error)

    def _watch(self, job_id: str, item: WorkItem) -> None:
        self._in_fleet.setdefault(job_id, []).append(item)
        self._waiter.add([job_id])

    def _unwatch(self, item: WorkItem) -> None:
        waiting = self._in_fleet[item.job_id]
        waiting.remove(item)
        if not waiting:
            del self._in_fleet[item.job_id]
            self._waiter.discard([item.job_id])

    def _send_later(self, item: WorkItem, error: OmnifleetError) -> None:
        if isinstance(error, QueueFull | QuotaExceeded):
            self._on_wait(error)
        else:
            self._wait_out(error)
        if self._stopping:
            del self._pending[item.number]
            return
        delay = float(error.details.get("retry_after", RESEND_DELAY))
        self._delayed.append((time.monotonic() + min(delay, LONGEST_DELAY), item))

    def _wait_out(self, error: OmnifleetError) -> None:
        """Raise the error where the fleet has not answered yet; otherwise it is waited for."""
        if not self._fleet_answered:
            raise error
        self._on_wait(error)

    def _handle_lost(self, job_id: str) -> None:
        """Send again a job without a record: never sent, lost with its Redis, or so old that its record has expired."""
        self._waiter.unknown.discard(job_id)
        oldest = time.time() - self._sender.settings.result_lifetime
        for item in self._in_fleet.pop(job_id):
            if self._stopping:
                del self._pending[item.number]
            elif item.sent_at is None or item.sent_at > oldest:
                self._send(item)
            else:
                problem = "its record has expired, so that nobody knows whether it was done"
                self._fail(item, UnknownJob(problem, "job_id", "`omnifleet batch retry-failed` does it anew"))

    def _fail(self, item: WorkItem, error: OmnifleetError) -> None:
        state = JobState(status=JobStatus.FAILED, error=error)
        self._completed[item.number] = Completion(item, item.job_id, state)
