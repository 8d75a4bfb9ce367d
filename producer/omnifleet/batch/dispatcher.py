"""Jobs on their way: fed from an iterator, a window of them in the fleet, each told once when it comes to its end."""

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
    StorageRefused,
    StorageUnavailable,
    UnknownJob,
)
from omnifleet_shared.schema.job_state import JobState
from omnifleet_shared.schema.results import JobStatus

from ..request.request import Request
from .concurrency import Window
from .sender import JobSender

SENDERS = 8
"""Threads that upload and send."""
TICK = 0.05
"""Seconds between looks at what is being sent, while nothing else happens."""
IDLE = 0.5
"""Seconds between looks at a window that changed, or at a wish to stop."""
PUT_OFF = 2.0
"""Seconds before sending again what found no Redis or no storage."""

Trouble = OmnifleetError | None
"""What the batch waits for now, other than its jobs."""


@dataclass(frozen=True)
class Item:
    """A job that is to be carried out."""

    number: int
    """Whatever tells it from the others."""
    request: Request | OmnifleetError
    """Or why it is none."""
    job_id: str
    sent_at: float | None = None
    """Unix time at which it may have been sent before, by a process that is gone; None where it was not."""


@dataclass(frozen=True)
class Landing:
    """An item that came to its end."""

    item: Item
    job_id: str
    state: JobState


