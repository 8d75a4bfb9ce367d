"""The engine of transformers' own speech classes: any folder of theirs that says texts, such as VITS (MMS), Bark and
CSM, or that recognises speech, such as Whisper, wav2vec2 and HuBERT."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omnifleet_shared.errors import CheckpointInvalid, LanguageNotSupported
from transformers import (
    MODEL_FOR_CTC_MAPPING,
    MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING,
    MODEL_FOR_TEXT_TO_WAVEFORM_MAPPING,
    AutoConfig,
    pipeline,
)
from transformers.utils.logging import disable_progress_bar

from ..devices import choose_device
from ..installation import checkpoint_folder
from ..models.folder import load_component
from ..models.speech_model import Samples, SpeechInputs
from ..settings import WorkerSettings
from .folder_card import read_capabilities
from .loaded_model import LoadedModel
from .speech.engine import run_speech_model

NAME = "transformers"


def load(settings: WorkerSettings) -> LoadedModel:
    """Load the folder of the settings: its own files alone, and no code of its own.

    Raises:
        InvalidSetting: the device does not exist.
        CheckpointInvalid: it neither speaks nor recognises speech, is not whole, or its card does not say enough.
    """
    folder, device = checkpoint_folder(settings), choose_device(settings.device)
    dtype = torch.bfloat16 if settings.dtype == "bfloat16" else torch.float32
    disable_progress_bar()  # a worker's stderr is its log
    if _recognises(folder):
        from .recordings.engine import load_recogniser

        return load_recogniser(folder, NAME, device, dtype)
    model = TransformersSpeech(_open_pipeline(folder, device, dtype))
    capabilities = read_capabilities(folder, NAME, sample_rate=model.sample_rate, cloning=False, streaming=True)
    return run_speech_model(model, capabilities, precision=f"{device.type} {dtype}")


class TransformersSpeech:
    """See `SpeechModel`.

    Args:
        say: transformers' text-to-speech pipeline.
    """

    def __init__(self, say: Any) -> None:
        self._say_text = say
        self.sample_rate = int(say.sampling_rate)
        self.places = 1  # its random numbers come from torch's own generator
        self.most_steps = 1

    def speak(self, inputs: SpeechInputs) -> Iterator[Samples]:
        """Say a text in one piece: these classes give it as a whole."""
        tokenizer = self._say_text.tokenizer
        if tokenizer is not None and not tokenizer(inputs.text)["input_ids"]:
            raise LanguageNotSupported("the model has no sound for any sign of it", "text", "Use another model")
        yield self._say(inputs)

    def why_unwell(self) -> None:
        """Nothing that could pass."""

    def close(self) -> None:
        """Nothing is held open."""

    def _say(self, inputs: SpeechInputs) -> Samples:
        # Nothing is drawn between this and the end: the engine steps one text at a time.
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(inputs.seed)
            samples = np.asarray(self._say_text(inputs.text)["audio"], np.float32)
        mono: Samples = samples.reshape(-1, samples.shape[-1]).mean(axis=0)
        return mono


def _recognises(folder: Path) -> bool:
    """Whether it holds a recogniser, and none of the models that speak as well."""
    try:
        kind = type(AutoConfig.from_pretrained(folder, local_files_only=True))
    except (OSError, ValueError, KeyError):
        return False  # which is said by whoever loads it
    speaks = kind in MODEL_FOR_TEXT_TO_WAVEFORM_MAPPING
    return not speaks and (kind in MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING or kind in MODEL_FOR_CTC_MAPPING)


def _open_pipeline(folder: Path, device: torch.device, dtype: torch.dtype) -> Any:
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        kind = MODEL_FOR_TEXT_TO_WAVEFORM_MAPPING.get(type(config), None)
        if kind is None:
            problem = f"{folder} holds a {config.model_type}, which is no text-to-waveform model of transformers"
            raise CheckpointInvalid(problem, "config.json", "Give another folder, or name its engine")
        model = load_component(folder, kind, dtype).eval()
        files: dict[str, Any] = {"tokenizer": str(folder), "processor": str(folder)}
        make: Any = pipeline  # whose overloads know no task of this name
        say = make("text-to-speech", model=model, device=device, trust_remote_code=False, **files)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointInvalid(f"transformers cannot load {folder}: {error}", "OMNIFLEET_CHECKPOINT") from error
    if say.sampling_rate is None:
        raise CheckpointInvalid(f"{folder} does not say its sample rate", "config.json", "Add sampling_rate to it")
    return say
