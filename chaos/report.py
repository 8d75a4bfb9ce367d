"""The figures of a run, and how they are printed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from rich.console import Console
from rich.table import Table

from .faults import Kind
from .load_generator import Outcomes
from .recorder import RecordedJob


@dataclass(frozen=True, kw_only=True)
class Report:
    """The faults of a run, and what became of its jobs."""

    seed: int
    seconds: float
    """From the first job to the last outcome."""
    jobs: int
    refused: int
    """Submissions that were refused, and tried again."""
    kills: int
    stops: int
    redis_restarts: int
    cuts: int
    outages: int
    worker_exits: int
    """Workers that exited without having been killed."""
    redeliveries: int
    """Starts of jobs beyond the first."""
    duplicates: int
    lost: int
    wrong: int
    recovery_p50: float | None
    """Seconds from a worker's kill to the next start of a job that it had."""
    recovery_max: float | None
    faulty: dict[str, str]
    """What is wrong, by job id."""

    @property
    def passed(self) -> bool:
        """Whether every job had exactly one right outcome."""
        return not self.faulty


def create_report(
    *,
    seed: int,
    seconds: float,
    outcomes: Outcomes,
    recorded: Mapping[str, RecordedJob],
    faults: Mapping[Kind, int],
    exits: int,
    recoveries: list[float],
) -> Report:
    """Make the report of a run that is over."""
    twice = {job: f"{one.outcomes} outcomes" for job, one in recorded.items() if one.outcomes > 1}
    lost = dict.fromkeys(outcomes.open, "lost: no outcome")
    return Report(
        seed=seed,
        seconds=round(seconds, 1),
        jobs=len(recorded),
        refused=outcomes.refused,
        kills=faults.get("kills", 0),
        stops=faults.get("stops", 0),
        redis_restarts=faults.get("restarts", 0),
        cuts=faults.get("cuts", 0),
        outages=faults.get("outages", 0),
        worker_exits=exits,
        redeliveries=sum(max(0, one.starts - 1) for one in recorded.values()),
        duplicates=len(twice),
        lost=len(lost),
        wrong=len(outcomes.wrong),
        recovery_p50=round(median(recoveries), 2) if recoveries else None,
        recovery_max=round(max(recoveries), 2) if recoveries else None,
        faulty=lost | outcomes.wrong | twice,
    )


def show(report: Report, console: Console) -> None:
    """Print the figures as a table, and below it what is wrong."""
    table = Table(title=f"{report.seconds:.0f} s of chaos, seed {report.seed}")
    table.add_column("")
    table.add_column("", justify="right")
    for name, figure in _rows(report).items():
        table.add_row(name, "–" if figure is None else str(figure))
    console.print(table)
    for job_id, fault in report.faulty.items():
        console.print(f"[red]{job_id}[/red] {fault}")


def _rows(report: Report) -> dict[str, float | None]:
    return {
        "jobs": report.jobs,
        "submissions refused": report.refused,
        "workers killed": report.kills,
        "workers stopped": report.stops,
        "workers that ended on their own": report.worker_exits,
        "Redis restarts": report.redis_restarts,
        "connections cut": report.cuts,
        "storage outages": report.outages,
        "redeliveries": report.redeliveries,
        "duplicates": report.duplicates,
        "lost": report.lost,
        "wrong": report.wrong,
        "recovery p50, s": report.recovery_p50,
        "recovery max, s": report.recovery_max,
    }
