"""Settings of a worker process, from `OMNIFLEET_*` in the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from omnifleet_shared.settings import FleetSettings
from pydantic import Field


class WorkerSettings(FleetSettings):
    """What one worker process loads and how much it does at once."""

    checkpoint: Path | None = None
    """Folder of the checkpoint, in diffusers' layout; there is no worker without one."""
    device: str = "auto"
    """Torch device; `auto` takes the first visible GPU, else the CPU."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the transformer and the thinker; `auto` is bfloat16 on a GPU and float32 on a CPU."""
    max_batch: Annotated[int, Field(ge=1, le=256)] = 8
    """Requests that share a step of the engine."""
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 16
    """Jobs that a worker holds at once: those in the engine, and those that fetch, decode, encode or store."""
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 4
    """Times that a job is started before a transient error becomes its outcome."""
    retry_backoff: Annotated[float, Field(gt=0)] = 2.0
    """Seconds before the second attempt, doubled for each further one, with jitter, up to two minutes."""
    decode_seconds: Annotated[float, Field(gt=0)] = 60.0
    """Wall time that decoding one file may take."""
    progress_interval: Annotated[float, Field(gt=0)] = 0.25
    """Seconds between two looks at wishes to cancel, and between two reports of progress."""
    log_format: Literal["json", "text"] = "json"
    """One JSON object a line, or plain lines for people."""
