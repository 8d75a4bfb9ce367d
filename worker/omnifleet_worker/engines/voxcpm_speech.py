"""The engine of VoxCPM2, through its own library: `pip install 'omnifleet[voxcpm]'`, or the image for it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import soundfile
import torch
import voxcpm.model.voxcpm2 as library
from omnifleet_shared.catalogue import SHIPPED
from omnifleet_shared.errors import CheckpointInvalid, InvalidJob
from omnifleet_shared.schema.capabilities import Capabilities, LicensedPart
from pydantic import ValidationError
from safetensors import SafetensorError

from ..devices import choose_device, choose_dtype
from ..installation import checkpoint_folder
from ..models.content_cache import ContentCache
from ..models.speech_model import ReferenceVoice, Samples, SpeechInputs
from ..settings import WorkerSettings
from .folder_card import CARD, read_capabilities, read_card
from .loaded_model import LoadedModel
from .speech.engine import run_speech_model
from .speech.random_numbers import OwnRandomNumbers

logger = logging.getLogger(__name__)
NAME = "voxcpm"
STEPS, GUIDANCE = 10, 2.0
"""Diffusion steps of a patch, and how much it follows its text: the library's own."""
MOST_PATCHES = 250
"""Patches of 160 ms, 40 s: what progress counts to. Longer texts are said to their end all the same."""
PATCHES_A_TOKEN, PATCHES_MORE = 6, 10
"""Longest speech for the tokens of its text: the library gives up what is longer as babble."""
LORA_WEIGHTS, LORA_CONFIG = "lora_weights.safetensors", "lora_config.json"
Prompt = dict[str, Any]


def load(settings: WorkerSettings) -> LoadedModel:
    """Load the folder of the settings, and the LoRA if they name one.

    Raises:
        InvalidSetting: the device does not exist.
        CheckpointInvalid: it is no VoxCPM2, not whole, or its card does not say enough; the LoRA likewise.
    """
    folder, device = checkpoint_folder(settings), choose_device(settings.device)
    dtype = choose_dtype(settings.dtype, device)
    library.tqdm = iter  # its bar would go into the worker's log
    model = VoxCPMSpeech(_open_model(folder, device, dtype, settings.lora), settings.encoding_cache)
    # What the library imports for its first voice takes seconds, which no job should wait for.
    model.encode(ReferenceVoice(wave=np.zeros(1600, np.float32), sample_rate=16_000))
    capabilities = _capabilities(folder, model.sample_rate, settings.lora)
    return run_speech_model(model, capabilities, precision=f"{device.type} {dtype}")


class VoxCPMSpeech:
    """See `SpeechModel`.

    Args:
        model: the library's.
        cache_bytes: that encoded voices may take.
    """

    places = 1  # the library keeps the keys and values of one text
    most_steps = MOST_PATCHES

    def __init__(self, model: Any, cache_bytes: int) -> None:
        self.sample_rate = int(model.sample_rate)
        self.voices: ContentCache[Prompt] = ContentCache(cache_bytes, _prompt_bytes)
        self._model = model

    def speak(self, inputs: SpeechInputs) -> Iterator[Samples]:
        """Say a text patch by patch, 160 ms each.

        A voice without its text lends its sound; one with its text is gone on with, in its sound too.

        Raises:
            InvalidJob: the text and the voice are more than the model holds.
        """
        text = re.sub(r"\s+", " ", inputs.text)
        voice = inputs.voice
        prompt = None if voice is None else self.voices.get("voice", voice, lambda: self.encode(voice))
        patches = self._room(text, prompt)
        random_numbers = OwnRandomNumbers(inputs.seed, torch.device(self._model.device))
        pieces = self._model.generate_with_prompt_cache_streaming(
            target_text=text,
            prompt_cache=prompt,
            max_len=patches,
            inference_timesteps=STEPS,
            cfg_value=GUIDANCE,
            retry_badcase=False,
        )
        with contextlib.closing(pieces):
            while True:
                with random_numbers.drawn():
                    piece = next(pieces, None)
                if piece is None:
                    return
                yield piece[0].squeeze(0).float().numpy()

    def why_unwell(self) -> None:
        """Nothing that could pass."""

    def close(self) -> None:
        """Nothing is held open."""

    def encode(self, voice: ReferenceVoice) -> Prompt:
        """Encode a voice: what the library makes of its sound, and its text. The library takes files alone."""
        with tempfile.NamedTemporaryFile(suffix=".wav") as file:
            soundfile.write(file.name, voice.wave, voice.sample_rate, format="WAV", subtype="FLOAT")
            spoken = {} if voice.text is None else {"prompt_wav_path": file.name, "prompt_text": voice.text}
            return cast(Prompt, self._model.build_prompt_cache(reference_wav_path=file.name, **spoken))

    def _room(self, text: str, prompt: Prompt | None) -> int:
        """Patches that the text may take: as many as it needs at most, and as are free behind it and its voice."""
        tokens, voice = self._model.text_tokenizer, prompt or {}
        needed = len(tokens(text)) * PATCHES_A_TOKEN + PATCHES_MORE
        held = len(tokens(voice.get("prompt_text", "") + text)) + 3  # the marks of text and voice
        held += sum(len(features) for features in voice.values() if isinstance(features, torch.Tensor))
        free = int(self._model.config.max_length) - held
        if free < min(needed, MOST_PATCHES):
            problem = f"with its voice it takes {held} of the {self._model.config.max_length} places of the model"
            raise InvalidJob(problem, "text", "Send a shorter recording of the voice")
        return min(needed, free)


