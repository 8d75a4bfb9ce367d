"""The first pass over a job list: every line is checked before anything is sent."""

from __future__ import annotations

from dataclasses import dataclass, field

from omnifleet_shared.errors import InvalidJobList, OmnifleetError, StorageRefused, TransientError

from ..sender import JobSender
from .job_list import JobList, Line

TOLD = 20
"""Bad lines that are told one by one."""


@dataclass
class Findings:
    """What a pass over the list found."""

    jobs: int = 0
    """Good and bad."""
    bad: int = 0
    first: list[tuple[int, OmnifleetError]] = field(default_factory=list[tuple[int, OmnifleetError]])
    """Number and error of the first bad lines."""

    def refusal(self) -> InvalidJobList:
        """The error for a list with bad lines."""
        lines = [{"line": line, "type": type(error).__name__, "error": str(error)} for line, error in self.first]
        problem = f"{self.bad} of {self.jobs} lines are no jobs, and nothing was sent"
        remedy = "Mend them, or leave them out with --skip-invalid"
        return InvalidJobList(problem, "jobs", remedy, {"lines": lines, "bad": self.bad, "jobs": self.jobs})


def check(jobs: JobList, fleet: JobSender) -> Findings:
    """Check every line as far as is possible without reading its media.

    Raises:
        StorageUnavailable, StorageRefused: media that are in storage already cannot be looked at.
    """
    findings = Findings()
    for line in jobs:
        findings.jobs += 1
        if (error := _error(line, fleet)) is not None:
            findings.bad += 1
            findings.first += [(line.number, error)] if len(findings.first) < TOLD else []
    return findings


def _error(line: Line, fleet: JobSender) -> OmnifleetError | None:
    if isinstance(line.request, OmnifleetError):
        return line.request
    try:
        fleet.validate(line.request)
    except (StorageRefused, TransientError):
        raise
    except OmnifleetError as error:
        return error
    return None
