"""The engine of OmniVoice, through its own library: `pip install 'omnifleet[omnivoice]'`, or the image for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omnifleet_shared.catalogue import SHIPPED
from omnifleet_shared.errors import CheckpointInvalid, InvalidJob
from omnifleet_shared.schema.capabilities import Capabilities
from omnivoice import OmniVoice
from omnivoice.utils.lang_map import LANG_IDS
from safetensors import SafetensorError, safe_open
from transformers.utils.logging import disable_progress_bar

from ..devices import choose_device, choose_dtype
from ..installation import checkpoint_folder
from ..models.content_cache import ContentCache
from ..models.speech_model import ReferenceVoice, Samples, SpeechInputs
from ..settings import WorkerSettings
from .folder_card import CARD, read_capabilities, revision_of
from .loaded_model import LoadedModel
from .speech.engine import run_speech_model
from .speech.random_numbers import OwnRandomNumbers

NAME = "omnivoice"
CODEC = "audio_tokenizer"
MOST_SECONDS = 30
"""That a text can be told to take: the library says a longer one in pieces, whose lengths it estimates."""
STANDARD = {"ar": "arb", "tl": "fil"}
"""Languages that the library knows by their standard form alone."""


def load(settings: WorkerSettings) -> LoadedModel:
    """Load the folder of the settings.

    Raises:
        InvalidSetting: the device does not exist.
        CheckpointInvalid: it is no OmniVoice, not whole, or its card does not say enough.
    """
    folder, device = checkpoint_folder(settings), choose_device(settings.device)
    dtype = choose_dtype(settings.dtype, device)
    disable_progress_bar()  # a worker's stderr is its log
    model = OmniVoiceSpeech(_open_model(folder, device, dtype), settings.encoding_cache)
    capabilities = _capabilities(folder, model.sample_rate)
    return run_speech_model(model, capabilities, precision=f"{device.type} {dtype}")


class OmniVoiceSpeech:
    """See `SpeechModel`.

    Args:
        model: the library's.
        cache_bytes: that encoded voices may take.
    """

    places = 1  # texts of one batch draw from one generator, and would change each other
    most_steps = 1

    def __init__(self, model: Any, cache_bytes: int) -> None:
        self.sample_rate = int(model.sampling_rate)
        self.voices: ContentCache[Any] = ContentCache(cache_bytes, lambda voice: int(voice.ref_audio_tokens.nbytes))
        self._model = model

    def speak(self, inputs: SpeechInputs) -> Iterator[Samples]:
        """Say a text in one piece. Raises InvalidJob for a voice in which nothing is heard."""
        voice = inputs.voice
        with OwnRandomNumbers(inputs.seed, torch.device(self._model.device)).drawn(), torch.inference_mode():
            prompt = None if voice is None else self.voices.get("voice", voice, lambda: self._encode(voice))
            (samples,) = self._model.generate(
                text=inputs.text,
                language=STANDARD.get(inputs.language or "", inputs.language),
                voice_clone_prompt=prompt,
                speed=inputs.speed,
                duration=inputs.seconds,
                postprocess_output=False,
            )
        said = np.asarray(samples, np.float32)
        yield said if inputs.seconds is None else _middle(said, round(inputs.seconds * self.sample_rate))

    def why_unwell(self) -> None:
        """Nothing that could pass."""

    def close(self) -> None:
        """Nothing is held open."""

    def _encode(self, voice: ReferenceVoice) -> Any:
        assert voice.text is not None, "the library would fetch a recogniser"
        recording = torch.from_numpy(np.ascontiguousarray(voice.wave)), voice.sample_rate
        try:
            return self._model.create_voice_clone_prompt(recording, voice.text)
        except ValueError as error:
            raise InvalidJob(f"nothing is heard in it: {error}", "ref", "Send another recording") from error


def _middle(samples: Samples, length: int) -> Samples:
    """The speech alone: the library puts 0.1 s of silence before and behind as many whole frames as it was told."""
    before = max(0, (len(samples) - length) // 2)
    cut = samples[before : before + length]
    return np.pad(cut, (0, length - len(cut)))


def _capabilities(folder: Path, sample_rate: int) -> Capabilities:
    """What the folder's card says; else what is known of the published weights, whatever its README says."""
    known: dict[str, Any] = {"sample_rate": sample_rate, "cloning": True, "streaming": True, "needs_transcript": True}
    known |= {"speed": True, "timed": True}
    languages = sorted(LANG_IDS | STANDARD.keys())
    known["tasks"] = {"generate.tts": {"languages": languages, "max_seconds": MOST_SECONDS}}
    if (folder / CARD).is_file():
        return read_capabilities(folder, NAME, **known)
    return Capabilities.model_validate(
        SHIPPED["omnivoice"].model_dump() | known | {"engine": NAME, "revision": revision_of(folder)}
    )


def _open_model(folder: Path, device: torch.device, dtype: torch.dtype) -> Any:
    if not (folder / CODEC).is_dir():  # which the library would fetch
        raise CheckpointInvalid(f"{folder} has no {CODEC}", CODEC, "Download the whole folder")
    try:
        model = OmniVoice.from_pretrained(str(folder), device_map=str(device), dtype=dtype, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise CheckpointInvalid(f"the library cannot load {folder}: {error}", "OMNIFLEET_CHECKPOINT") from error
    _require_weights(model, folder)
    _require_weights(model.audio_tokenizer, folder / CODEC)
    return model


def _require_weights(model: Any, folder: Path) -> None:
    """The library only warns of missing weights, and would go on with random ones."""
    held: set[str] = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            held.update(file.keys())
    own = {name for name, _ in model.named_parameters() if not name.startswith(f"{CODEC}.")}
    if missing := sorted(own - held):
        raise CheckpointInvalid(f"{len(missing)} weights are missing, the first is {missing[0]}", str(folder))
