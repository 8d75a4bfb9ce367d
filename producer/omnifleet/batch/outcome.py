"""What came of one job of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omnifleet_shared.errors import OmnifleetError

from ..results.results import AudioResult, TextResult


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one job: a result, or an error."""

    index: int
    """Position of the job among those that were passed, from 0."""
    request: Any
    """The job as it was passed."""
    job_id: str
    error: OmnifleetError | None = None
    """Why there is no result; None where there is one."""
    made: TextResult | AudioResult | None = None
    """The result; None where there is none."""

    @property
    def result(self) -> TextResult | AudioResult:
        """The result. Raises the job's own error where it failed, as `JobHandle.result` does."""
        if self.error is not None:
            raise self.error
        assert self.made is not None, "an outcome has a result or an error"
        return self.made
