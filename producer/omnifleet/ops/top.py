"""The fleet on a terminal: workers, GPUs, batches, the queue by priority, the pace and what failed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

from omnifleet_shared.broker.queue_stats import QueueStats, QueueStatsReader, TenantStats
from omnifleet_shared.broker.removal.lost_messages import LostMessages
from omnifleet_shared.broker.worker_registry import SeenWorker, WorkerRecord, WorkerRegistry
from omnifleet_shared.errors import BrokerError
from omnifleet_shared.redis_client import connect_redis
from omnifleet_shared.settings import FleetSettings
from redis import Redis
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from .queues import watched_queues

STATE_STYLES = {"ready": "green", "loading": "yellow", "draining": "yellow", "unwell": "bold red"}
BAR = 10
"""Characters of a usage bar."""
SHOWN_TENANTS = 10
SEARCH_SECONDS = 30.0
"""Seconds between two searches for lost messages, each of which looks at the records of all jobs."""
WIDE = 150
"""Columns of a terminal from which on a worker takes one line; below, what it runs has a table of its own."""


@dataclass(frozen=True)
class FleetView:
    """The state of the fleet that one frame shows."""

    queue: QueueStats
    workers: Sequence[SeenWorker]
    lost: int
    """Unfinished jobs without a message; see `LostMessages`."""


class FleetReader:
    """Reads the state of the fleet's models, each with a queue of its own, for one frame after the other."""

    def __init__(self, redis: Redis, settings: FleetSettings) -> None:
        self._redis = redis
        self._settings = settings
        self._readers: dict[str, QueueReader] = {}

    def read(self) -> list[FleetView]:
        """Read the state of this moment, that of lost messages at times. Raises BrokerError."""
        queues = watched_queues(self._redis, self._settings)
        self._readers |= {
            queue: QueueReader(self._redis, queue, self._settings.result_lifetime)
            for queue in queues
            if queue not in self._readers
        }
        return [self._readers[queue].read() for queue in queues]


class QueueReader:
    """Reads the state of one queue and its workers."""

    def __init__(self, redis: Redis, queue: str, lifetime: int) -> None:
        self._queue = QueueStatsReader(redis, queue)
        self._workers = WorkerRegistry(redis, queue)
        self._messages = LostMessages(redis, queue, lifetime)
        self._lost = 0
        self._next_search = time.monotonic()

    def read(self) -> FleetView:
        """Read the state of this moment, that of lost messages at times. Raises BrokerError."""
        if time.monotonic() >= self._next_search:
            self._lost = len(self._messages.find())
            self._next_search = time.monotonic() + SEARCH_SECONDS
        return FleetView(self._queue.read(), self._workers.all(), self._lost)


def show_once(settings: FleetSettings) -> None:
    """Print one frame. Raises BrokerError."""
    with closing(connect_redis(settings)) as redis:
        console = Console()
        console.print(frame(FleetReader(redis, settings).read(), console.width))


def show(settings: FleetSettings, interval: float) -> None:
    """Show the fleet until interrupted, with a new frame every `interval` seconds."""
    with closing(connect_redis(settings)) as redis, Live(screen=True, auto_refresh=False) as live:
        fleet = FleetReader(redis, settings)
        while True:
            live.update(_frame_or_error(fleet, live.console.width), refresh=True)
            time.sleep(interval)


def frame(views: Sequence[FleetView], width: int) -> RenderableType:
    """Render one frame for a terminal of so many columns."""
    first, *others = [_parts(view, width) for view in views]
    return Group(*first, *(part for parts in others for part in (Text(), *parts)))


def _parts(view: FleetView, width: int) -> list[RenderableType]:
    tables = _worker_tables(view.workers, width)
    queues = [_queue_table(view.queue), *_tenant_tables(view.queue.tenants)]
    return [_headline(view), Text(), *queues, Text(), *tables, *_reasons(view.workers)]


def _frame_or_error(fleet: FleetReader, width: int) -> RenderableType:
    try:
        return frame(fleet.read(), width)
    except BrokerError as error:
        return Text(f"{error}", style="red")


def _headline(view: FleetView) -> Text:
    records = [one.record for one in view.workers]
    ready = sum(record.state == "ready" for record in records)
    parts = [
        f"{view.queue.queue}: {ready} of {len(records)} workers ready",
        f"{view.queue.finished} jobs/min",
        f"{sum(record.failed for record in records)} failed",
        f"{sum(record.retried for record in records)} retried",
        f"{view.queue.suspects} to run alone",
        f"{view.queue.dead} dead-lettered",
        f"{view.lost} lost",
    ]
    return Text("\n".join(("   ".join(parts[:2]), "   ".join(parts[2:]))), style="bold")


