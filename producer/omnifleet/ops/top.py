"""The fleet on a terminal: workers, GPUs, batches, the queue by priority, the pace and what failed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from omnifleet_shared.broker.queue_stats import QueueStats, QueueStatsReader
from omnifleet_shared.broker.worker_registry import SeenWorker, WorkerRecord, WorkerRegistry
from omnifleet_shared.errors import BrokerError
from omnifleet_shared.redis_client import connect_redis
from omnifleet_shared.settings import FleetSettings
from redis import Redis
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

STATE_STYLES = {"ready": "green", "loading": "yellow", "draining": "yellow", "unwell": "bold red"}
BAR = 10
"""Characters of a usage bar."""


@dataclass(frozen=True)
class FleetView:
    """The state of the fleet that one frame shows."""

    queue: QueueStats
    workers: Sequence[SeenWorker]

    @classmethod
    def read(cls, redis: Redis, queue: str) -> FleetView:
        """Read the state of the fleet. Raises BrokerError."""
        return cls(QueueStatsReader(redis, queue).read(), WorkerRegistry(redis, queue).all())


def show_once(settings: FleetSettings) -> None:
    """Print one frame. Raises BrokerError."""
    with closing(connect_redis(settings)) as redis:
        Console().print(frame(FleetView.read(redis, settings.queue)))


def show(settings: FleetSettings, interval: float) -> None:
    """Show the fleet until interrupted, with a new frame every `interval` seconds."""
    with closing(connect_redis(settings)) as redis, Live(screen=True, auto_refresh=False) as live:
        while True:
            live.update(_frame_or_error(redis, settings.queue), refresh=True)
            time.sleep(interval)


def frame(view: FleetView) -> RenderableType:
    """Render one frame."""
    tables = (_headline(view), Text(), _queue_table(view.queue), Text(), _worker_table(view.workers))
    return Group(*tables, *_reasons(view.workers))


def _frame_or_error(redis: Redis, queue: str) -> RenderableType:
    try:
        return frame(FleetView.read(redis, queue))
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
    ]
    return Text("   ".join(parts), style="bold")


def _queue_table(queue: QueueStats) -> Table:
    table = Table("queue", *(_right(name) for name in ("waiting", "running", "retry later", "oldest")), box=None)
    for level in queue.priorities:
        running = str(level.leased - level.postponed)
        table.add_row(level.priority, str(level.waiting), running, str(level.postponed), _age(level.oldest_age))
    return table


def _worker_table(workers: Sequence[SeenWorker]) -> Table:
    numbers = [_right(name) for name in ("jobs", "batch", "done", "failed")]
    table = Table("worker", "state", "version", "checkpoint", "device", "busy", "host", "memory", *numbers, box=None)
    for one in workers:
        table.add_row(*_worker_row(one.record))
    return table if workers else Table("no worker lives", box=None)


def _reasons(workers: Sequence[SeenWorker]) -> list[Text]:
    unwell = [one.record for one in workers if one.record.state == "unwell"]
    return [Text(f"{record.name}: {record.reason}", style=STATE_STYLES["unwell"]) for record in unwell]


def _worker_row(record: WorkerRecord) -> list[RenderableType]:
    checkpoint = "" if record.checkpoint is None else f"{record.checkpoint} {record.revision}"
    return [
        record.name,
        Text(record.state, style=STATE_STYLES[record.state]),
        record.version,
        checkpoint,
        record.device,
        _bar(record.busy),
        _bar(record.host),
        _memory(record),
        f"{record.held}/{record.slots}",
        f"{record.batch:.1f}/{record.engine_slots}",
        str(record.succeeded),
        str(record.failed),
    ]


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
