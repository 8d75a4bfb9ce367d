"""Forced alignment: finds when each word of a transcript is said, with a CTC model.

On the CPU, in the thread of the job that asks, one at a time. The engine's thread alone touches the GPU, whose memory
is planned for the checkpoint; alignment takes a fraction of a recording's length once a job, beside many engine steps.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import torch
from omnifleet_shared.errors import CheckpointInvalid, InvalidJob
from safetensors import SafetensorError
from torch import Tensor
from torchaudio.functional import forced_align, merge_tokens

from .words import Word, is_elided, split_words, spoken_form

ALIGNER_RATE = 16_000
"""Hz, of the waves that are aligned."""
_PIECE_SECONDS, _OVERLAP_SECONDS = 30, 1
"""The model reads a recording in pieces, each with some of its neighbours: attention over minutes takes gigabytes."""
_SETTING = "OMNIFLEET_ALIGNER"


class WordAligner(Protocol):
    """Finds words in a recording. Called from many threads."""

    def align(self, wave: np.ndarray, transcript: str) -> list[Word]:
        """Return every word of `split_words(transcript)` in order, none beginning before the one before it ends.

        Args:
            wave: mono float32 [n] at 16 kHz.
            transcript: what is said in it.

        Raises:
            InvalidJob: the transcript has no words, or more than the recording can hold.
        """
        ...


class CtcAligner:
    """Aligns with a CTC model of transformers that spells in characters: Wav2Vec2, HuBERT, WavLM, MMS…

    Args:
        model: the acoustic model; it is moved nowhere.
        feature_extractor: of the model.
        vocabulary: id of each character.
        blank: id of CTC's blank.
        delimiter: the character between words, where the model has one.
    """

    def __init__(
        self, model: Any, feature_extractor: Any, vocabulary: dict[str, int], *, blank: int, delimiter: str | None
    ) -> None:
        self._model = model.eval()
        self._features = feature_extractor
        self._vocabulary = vocabulary
        self._blank = blank
        self._delimiter = delimiter if delimiter in vocabulary else None
        self._one_at_a_time = threading.Lock()

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Load from a local folder with config.json, safetensors, the tokeniser and the feature extractor.

        Raises:
            CheckpointInvalid: the folder is missing, incomplete or of another kind of model.
        """
        # Seconds, which a worker without an aligner is spared.
        from transformers import AutoFeatureExtractor, AutoModelForCTC, AutoTokenizer

        try:
            features = AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model, loading = AutoModelForCTC.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
            )
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise _not_an_aligner(folder, f"cannot be loaded: {error}") from error
        headless = sorted(str(key) for key in loading["missing_keys"] if str(key).startswith("lm_head"))
        if headless or getattr(features, "sampling_rate", None) != ALIGNER_RATE or tokenizer.pad_token_id is None:
            raise _not_an_aligner(folder, "is no speech recogniser with CTC for 16 kHz")
        delimiter = getattr(tokenizer, "word_delimiter_token", None)
        return cls(model, features, tokenizer.get_vocab(), blank=tokenizer.pad_token_id, delimiter=delimiter)

    def align(self, wave: np.ndarray, transcript: str) -> list[Word]:
        """As `WordAligner.align`. A word in letters that the model does not know is placed where anything is said."""
        words = split_words(transcript)
        if not words:
            raise InvalidJob("no words are heard in it", "audio", "Send clear speech")
        with self._one_at_a_time, torch.inference_mode():
            emission, times = self._listen(wave)
        ids, owners = self._spell(words, anything=emission.shape[-1])
        return place_words(words, owners, ids, _with_anything(emission, self._blank), times, self._blank)

    def _listen(self, wave: np.ndarray) -> tuple[Tensor, Tensor]:
        """Log-probabilities [T, V] and the times [T + 1] in seconds between which each of them holds."""
        rows, times = [], []
        piece, overlap = _PIECE_SECONDS * ALIGNER_RATE, _OVERLAP_SECONDS * ALIGNER_RATE
        for start in range(0, len(wave), piece):
            first, last = max(0, start - overlap), start + piece + overlap
            found = self._emit(wave[first:last])
            heard = min(last, len(wave)) - first
            when = (first + torch.arange(len(found), dtype=torch.float64) * heard / len(found)) / ALIGNER_RATE
            own = (when >= start / ALIGNER_RATE) & (when < (start + piece) / ALIGNER_RATE)
            rows.append(found[own])
            times.append(when[own])
        end = torch.tensor([len(wave) / ALIGNER_RATE], dtype=torch.float64)
        return torch.cat(rows), torch.cat([*times, end])

    def _emit(self, wave: np.ndarray) -> Tensor:
        # A wave shorter than the model's first window has no frame at all.
        padded = np.pad(wave, (0, max(0, ALIGNER_RATE // 20 - len(wave))))
        inputs = self._features(padded, sampling_rate=ALIGNER_RATE, return_tensors="pt")
        name = self._model.main_input_name
        logits: Tensor = self._model(**{name: inputs[name]}).logits[0]
        return logits.float().log_softmax(-1)

    def _spell(self, words: Sequence[str], anything: int) -> tuple[list[int], list[int]]:
        """The model's ids of all words, and for each id the number of its word; -1 for what lies between words."""
        ids: list[int] = []
        owners: list[int] = []
        for number, word in enumerate(words):
            if ids and self._delimiter is not None and not is_elided(words[number - 1]):
                ids, owners = [*ids, self._vocabulary[self._delimiter]], [*owners, -1]
            letters = [known for letter in spoken_form(word) if (known := self._id(letter)) is not None] or [anything]
            ids, owners = [*ids, *letters], [*owners, *[number] * len(letters)]
        return ids, owners

    def _id(self, letter: str) -> int | None:
        found = [self._vocabulary[form] for form in (letter, letter.upper()) if form in self._vocabulary]
        return found[0] if found and found[0] != self._blank else None


def place_words(
    words: Sequence[str], owners: Sequence[int], ids: Sequence[int], emission: Tensor, times: Tensor, blank: int
) -> list[Word]:
    """Return the words with their times, from the likeliest path of their ids through an emission.

    Args:
        words: the words.
        owners: for each id the number of its word, or -1.
        ids: what the path must spell, none of them the blank.
        emission: log-probabilities float32 [T, V].
        times: seconds [T + 1] between which each row holds.
        blank: id of CTC's blank.

    Raises:
        InvalidJob: the ids do not fit into T rows.
    """
    needed = len(ids) + sum(one == other for one, other in pairwise(ids))
    if needed > len(emission):
        problem = f"{len(words)} words were heard, more than {float(times[-1]):.1f} s can hold"
        raise InvalidJob(problem, "audio", "Send clear speech", {"heard": " ".join(words)})
    path, scores = forced_align(emission[None], torch.tensor([list(ids)]), blank=blank)
    spans = merge_tokens(path[0], scores[0], blank=blank)
    positions: dict[int, list[int]] = {}
    for owner, span in zip(owners, spans, strict=True):
        positions.setdefault(owner, []).extend((span.start, span.end))
    return [
        Word(word, float(times[min(positions[number])]), float(times[max(positions[number])]))
        for number, word in enumerate(words)
    ]


def _with_anything(emission: Tensor, blank: int) -> Tensor:
    """The emission with one more column: that anything but the blank is said."""
    silent = emission[:, blank : blank + 1].exp()
    return torch.cat([emission, torch.log1p(-silent.clamp(max=1 - 1e-6))], dim=-1)


def _not_an_aligner(folder: str | Path, problem: str) -> CheckpointInvalid:
    remedy = f"Let {_SETTING} name a folder with a CTC model of transformers, saved with its processor"
    return CheckpointInvalid(f"{folder} {problem}", _SETTING, remedy)