def _queue_table(queue: QueueStats) -> Table:
    table = Table("queue", *(_right(name) for name in ("waiting", "running", "retry later", "oldest")), box=None)
    for level in queue.priorities:
        running = str(level.leased - level.postponed)
        table.add_row(level.priority, str(level.waiting), running, str(level.postponed), _age(level.oldest_age))
    return table


def _tenant_tables(tenants: Sequence[TenantStats]) -> list[RenderableType]:
    """Show the tenants with most jobs; none where there are no tenants."""
    if not tenants:
        return []
    names = ("waiting", "leased", "oldest", "GPU today", "GPU in all")
    table = Table("tenant", *(_right(name) for name in names), box=None)
    busiest = sorted(tenants, key=lambda one: (one.waiting + one.leased, one.gpu_seconds_today), reverse=True)
    for one in busiest[:SHOWN_TENANTS]:
        times = (one.oldest_age, one.gpu_seconds_today, one.gpu_seconds)
        table.add_row(one.tenant, str(one.waiting), str(one.leased), *map(_age, times))
    more = len(tenants) - SHOWN_TENANTS
    return [Text(), table, *([Text(f"and {more} more", style="dim")] if more > 0 else [])]


def _worker_tables(workers: Sequence[SeenWorker], width: int) -> list[Table]:
    if not workers:
        return [Table("no worker lives", box=None)]
    groups = [(*RUNS, BAR_COLUMN, *DOES)] if width >= WIDE else [(BUSY, *DOES), RUNS]
    return [_worker_table([one.record for one in workers], columns) for columns in groups]


def _worker_table(records: Sequence[WorkerRecord], columns: Sequence[WorkerColumn]) -> Table:
    # What does not fit goes on in the next line; numbers stay whole.
    table = Table(Column("worker", overflow="fold", min_width=12), box=None)
    for column in columns:
        table.add_column(column.title, justify=column.justify, no_wrap=column.justify == "right")
    for record in records:
        table.add_row(record.name, *(column.cell(record) for column in columns))
    return table


def _reasons(workers: Sequence[SeenWorker]) -> list[Text]:
    unwell = [one.record for one in workers if one.record.state == "unwell"]
    return [Text(f"{record.name}: {record.reason}", style=STATE_STYLES["unwell"]) for record in unwell]


def _right(name: str) -> Column:
    return Column(name, justify="right")


def _bar(share: float) -> Text:
    full = round(share * BAR)
    return Text("█" * full, style="cyan") + Text("░" * (BAR - full), style="dim") + Text(f" {share:.0%}")


def _memory(record: WorkerRecord) -> str:
    if record.gpu is None:
        return ""
    return f"{record.gpu.memory_used / 2**30:.1f}/{record.gpu.memory_total / 2**30:.0f} GiB"


def _age(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _checkpoint(record: WorkerRecord) -> str:
    return "" if record.checkpoint is None else f"{record.checkpoint} {record.revision}"


@dataclass(frozen=True)
class WorkerColumn:
    """A column of a table of workers."""

    title: str
    cell: Callable[[WorkerRecord], RenderableType]
    justify: Literal["left", "right"] = "left"


RUNS = (
    WorkerColumn("version", lambda record: record.version),
    WorkerColumn("checkpoint", _checkpoint),
    WorkerColumn("device", lambda record: record.device),
    WorkerColumn("memory", _memory),
)
"""What a worker is and runs."""
DOES = (
    WorkerColumn("state", lambda record: Text(record.state, style=STATE_STYLES[record.state])),
    WorkerColumn("host", lambda record: f"{record.host:.0%}", "right"),
    WorkerColumn("jobs", lambda record: f"{record.held}/{record.slots}", "right"),
    WorkerColumn("batch", lambda record: f"{record.batch:.1f}/{record.engine_slots}", "right"),
    WorkerColumn("done", lambda record: str(record.succeeded), "right"),
    WorkerColumn("failed", lambda record: str(record.failed), "right"),
)
"""What it does now, and did."""
BAR_COLUMN = WorkerColumn("busy", lambda record: _bar(record.busy))
BUSY = WorkerColumn("busy", lambda record: f"{record.busy:.0%}", "right")
