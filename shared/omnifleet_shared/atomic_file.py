"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

PART_PREFIX = ".part-"
"""Begins the names of files that are being written."""


@contextmanager
def write_atomically(path: Path, mode: int | None = None) -> Generator[BinaryIO]:
    """Open a file for writing that takes the place of `path` when the block ends well, and is removed otherwise.

    Its bytes are on the disk before it is seen, so that a loss of power leaves no half of it either.

    Args:
        path: what to write; its folder must be there.
        mode: rights of the file; what the process's umask leaves by default.

    Raises:
        OSError: it cannot be written.
    """
    part = path.with_name(f"{PART_PREFIX}{uuid.uuid4().hex}")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if mode is not None:
                # Before it is visible, so that nobody finds it and may not read it.
                os.fchmod(file.fileno(), mode)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
