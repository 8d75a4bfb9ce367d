"""The first pass over a job list: every line is checked before anything is sent."""

from __future__ import annotations

from dataclasses import dataclass, field

from omnifleet_shared.errors import InvalidJobList, OmnifleetError, StorageRefused, TransientError

from ..sender import JobSender
from .job_list import JobLine, JobList

MOST_SHOWN = 20
"""Bad lines that are reported one by one."""


@dataclass
class ValidationReport:
    """What the validation of a list found."""

    jobs: int = 0
    """Lines, good and bad."""
    bad: int = 0
    """Lines that are no jobs."""
    first: list[tuple[int, OmnifleetError]] = field(default_factory=list[tuple[int, OmnifleetError]])
    """Number and error of the first bad lines."""

    def refusal(self) -> InvalidJobList:
        """Make the error for a list with bad lines."""
        lines = [{"line": line, "type": type(error).__name__, "error": str(error)} for line, error in self.first]
        problem = f"{self.bad} of {self.jobs} lines are no jobs, and nothing was sent"
        remedy = "Mend them, or leave them out with --skip-invalid"
        return InvalidJobList(problem, "jobs", remedy, {"lines": lines, "bad": self.bad, "jobs": self.jobs})


def validate_jobs(jobs: JobList, sender: JobSender) -> ValidationReport:
    """Check every line as far as is possible without reading its media.

    Raises:
        StorageUnavailable, StorageRefused: media that are in storage already cannot be looked at.
    """
    report = ValidationReport()
    for line in jobs:
        report.jobs += 1
        if (error := _error(line, sender)) is not None:
            report.bad += 1
            report.first += [(line.number, error)] if len(report.first) < MOST_SHOWN else []
    return report


def _error(line: JobLine, sender: JobSender) -> OmnifleetError | None:
    if isinstance(line.request, OmnifleetError):
        return line.request
    try:
        sender.validate(line.request)
    except (StorageRefused, TransientError):
        raise
    except OmnifleetError as error:
        return error
    return None
