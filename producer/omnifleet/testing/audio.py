"""Audio of the fake fleet: tones."""

from __future__ import annotations

import io
import math
from array import array
from typing import Any

import soundfile
from omnifleet_shared.schema.jobs import EditJob, GenerateJob
from omnifleet_shared.schema.tasks import TextToSound

SAMPLE_RATE = 44_100
PERIOD = array("h", (round(3000 * math.sin(2 * math.pi * sample / 100)) for sample in range(100)))
"""One period of a quiet tone of 441 Hz, 16 bits, mono."""


def make_tone(job: GenerateJob | EditJob) -> bytes:
    """Make the usual audio of a job: a tone of the job's seconds, 1 s where it names none, in its format."""
    seconds = job.task.seconds if isinstance(job.task, TextToSound) else 1.0
    frames = max(round(seconds * SAMPLE_RATE), 1)
    samples = PERIOD * math.ceil(frames / len(PERIOD))
    file = io.BytesIO()
    files: Any = soundfile.SoundFile
    with files(file, "w", samplerate=SAMPLE_RATE, channels=1, format=job.format.upper()) as target:
        target.buffer_write(samples[:frames].tobytes(), dtype="int16")
    return file.getvalue()
