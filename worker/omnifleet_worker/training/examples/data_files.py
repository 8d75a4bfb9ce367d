"""Files of a data set: on disk, or in the tar archives that the set was published in."""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from omnifleet_shared.errors import InvalidTrainingData

_ARCHIVES = 64
"""Whose tables of contents are remembered."""


@dataclass(frozen=True)
class DataFile:
    """Bytes on disk.

    Attributes:
        path: of the file, or of the archive that holds it.
        size: bytes.
        start: of its first byte in the archive; None for a file of its own.
    """

    path: Path
    size: int
    start: int | None = None

    def open(self) -> io.BufferedReader | io.BytesIO:
        """Open it for reading."""
        return self.path.open("rb") if self.start is None else io.BytesIO(self.read_bytes())

    def read_bytes(self) -> bytes:
        """Read all of it."""
        with self.path.open("rb") as file:
            file.seek(self.start or 0)
            return file.read(self.size)


def find_file(path: Path) -> DataFile | None:
    """Find a file: where it is said to be, or in an archive beside one of the folders on the way.

    `set/mixed/a/1.wav` may be `a/1.wav` or `mixed/a/1.wav` in `set/mixed.tar`, which is read as it is.

    Args:
        path: of the file.

    Returns:
        Where its bytes are; None where it is neither here nor there.

    Raises:
        InvalidTrainingData: an archive on the way cannot be read.
    """
    if path.is_file():
        return DataFile(path, path.stat().st_size)
    for folder in (one for one in path.parents if one.name):
        archive = folder.with_name(f"{folder.name}.tar")
        if archive.is_file():
            members = _members(archive)
            inside = path.relative_to(folder)
            return members.get(str(folder.name / inside)) or members.get(str(inside))
    return None


@lru_cache(_ARCHIVES)
def _members(archive: Path) -> dict[str, DataFile]:
    try:
        with tarfile.open(archive, "r:") as members:
            return {str(Path(one.name)): DataFile(archive, one.size, one.offset_data) for one in members if one.isreg()}
    except (OSError, tarfile.TarError) as error:
        raise InvalidTrainingData(f"{archive} cannot be read: {error}", archive.name, "Fetch it again") from error
