"""One speech edit from its request to the edited recording."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from omnifleet_shared.errors import InvalidJob, TaskNotSupported
from omnifleet_shared.schema.results import EditedSpan
from omnifleet_shared.schema.tasks import SpeechEdit

from ...media.decode import Audio
from ...media.encode import Subtype, exact_subtype
from ...media.signal import resample, to_mono
from ...models.audio_omni.chat import Chat
from ..job_context import JobRun
from ..model import ModelData
from .alignment import ALIGNER_RATE, WordAligner
from .instruction import QUESTION_SYSTEM, Change, NewTranscript, question, read_answer, read_instruction
from .splice import Patch, Samples, Span, splice, widen
from .synthesis import VoicePainter
from .word_edits import WordEdit, find_edits, is_transcript_of
from .words import Word, join_words, split_words

TRANSCRIPT_TOKENS = 2048
"""Longest transcript: five minutes of fast speech."""
ANSWER_TOKENS = 512
_MARGIN_SECONDS = 0.05
"""Most that is taken of the pauses beside a word, whose place is known to some hundredths of a second."""


@dataclass(frozen=True, eq=False)
class EditedSound:
    """A recording of which some spans are new and all else is the source's own, sample by sample.

    Args:
        samples: float64 [channels, n], which holds every source format's values exactly.
        source: as it was.
        edits: the new spans.
    """

    samples: Samples
    source: Audio
    edits: tuple[EditedSpan, ...]

    @property
    def subtype(self) -> Subtype:
        """The narrowest sample format that holds the source, and so all of the result but the new spans, exactly."""
        return exact_subtype(self.source.samples.astype(np.float64, copy=False))


def edit_speech(run: JobRun, task: SpeechEdit, source: Audio, model: ModelData) -> EditedSound:
    """The recording with the words changed as `task.desc` asks.

    Args:
        run: of the job.
        task: what is asked.
        source: float64 [channels, n], up to five minutes; only ten seconds around each edit go to the model.
        model: of the loaded checkpoint, with its aligner.

    Raises:
        TaskNotSupported: the worker has no aligner.
        InvalidJob: a request that cannot be read, a word that is not said (`details["heard"]`), no words at all.
        OmnifleetError: of the engine.
    """
    aligner = _aligner(model)
    changes = read_instruction(task.desc)
    wave = _hearing(source)
    heard = run.ask(model.prompts.transcription(audio=(wave,)), TRANSCRIPT_TOKENS)
    if not split_words(heard):
        raise InvalidJob("no words are heard in it", "audio", "Send clear speech")
    edits = find_edits(changes or _understood(run, task.desc, heard), split_words(heard))
    with run.stage("conditioned"):
        words = aligner.align(wave, heard)
    return _Session(source, words, edits).carry_out(run, model)


def _aligner(model: ModelData) -> WordAligner:
    if model.aligner is None:
        remedy = "Start the worker with OMNIFLEET_ALIGNER, the folder of a CTC speech recogniser"
        raise TaskNotSupported("this worker has nothing to find words with", "task", remedy)
    return model.aligner


def _hearing(source: Audio) -> np.ndarray:
    return resample(to_mono(source), ALIGNER_RATE).samples[0].astype(np.float32)


def _understood(run: JobRun, request: str, heard: str) -> Sequence[Change]:
    """What a request in free words asks for: a new transcript if it is much like what was heard, else ask."""
    if is_transcript_of(request, split_words(heard)):
        return [NewTranscript(request)]
    chat = Chat(system=QUESTION_SYSTEM, user=question(request, heard))
    return read_answer(run.ask(chat, ANSWER_TOKENS))


class _Session:
    """The edits of one recording, once its words are found."""

    def __init__(self, source: Audio, words: Sequence[Word], edits: Sequence[WordEdit]) -> None:
        self._source = source
        self._samples: Samples = source.samples.astype(np.float64, copy=False)
        self._rate = source.sample_rate
        self._words = words
        self._edits = edits

    def carry_out(self, run: JobRun, model: ModelData) -> EditedSound:
        spans = self._spans()
        spoken = [(edit, span) for edit, span in zip(self._edits, spans, strict=True) if edit.new]
        made = iter(VoicePainter(self._source, self._words, model).fill(run, spoken) if spoken else [])
        patches = [Patch(span, next(made) if edit.new else None) for edit, span in zip(self._edits, spans, strict=True)]
        samples, places = splice(self._samples, patches)
        if not samples.shape[1]:
            raise InvalidJob("nothing would be left of the recording", "desc", "Leave a word of it")
        return EditedSound(samples, self._source, self._report(spans, places))

    def _spans(self) -> list[Span]:
        holes = [self._hole(edit) for edit in self._edits]
        borders = [0, *((one[1] + next_one[0]) // 2 for one, next_one in pairwise(holes)), self._samples.shape[1]]
        return [
            widen(self._samples, self._rate, hole, room) for hole, room in zip(holes, pairwise(borders), strict=True)
        ]

    def _hole(self, edit: WordEdit) -> tuple[int, int]:
        """The words that go, and a part of the pauses beside them; of the pauses beside a cut, one is left."""
        before, after = self._pauses(edit)
        if edit.first == edit.last:
            place = self._place_between(edit, before[0], after[1])
            return self._clamped(place, place)
        margins = [min(max(0.0, end - start) / 2, _MARGIN_SECONDS) for start, end in (before, after)]
        if not edit.new and edit.last < len(self._words):
            return self._clamped(before[1] - margins[0], after[1] - margins[1])
        return self._clamped(before[1] - margins[0], after[0] + margins[1])

    def _pauses(self, edit: WordEdit) -> tuple[tuple[float, float], tuple[float, float]]:
        """Seconds between the words that go and those that stay, before and after."""
        words, length = self._words, self._samples.shape[1] / self._rate
        stays = words[edit.first - 1].end if edit.first else 0.0
        comes = words[edit.last].start if edit.last < len(words) else length
        if edit.first == edit.last:
            return (stays, comes), (stays, comes)
        return (stays, words[edit.first].start), (words[edit.last - 1].end, comes)

    def _place_between(self, edit: WordEdit, before: float, after: float) -> float:
        """Where to insert: in the middle of the pause, or close to the only word that there is beside it."""
        if edit.first == 0:
            return max(before, after - _MARGIN_SECONDS)
        if edit.last == len(self._words):
            return min(after, before + _MARGIN_SECONDS)
        return (before + after) / 2

    def _clamped(self, start: float, end: float) -> tuple[int, int]:
        first = min(max(0, round(start * self._rate)), self._samples.shape[1])
        return first, min(max(first, round(end * self._rate)), self._samples.shape[1])

    def _report(self, spans: Sequence[Span], places: Sequence[tuple[int, int]]) -> tuple[EditedSpan, ...]:
        return tuple(
            EditedSpan(
                start=place[0] / self._rate,
                end=place[1] / self._rate,
                source_start=span.start / self._rate,
                source_end=span.end / self._rate,
                old=join_words([word.text for word in self._words[edit.first : edit.last]]),
                new=join_words(edit.new),
            )
            for edit, span, place in zip(self._edits, spans, places, strict=True)
        )
