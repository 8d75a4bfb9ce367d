"""The checkpoint of a worker process: loaded once, and what the rest of the worker needs to know of it."""

from __future__ import annotations

import logging
import time

import torch
from omnifleet_shared.errors import CheckpointInvalid, InvalidSetting
from omnifleet_shared.model_card import ModelCard
from pydantic import ValidationError
from transformers.utils.logging import disable_progress_bar

from .jobs.prompts import Prompts
from .jobs.tasks import ModelData
from .models.pipeline import AudioOmniPipeline
from .settings import WorkerSettings

logger = logging.getLogger(__name__)


def load_pipeline(settings: WorkerSettings) -> AudioOmniPipeline:
    """Load the checkpoint to the device in the dtype of the settings.

    Raises:
        InvalidSetting: no checkpoint is named, or the device does not exist.
        CheckpointInvalid: the folder is not a whole checkpoint.
    """
    if settings.checkpoint is None:
        remedy = "Name its folder; `omnifleet-worker tiny-checkpoint DIR` writes a small one to try with"
        raise InvalidSetting("no checkpoint is set", "OMNIFLEET_CHECKPOINT", remedy)
    disable_progress_bar()  # a worker's stderr is its log
    device, start = _device(settings.device), time.monotonic()
    dtype = _dtype(settings.dtype, device)
    pipeline = AudioOmniPipeline.from_pretrained(settings.checkpoint, device=device, dtype=dtype)
    logger.info(
        "checkpoint %s loaded to %s as %s in %.1f s",
        settings.checkpoint,
        device,
        dtype,
        time.monotonic() - start,
        extra={"action": "checkpoint_loaded", "seconds": time.monotonic() - start},
    )
    return pipeline


def describe(pipeline: AudioOmniPipeline) -> ModelData:
    """Card, prompts and tokeniser of a loaded checkpoint. Raises CheckpointInvalid for a card that is none."""
    try:
        card = ModelCard.model_validate(pipeline.card)
    except ValidationError as error:
        first = error.errors()[0]
        field = f"card.json: {'.'.join(str(part) for part in first['loc'])}"
        raise CheckpointInvalid(first["msg"], field, "Convert the checkpoint again") from error
    return ModelData(card=card, prompts=Prompts(pipeline.prompts), tokenizer=pipeline.speech_tokenizer)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise InvalidSetting(f"{name!r} is not a device here", "OMNIFLEET_DEVICE", "Use auto, cuda or cpu") from error
    return device


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return torch.float32 if name == "float32" else torch.bfloat16
