"""VoxCPM2's engine, whose texts go on behind their third patch once the file that HELD_UNTIL names is there."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from omnifleet_worker.engines import voxcpm_speech
from omnifleet_worker.engines.loaded_model import LoadedModel
from omnifleet_worker.models.speech_model import Samples, SpeechInputs
from omnifleet_worker.settings import WorkerSettings


class _HeldVoxCPM(voxcpm_speech.VoxCPMSpeech):
    def speak(self, inputs: SpeechInputs) -> Iterator[Samples]:
        for number, piece in enumerate(super().speak(inputs)):
            while number == 3 and not Path(os.environ["HELD_UNTIL"]).exists():
                time.sleep(0.02)
                yield np.zeros(0, np.float32)
            yield piece


def load(settings: WorkerSettings) -> LoadedModel:
    """Load it in a process that loads nothing else."""
    voxcpm_speech.VoxCPMSpeech = _HeldVoxCPM  # type: ignore[misc]
    return voxcpm_speech.load(settings)