class _CheckedVoxCPM2(library.VoxCPM2Model):
    """VoxCPM2 that refuses files which lack some of its weights: the library would go on with random ones."""

    def load_state_dict(self, *args: Any, **more: Any) -> Any:
        loaded = super().load_state_dict(*args, **more)
        learned = {name for name, _ in self.named_parameters() if "lora_" not in name}
        if missing := sorted(learned & set(loaded.missing_keys)):
            raise CheckpointInvalid(
                f"{len(missing)} weights are missing, the first is {missing[0]}", "model.safetensors"
            )
        return loaded


def _open_model(folder: Path, device: torch.device, dtype: torch.dtype, lora: Path | None) -> Any:
    named = "bfloat16" if dtype == torch.bfloat16 else "float32"

    class Model(_CheckedVoxCPM2):
        def __init__(self, config: Any, *args: Any, **more: Any) -> None:
            config.dtype = named  # of the settings, not of the file
            super().__init__(config, *args, **more)

    log = io.StringIO()
    try:
        config = json.loads((folder / "config.json").read_bytes())
        if config.get("architecture") != "voxcpm2":
            problem = f"{folder} holds a {config.get('architecture')}, which is no VoxCPM2"
            raise CheckpointInvalid(problem, "config.json", "Give another folder, or name its engine")
        with contextlib.redirect_stderr(log):  # which would go into the worker's log, as lines that are no JSON
            adapted: Any = None if lora is None else _lora_config(lora)
            # Uncompiled: the library's own way ties its graphs to the thread that loads.
            model = Model.from_local(str(folder), optimize=False, device=str(device), lora_config=adapted)
            if lora is not None:
                _load_lora(model, lora)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise CheckpointInvalid(f"the library cannot load {folder}: {error}", "OMNIFLEET_CHECKPOINT") from error
    logger.info("the library says: %s", log.getvalue().strip(), extra={"action": "library_loaded"})
    return model


def _lora_config(folder: Path) -> Any:
    """The shape of a LoRA as the library's training writes it."""
    path = folder / LORA_CONFIG
    try:
        return library.LoRAConfig.model_validate(json.loads(path.read_bytes())["lora_config"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = f"{path} is no configuration of a LoRA of VoxCPM2: {error!r}"
        raise CheckpointInvalid(problem, "OMNIFLEET_LORA", "Name a folder of the library's training") from error


def _load_lora(model: Any, folder: Path) -> None:
    loaded, skipped = model.load_lora_weights(str(folder))
    if skipped or set(loaded) != set(model.get_lora_state_dict()):
        problem = f"{folder} fits the model in {len(loaded)} weights of {len(model.get_lora_state_dict())}"
        raise CheckpointInvalid(problem, "OMNIFLEET_LORA", "Name one that was trained on this model")


def _capabilities(folder: Path, sample_rate: int, lora: Path | None) -> Capabilities:
    """What the folder's card says, else its README's licence and what is known of VoxCPM2; the LoRA's licence too."""
    known: dict[str, Any] = {"sample_rate": sample_rate, "cloning": True, "streaming": True}
    shipped = SHIPPED["voxcpm2"]
    if not (folder / CARD).is_file():
        known |= {"name": shipped.name, "tasks": {"generate.tts": shipped.tasks["generate.tts"]}}
    capabilities = read_capabilities(folder, NAME, **known)
    if capabilities.voice_seconds is None:
        capabilities = capabilities.model_copy(update={"voice_seconds": shipped.voice_seconds})
    return capabilities if lora is None else _with_lora(capabilities, lora)


def _with_lora(capabilities: Capabilities, folder: Path) -> Capabilities:
    try:
        part = LicensedPart.model_validate({"name": f"LoRA {folder.name}", **read_card(folder)})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(one) for one in first["loc"])
        remedy = "Write card.json into the LoRA's folder, with its licence and commercial_use"
        raise CheckpointInvalid(first["msg"], f"{CARD}: {field}", remedy) from error
    with (folder / LORA_WEIGHTS).open("rb") as file:
        revision = f"{capabilities.revision}+{hashlib.file_digest(file, 'sha256').hexdigest()[:12]}"
    return capabilities.model_copy(update={"revision": revision, "parts": (*capabilities.parts, part)})


def _prompt_bytes(prompt: Prompt) -> int:
    return sum(features.nbytes for features in prompt.values() if isinstance(features, torch.Tensor))
