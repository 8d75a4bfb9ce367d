"""The figures of a run, and how they are printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

from .faults import Kind
from .load_generator import Outcomes
from .recorder import RecordedJob


@dataclass(frozen=True, kw_only=True)
class FaultFigures:
    """How often a kind of fault happened, and how long recoveries from it took in seconds, where that was measured."""

    count: int
    recovery_p50: float | None
    recovery_p99: float | None


@dataclass(frozen=True, kw_only=True)
class Report:
    """The faults of a run, and what became of its jobs."""

    seed: int
    seconds: float
    """From the first job to the last outcome."""
    is_complete: bool
    """Whether the run reached its goal."""
    jobs: int
    """Jobs that were accepted, those that kill workers not among them."""
    refused: int
    """Submissions that were refused, and tried again."""
    faults: dict[str, FaultFigures]
    workers: int
    """Worker processes that were started."""
    worker_exits: int
    """Workers that ended without having been killed by this run."""
    redeliveries: int
    """Starts of jobs beyond the first."""
    duplicates: int
    lost: int
    wrong: int
    quarantined: int
    """Jobs that were put aside and had killed workers."""
    innocent_in_quarantine: int
    """Jobs that were put aside and had killed none."""
    client_crashes: int
    """Calls of clients that raised what they do not promise to raise."""
    faulty: dict[str, str]
    """What is wrong, by job id; tracebacks by the job's idempotency key."""

    @property
    def passed(self) -> bool:
        """Whether every job had exactly one right outcome."""
        return not self.faulty


def create_report(
    *,
    seed: int,
    seconds: float,
    outcomes: Outcomes,
    poisoned: Outcomes,
    recorded: Mapping[str, RecordedJob],
    dead: Mapping[str, str],
    faults: Mapping[Kind, int],
    workers: int,
    exits: int,
    recoveries: Mapping[Kind, Sequence[float]],
    is_complete: bool,
) -> Report:
    """Make the report of a run that is over; `dead` has the reasons of dead letters by job id."""
    twice = {job: f"{one.outcomes} outcomes" for job, one in recorded.items() if one.outcomes > 1}
    lost = dict.fromkeys([*outcomes.open, *poisoned.open], "lost: no outcome")
    wrong = outcomes.wrong | poisoned.wrong
    poison = set(poisoned.jobs)
    innocent = {job: f"put aside without fault: {reason}" for job, reason in dead.items() if job not in poison}
    return Report(
        seed=seed,
        seconds=round(seconds, 1),
        is_complete=is_complete,
        jobs=outcomes.count,
        refused=outcomes.refused + poisoned.refused,
        faults={kind: _figures(faults[kind], recoveries.get(kind, ())) for kind in Kind if faults.get(kind)},
        workers=workers,
        worker_exits=exits,
        redeliveries=sum(max(0, one.starts - 1) for one in recorded.values()),
        duplicates=len(twice),
        lost=len(lost),
        wrong=len(wrong),
        quarantined=len(poison & dead.keys()),
        innocent_in_quarantine=len(innocent),
        client_crashes=len(outcomes.crashes | poisoned.crashes),
        faulty=lost | twice | wrong | innocent | outcomes.crashes | poisoned.crashes,
    )


def show(report: Report, console: Console) -> None:
    """Print the figures as tables, and below them what is wrong."""
    title = f"{report.seconds:.0f} s of chaos, seed {report.seed}{'' if report.is_complete else ', ended early'}"
    table = Table("", "", title=title)
    for name, figure in _rows(report).items():
        table.add_row(name, str(figure))
    console.print(table)
    faults = Table("fault", "times", "recovery p50, s", "recovery p99, s")
    for kind, figures in report.faults.items():
        faults.add_row(kind, str(figures.count), _text(figures.recovery_p50), _text(figures.recovery_p99))
    console.print(faults)
    for job_id, fault in report.faulty.items():
        console.print(f"[red]{job_id}[/red] {fault}", soft_wrap=True)


def _figures(count: int, recoveries: Sequence[float]) -> FaultFigures:
    p50, p99 = (round(float(one), 2) for one in np.percentile(recoveries, (50, 99))) if recoveries else (None, None)
    return FaultFigures(count=count, recovery_p50=p50, recovery_p99=p99)


def _text(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds:.2f}"


def _rows(report: Report) -> dict[str, int]:
    return {
        "jobs": report.jobs,
        "submissions refused": report.refused,
        "redeliveries": report.redeliveries,
        "worker processes": report.workers,
        "workers that ended on their own": report.worker_exits,
        "duplicates": report.duplicates,
        "lost": report.lost,
        "wrong": report.wrong,
        "jobs in quarantine that kill workers": report.quarantined,
        "innocent in quarantine": report.innocent_in_quarantine,
        "crashes of clients": report.client_crashes,
    }
