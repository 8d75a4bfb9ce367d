"""The program behind `celery worker`: its options are carried out, or refused with a reason before anything starts."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from typing import Any

import click
from celery import concurrency, platforms
from celery.apps.worker import Worker
from celery.concurrency.thread import TaskPool

from .pool import FleetPool

MOST_JOBS = 1024
"""Largest `-c`, as of OMNIFLEET_CONCURRENCY."""
NO_CHILDREN = "its jobs are threads of one process, which stays"
REFUSED: Mapping[str, tuple[str, str]] = {
    "autoscale": ("--autoscale", "one process is one GPU: start more workers, or fewer"),
    "beat": ("--beat", "run celery beat as a process of its own: a worker with it would send its tasks twice"),
    "max_memory_per_child": ("--max-memory-per-child", f"{NO_CHILDREN}; OMNIFLEET_HOST_MEMORY limits its memory"),
    "max_tasks_per_child": ("--max-tasks-per-child", NO_CHILDREN),
    "schedule_filename": ("--schedule", "run celery beat as a process of its own"),
    "scheduler": ("--scheduler", "run celery beat as a process of its own"),
    "soft_time_limit": ("--soft-time-limit", "threads cannot be ended: send jobs with a deadline"),
    "statedb": ("--statedb", "what is revoked is kept in Redis, for all workers"),
    "time_limit": ("--time-limit", "threads cannot be ended: send jobs with a deadline"),
}
"""Options by their names in Celery: how they are written, and why they are not carried out."""
DEFAULTS = {"schedule_filename": "celerybeat-schedule"}


class FleetController(Worker):
    """Celery's worker, whose jobs are threads beside one engine."""

    app: Any
    pool_cls: Any
    concurrency: int
    """Threads of the pool."""

    def on_after_init(self, *args: Any, **options: Any) -> None:
        """Hold the options to what this worker does. Raises click.UsageError."""
        super().on_after_init(*args, **options)
        for name, (written, reason) in REFUSED.items():
            if options.get(name) not in (None, False, DEFAULTS.get(name)):
                raise click.UsageError(f"{written} is not for this worker: {reason}")
        self._refuse_prefetching(options.get("prefetch_multiplier"))
        self._choose_pool()
        self._hold_at_once(self.concurrency)
        self.concurrency = self.app.fleet.lease_renewer.places.total
        self._hangs_up = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN

    def setup_queues(self, include: Any, exclude: Any = None) -> None:
        """Refuse other queues: their messages would have no lease, and be gone with the worker that took them."""
        super().setup_queues(include, exclude)
        served, own = set(self.app.amqp.queues.consume_from), self.app.fleet.settings.queue
        if served != {own}:
            other = ", ".join(sorted(served - {own})) or "none"
            raise click.UsageError(f"this worker serves {own} alone, not {other}: set OMNIFLEET_QUEUE in place of -Q")

    def install_platform_tweaks(self, worker: Any) -> None:
        """Let a hang-up drain as SIGTERM does, unless it is ignored (nohup): Celery would start anew amid the jobs."""
        super().install_platform_tweaks(worker)
        platforms.signals["HUP"] = signal.getsignal(signal.SIGTERM) if self._hangs_up else signal.SIG_IGN

    def _refuse_prefetching(self, multiplier: int | None) -> None:
        if multiplier not in (None, self.app.conf.worker_prefetch_multiplier):
            reason = "a job that waits in one worker is one that an idle worker cannot have"
            raise click.UsageError(f"--prefetch-multiplier is not for this worker: {reason}")

    def _choose_pool(self) -> None:
        chosen = concurrency.get_implementation(self.pool_cls)
        # Celery takes `-P prefork` for its default, and then the pool that is configured.
        if chosen not in (TaskPool, FleetPool) or (chosen is FleetPool and _is_given("pool")):
            raise click.UsageError("omnifleet runs with --pool threads: one process, one GPU, one checkpoint")
        self.pool_cls = FleetPool

    def _hold_at_once(self, jobs: int) -> None:
        if not 1 <= jobs <= MOST_JOBS:
            raise click.UsageError(f"-c {jobs}: a worker holds 1 to {MOST_JOBS} jobs of a kind at once")
        hold: Callable[[int], None] = self.app.hold_at_once
        hold(jobs)


def _is_given(option: str) -> bool:
    """Whether the option stands on the command line that started this."""
    context = click.get_current_context(silent=True)
    given = click.core.ParameterSource.COMMANDLINE
    return context is not None and context.get_parameter_source(option) is given
