"""The engine of AudioSep, from a clone of its published code with the weights in `checkpoint`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from omnifleet_shared.catalogue import SHIPPED
from omnifleet_shared.errors import CheckpointInvalid
from omnifleet_shared.schema.capabilities import Capabilities

from ...devices import choose_device
from ...engine.limits import EngineLimits
from ...installation import checkpoint_folder
from ...models.recording_model import RecordingInputs
from ...models.speech_model import Samples
from ...settings import WorkerSettings
from ..folder_card import CARD, read_capabilities, revision_of
from ..loaded_model import LoadedModel
from ..recordings.runner import RecordingRunner
from ..recordings.separator import Separator
from .clone_process import RATE, CloneProcess

NAME = "audiosep"
PROGRAM, CONFIG, WEIGHTS = "pipeline.py", "config/audiosep_base.yaml", "checkpoint"
_REMEDY = "Name a clone of AudioSep, with the weights in its folder `checkpoint` as its README.md says"
_PROBE: Samples = (np.random.default_rng(0).standard_normal(RATE) / 10).astype(np.float32)


def load(settings: WorkerSettings) -> LoadedModel:
    """Start the clone that the settings name as their checkpoint; its code is run.

    Raises:
        InvalidSetting: the device or the Python of its environment does not exist.
        CheckpointInvalid: it is no clone of AudioSep, not whole, or does not load.
    """
    folder, device = checkpoint_folder(settings).resolve(), choose_device(settings.device)
    weights = _find_weights(folder)
    capabilities = _capabilities(folder)
    arguments = (CONFIG, weights, str(device))
    # Not resolved: a virtual environment's Python is a link, and the environment is where that lies.
    clone = CloneProcess((settings.clone_python or Path(sys.executable)).absolute(), folder, arguments)
    return LoadedModel(
        model=Separator(capabilities, sample_rate=RATE, precision=f"{device.type} float32"),
        runner=RecordingRunner(clone),
        limits=EngineLimits(speeches=1),
        probes=[RecordingInputs(wave=_PROBE, about="noise")],
        close=clone.close,
    )


def _find_weights(folder: Path) -> str:
    for path in (PROGRAM, CONFIG):
        if not (folder / path).is_file():
            raise CheckpointInvalid(f"{folder} has no {path}", "OMNIFLEET_CHECKPOINT", _REMEDY)
    found = sorted(path.name for path in (folder / WEIGHTS).glob("*.ckpt"))
    if len(found) != 1:
        problem = f"{folder / WEIGHTS} holds {', '.join(found) or 'none'} of AudioSep's weights (*.ckpt)"
        raise CheckpointInvalid(problem, "OMNIFLEET_CHECKPOINT", f"{_REMEDY}; one of them is run")
    return f"{WEIGHTS}/{found[0]}"


def _capabilities(folder: Path) -> Capabilities:
    """What the clone's card says, else what is known of the published weights."""
    known: dict[str, Any] = {"revision": revision_of(folder / WEIGHTS), "sample_rate": None, "streaming": False}
    if (folder / CARD).is_file():
        return read_capabilities(folder, NAME, **known)
    return SHIPPED["audiosep"].model_copy(update=known)
