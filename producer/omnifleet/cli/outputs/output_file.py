"""The file that a command writes its result to: refused before the job where it could not be written after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omnifleet_shared.errors import InvalidJob
from omnifleet_shared.file_names import file_name

from ...results.results import JobResult

TEXT_SUFFIX = "txt"


@dataclass(frozen=True, kw_only=True)
class OutputFile:
    """What `-o` names: a file, a file without suffix that gets one, or a folder in which one gets its name."""

    path: Path
    task: str
    about: str
    """What the task is about, for the name in a folder."""
    suffix: str
    """Of the result, as far as is known before it is there."""
    force: bool = False
    """Whether a file that is there is written over."""

    def check(self) -> None:
        """Refuse what could not be written after the job. Raises InvalidJob."""
        if not self.path.is_dir() and not self.path.parent.is_dir():
            raise InvalidJob(f"there is no folder {str(self.path.parent)!r}", "output", "Make it first")
        self._refuse_existing(self._complete(self.suffix))

    def write(self, result: JobResult) -> Path:
        """Write the result, and give the file's path. Raises InvalidJob where it is there by now; else as `save`."""
        made = result.video or result.audio
        path = self._complete(TEXT_SUFFIX if made is None else made.format)
        self._refuse_existing(path, result.job_id)
        return result.save(path)

    def _complete(self, suffix: str) -> Path:
        if self.path.is_dir():
            return self.path / file_name(self.task.lower(), self.about, suffix)
        if self.path.suffix or suffix == TEXT_SUFFIX:
            return self.path
        return self.path.with_name(f"{self.path.name}.{suffix}")

    def _refuse_existing(self, path: Path, job_id: str | None = None) -> None:
        if path.exists() and not self.force:
            again = f"; the job is done: omnifleet result {job_id} -o FILE" if job_id else ""
            raise InvalidJob(f"{str(path)!r} is there already", "output", f"Name another file, or add --force{again}")


def about_media(sources: Sequence[str]) -> str:
    """Name what a task is about by the first of the files, paths or URIs, that it hears or sees."""
    return Path(sources[0].partition("?")[0]).stem if sources else ""
