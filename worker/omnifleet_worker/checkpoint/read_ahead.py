"""Reading a checkpoint from disk while a worker still imports its libraries, which takes as long. No torch."""

from __future__ import annotations

import os
import threading
from pathlib import Path


def read_ahead(folder: Path) -> threading.Thread:
    """Have the kernel read a checkpoint's weights into its cache, and return the thread that asks for it.

    Args:
        folder: of the checkpoint; what is wrong with it is for whoever loads it to say.
    """
    thread = threading.Thread(target=_read, args=(folder,), name="read-ahead", daemon=True)
    thread.start()
    return thread


def _read(folder: Path) -> None:
    for path in sorted(folder.glob("*/*.safetensors")):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
