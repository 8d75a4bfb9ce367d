"""A media process whose decoder does what the file says: crash, hang, take all memory. Run as a module."""

from __future__ import annotations

import io
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from omnifleet_worker.media.isolation import child
from omnifleet_worker.media.limits import MediaLimits


def misbehave(buffers: Sequence[Any], limits: MediaLimits, options: dict[str, Any]) -> child.Answer:
    """Do as the file says; a file that says nothing of this gives one sample at the rate of this process's id."""
    word, _, argument = bytes(buffers[0]).decode().partition(" ")
    if word == "once":
        if not Path(argument).exists():
            Path(argument).touch()
            os.kill(os.getpid(), signal.SIGSEGV)
    elif word == "segfault":  # libsndfile's own: any rate above 200,000 Hz ends it
        soundfile.write(io.BytesIO(), np.zeros(4_000), 384_000, format="OGG")
    elif word == "hang":
        time.sleep(600)
    elif word == "memory":
        bytearray(2**40)
    elif word == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif word == "exit":
        os._exit(3)
    elif word == "bug":
        raise ZeroDivisionError("a mistake of ours")
    return {"sample_rate": os.getpid(), "places": None, "lossy": False}, [np.zeros((1, 1), np.float32)]


if __name__ == "__main__":
    child.CALLS["decode_audio"] = misbehave
    child.main()
