"""Makes engines of models that work through recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ...engine.limits import EngineLimits
from ...models.recording_model import RecordingInputs
from ...models.speech_model import Samples
from ..folder_card import read_capabilities
from ..loaded_model import LoadedModel
from .recogniser import RATE, open_recogniser
from .runner import RecordingRunner
from .transcripts import Transcriber

TRANSCRIBE = "understand.transcribe"
_PROBE: Samples = (np.random.default_rng(0).standard_normal(RATE // 2) / 10).astype(np.float32)


def load_recogniser(folder: Path, engine: str, device: torch.device, dtype: torch.dtype) -> LoadedModel:
    """Load a speech recogniser.

    Args:
        folder: of transformers, with the processor; its card is `card.json`, or the front matter of its README.md.
        engine: its name.
        device: that runs it.
        dtype: of its weights.

    Raises:
        CheckpointInvalid: it is no recogniser, not whole, or its card does not say enough.
    """
    model = open_recogniser(folder, device, dtype)
    capabilities = read_capabilities(folder, engine, task=TRANSCRIBE, streaming=True)
    return LoadedModel(
        model=Transcriber(capabilities, model, precision=f"{device.type} {dtype}"),
        runner=RecordingRunner(model),
        limits=EngineLimits(speeches=1),
        probes=[RecordingInputs(wave=_PROBE)],
    )
