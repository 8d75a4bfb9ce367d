"""Speech recognisers of transformers: Whisper, and models with CTC, with the times of words; others without."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omnifleet_shared.errors import CheckpointInvalid
from transformers import (
    MODEL_FOR_CTC_MAPPING,
    MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING,
    AutoConfig,
    AutoFeatureExtractor,
    AutoTokenizer,
    pipeline,
)

from ...jobs.speech_edit.words import Word, split_words
from ...models.folder import load_component
from ...models.recording_model import RecordingInputs
from ...models.speech_model import Samples

RATE = 16_000
"""Hz, of the waves that are recognised."""
PART_SECONDS = 28.0
"""Longest stretch that is recognised at once: Whisper hears half a minute."""
_LEAST_SECONDS = 0.1


@dataclass(frozen=True)
class HeardSpeech:
    """What was heard in a stretch.

    Attributes:
        text: all of it.
        words: with their times from the stretch's beginning; none where times were not asked for.
        language: its ISO 639 code, where the model names one.
    """

    text: str
    words: tuple[Word, ...] = ()
    language: str | None = None

    def encode(self) -> str:
        """Write it as JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def decode(cls, written: str) -> HeardSpeech:
        """Read what `encode` wrote."""
        record = json.loads(written)
        return cls(record["text"], tuple(Word(**word) for word in record["words"]), record["language"])


class SpeechRecogniser:
    """Recognises one stretch at a time, greedily: the same samples give the same words. See `RecordingModel`.

    Args:
        recognise: transformers' pipeline for it.
    """

    def __init__(self, recognise: Any) -> None:
        config = getattr(recognise.model, "generation_config", None)
        self._recognise = recognise
        self._is_whisper = recognise.type == "seq2seq_whisper"
        codes = getattr(config, "lang_to_id", None) or {} if self._is_whisper else {}
        self._codes: dict[int, str] = {number: sign.strip("<|>") for sign, number in codes.items()}
        self.languages = frozenset(self._codes.values()) if getattr(config, "is_multilingual", False) else frozenset()
        """Languages that it is told, or tells apart by itself; none where it knows one alone, or asks for none."""
        has_heads = bool(getattr(config, "alignment_heads", None))
        self.times_words = has_heads if self._is_whisper else recognise.type in ("ctc", "ctc_with_lm")
        """Whether it tells when words are said."""

    def work(self, inputs: RecordingInputs) -> str:
        """Recognise a stretch of at most `PART_SECONDS`; see `HeardSpeech.encode`."""
        return self.recognise(inputs.wave, inputs.language, timed=inputs.timed).encode()

    @torch.inference_mode()
    def recognise(self, wave: Samples, language: str | None = None, *, timed: bool = True) -> HeardSpeech:
        """Return what is said in a recording, and when; one call at a time.

        Args:
            wave: float32 [n], mono, at `RATE`, of at most `PART_SECONDS`.
            language: that is spoken; by default the model finds it out.
            timed: whether words come with their times.
        """
        padded = np.pad(wave, (0, max(0, round(_LEAST_SECONDS * RATE) - len(wave))))
        language = self._language(padded, language)
        options: dict[str, Any] = {"return_timestamps": "word"} if timed else {}
        if self._recognise.type.startswith("seq2seq"):
            options["generate_kwargs"] = {"num_beams": 1, "do_sample": False}
            if language is not None:
                options["generate_kwargs"] |= {"language": language, "task": "transcribe"}
        found = self._recognise({"raw": padded, "sampling_rate": RATE}, **options)
        if not timed:
            return HeardSpeech(str(found["text"]).strip(), language=language)
        space = "" if self._is_whisper else " "  # which Whisper's pieces begin with themselves
        pieces = [(space + one["text"], *one["timestamp"]) for one in found["chunks"]]
        text = "".join(piece for piece, _, _ in pieces).strip()
        return HeardSpeech(text, tuple(time_words(pieces, len(wave) / RATE)), language)

    def _language(self, wave: Samples, asked: str | None) -> str | None:
        if not self.languages:
            return None
        if asked in self.languages:
            return asked
        features = self._recognise.feature_extractor(wave, sampling_rate=RATE, return_tensors="pt").input_features
        model = self._recognise.model
        (number,) = model.detect_language(features.to(model.device, model.dtype)).tolist()
        return self._codes[int(number)]


def open_recogniser(
    folder: Path, device: torch.device, dtype: torch.dtype, *, setting: str = "OMNIFLEET_CHECKPOINT"
) -> SpeechRecogniser:
    """Load a recogniser from a local folder of transformers, saved with its processor; none of its own code is run.

    Args:
        folder: of the model.
        device: that it runs on.
        dtype: of its weights.
        setting: that names the folder, for errors.

    Raises:
        CheckpointInvalid: the folder is no recogniser of transformers, or not whole.
    """
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        kinds = (MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING, MODEL_FOR_CTC_MAPPING)
        kind = next((found for kind in kinds if (found := kind.get(type(config), None)) is not None), None)
        if kind is None:
            problem = f"{folder} holds a {config.model_type}, which recognises no speech"
            raise CheckpointInvalid(problem, setting, "Name a speech recogniser, saved with its processor")
        model = load_component(folder, kind, dtype).eval()
        # As objects: by its name alone, the pipeline asks the network about a folder's feature extractor.
        files: dict[str, Any] = {
            "tokenizer": AutoTokenizer.from_pretrained(folder, local_files_only=True),
            "feature_extractor": AutoFeatureExtractor.from_pretrained(folder, local_files_only=True),
        }
        make: Any = pipeline  # whose overloads know no task of this name
        found = make("automatic-speech-recognition", model=model, device=device, trust_remote_code=False, **files)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointInvalid(f"transformers cannot load {folder}: {error}", setting) from error
    if (rate := found.feature_extractor.sampling_rate) != RATE:
        raise CheckpointInvalid(f"{folder} is for {rate} Hz, and not for {RATE}", setting)
    return SpeechRecogniser(found)


def time_words(pieces: Sequence[tuple[str, float | None, float | None]], seconds: float) -> list[Word]:
    """Return the words of what was recognised, in order and none overlapping, as `split_words` splits their text.

    Args:
        pieces: texts, which need not be words, as each follows on the one before; when it begins and ends, where known.
        seconds: length of the recording.
    """
    text, starts, ends = "", list[float](), list[float]()
    for piece, start, end in pieces:
        first = start if start is not None else (ends[-1] if ends else 0.0)
        last = max(first, seconds if end is None else end)
        spaces = len(piece) - len(piece.lstrip())  # which take no time
        edges = [first] * spaces + np.linspace(first, last, len(piece) - spaces + 1).tolist()
        text, starts, ends = text + piece, starts + edges[:-1], ends + edges[1:]
    words, at, before = list[Word](), 0, 0.0
    for word in split_words(text):
        first_letter = text.index(word, at)
        at = first_letter + len(word)
        start = min(max(before, starts[first_letter]), seconds)
        before = min(max(start, ends[at - 1]), seconds)
        words.append(Word(word, start, before))
    return words