class Flight:
    """Iterate it once; leaving the iteration lets the jobs in the fleet go on.

    Args:
        fleet: that carries the jobs out.
        items: pulled only when there is room: never more than the window ahead of what was told.
        window: most jobs at a time.
        in_order: tell the ends in the order of the items, and not as they come.
        notice: told what the batch waits for, and None when it goes on.
        meanwhile: called at least every half second, while jobs are waited for.

    Raises, while it is iterated:
        BrokerUnavailable, StorageUnavailable, StorageRefused, InvalidSetting: before the first job was sent. From then
            on a fleet that does not answer is waited for.
    """

    def __init__(
        self,
        fleet: JobSender,
        items: Iterator[Item],
        window: Window,
        *,
        in_order: bool = False,
        notice: Callable[[Trouble], None] = lambda _: None,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        self._fleet = fleet
        self._items = items
        self._window = window
        self._in_order = in_order
        self._notice = notice
        self._meanwhile = meanwhile
        self._watch = fleet.transport.watch()
        self._senders = ThreadPoolExecutor(SENDERS, thread_name_prefix="batch-send")
        self._sending: dict[Future[str], Item] = {}
        self._in_fleet: dict[str, list[Item]] = {}
        """By job id, those that are being sent too; several items may be of one job, by their idempotency key."""
        self._put_off: list[tuple[float, Item]] = []
        self._landed: dict[int, Landing] = {}
        """Ends that were not told yet, by the items' numbers."""
        self._order: dict[int, None] = {}
        """Numbers of the items that were pulled and not told, in order."""
        self._exhausted = False
        self._stopping = False
        self._asked_to_stop: set[str] = set()
        self._reached = False

    def __iter__(self) -> Generator[Landing]:
        try:
            while True:
                self._feed()
                if (landing := self._next()) is not None:
                    yield landing
                elif self._order:
                    self._wait()
                else:
                    return
        finally:
            self._senders.shutdown(cancel_futures=True)
            self._watch.close()

    @property
    def in_fleet(self) -> int:
        """Jobs that were sent, or are being sent, and have no end yet."""
        return len(self._in_fleet)

    def stop(self) -> None:
        """Pull no more, and ask for every job that is in the fleet to be stopped; their ends are still told.

        To be called again and again until they are: what is being sent, or finds no Redis, is stopped the next time.
        """
        self._exhausted = self._stopping = True
        for _, item in self._put_off:
            del self._order[item.number]
        self._put_off.clear()
        sending = {item.job_id for item in self._sending.values()}
        for job_id in self._in_fleet.keys() - self._asked_to_stop - sending:
            try:
                self._fleet.transport.cancel(job_id)
            except UnknownJob:
                continue  # noticed as any other job that is lost
            except BrokerUnavailable as error:
                self._notice(error)
                return
            self._asked_to_stop.add(job_id)

    def _feed(self) -> None:
        now = time.monotonic()
        due = [entry for entry in self._put_off if entry[0] <= now]
        for entry in due:
            self._put_off.remove(entry)
            self._send(entry[1])
        # What was put off found the fleet full or away: more of the same would find it so too.
        while not self._exhausted and not self._put_off and len(self._order) < self._window.size:
            self._pull()

    def _pull(self) -> None:
        item = next(self._items, None)
        if item is None:
            self._exhausted = True
            return
        self._order[item.number] = None
        if isinstance(item.request, OmnifleetError):
            self._fail(item, item.request)
        elif item.sent_at is not None:
            self._await(item.job_id, item)
        else:
            self._send(item)

    def _next(self) -> Landing | None:
        number = next(iter(self._order if self._in_order else self._landed), None)
        if number is None or number not in self._landed:
            return None
        del self._order[number]
        return self._landed.pop(number)

    def _wait(self) -> None:
        """Until something happens that may be told, or for a moment."""
        self._meanwhile()
        for sent in [one for one in self._sending if one.done()]:
            self._sent(sent, self._sending.pop(sent))
        try:
            ended = self._watch.wait(0 if self._landed else TICK if self._sending or self._put_off else IDLE)
        except BrokerUnavailable as error:
            self._trouble(error)
            time.sleep(TICK)
            return
        if ended:
            self._reached = True
            self._notice(None)
        for job_id, state in ended:
            for item in self._in_fleet.pop(job_id, []):
                self._landed[item.number] = Landing(item, job_id, state)
        sending = {item.job_id for item in self._sending.values()}
        for job_id in (self._watch.unknown & self._in_fleet.keys()) - sending:
            self._lost(job_id)

    def _send(self, item: Item) -> None:
        assert isinstance(item.request, Request)
        # Waited for from now on: a short job may have ended before anybody looks whether it was sent.
        self._await(item.job_id, item)
        self._sending[self._senders.submit(self._fleet.send, item.request, item.job_id)] = item

    def _sent(self, sent: Future[str], item: Item) -> None:
        if item not in self._in_fleet.get(item.job_id, ()):
            return  # it has ended already, whatever its sender was told
        try:
            job_id = sent.result()
        except OmnifleetError as error:
            self._forget(item)
            self._not_sent(item, error)
            return
        self._reached = True
        self._notice(None)
        if job_id != item.job_id:
            self._forget(item)
            self._await(job_id, item)

    def _not_sent(self, item: Item, error: OmnifleetError) -> None:
        if isinstance(error, QueueFull | BrokerUnavailable | StorageUnavailable):
            self._try_later(item, error)
        elif isinstance(error, StorageRefused | InvalidSetting) and not self._reached:
            raise error
        else:
            self._fail(item, error)

    def _await(self, job_id: str, item: Item) -> None:
        self._in_fleet.setdefault(job_id, []).append(item)
        self._watch.add([job_id])

    def _forget(self, item: Item) -> None:
        waiting = self._in_fleet[item.job_id]
        waiting.remove(item)
        if not waiting:
            del self._in_fleet[item.job_id]
            self._watch.discard([item.job_id])

    def _try_later(self, item: Item, error: OmnifleetError) -> None:
        if isinstance(error, QueueFull):
            self._notice(error)
        else:
            self._trouble(error)
        if self._stopping:
            del self._order[item.number]
            return
        wait = float(error.details.get("retry_after", PUT_OFF))
        self._put_off.append((time.monotonic() + wait, item))

    def _trouble(self, error: OmnifleetError) -> None:
        """Raise it where nothing has worked yet; otherwise it is waited for."""
        if not self._reached:
            raise error
        self._notice(error)

    def _lost(self, job_id: str) -> None:
        """A job without a record: never sent, lost with its Redis, or so old that its record has expired."""
        self._watch.unknown.discard(job_id)
        oldest = time.time() - self._fleet.settings.result_lifetime
        for item in self._in_fleet.pop(job_id):
            if self._stopping:
                del self._order[item.number]
            elif item.sent_at is None or item.sent_at > oldest:
                self._send(item)
            else:
                problem = "its record has expired, so that nobody knows whether it was done"
                self._fail(item, UnknownJob(problem, "job_id", "`omnifleet batch retry-failed` does it anew"))

    def _fail(self, item: Item, error: OmnifleetError) -> None:
        self._landed[item.number] = Landing(item, item.job_id, JobState(status=JobStatus.FAILED, error=error))
