"""Runs one speech edit, from its request to the edited recording."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from omnifleet_shared.errors import InvalidJob
from omnifleet_shared.schema.results import EditedSpan
from omnifleet_shared.schema.tasks import SpeechEdit

from ...media.decode import DecodedAudio
from ...media.encode import Subtype, exact_subtype
from ...media.signal import resample, to_mono
from ..job_context import JobContext
from .alignment import ALIGNER_RATE
from .changes import Clause, NewTranscript, certain
from .editing_model import EditingModel, NewSpeech, Place, WordMaker
from .instruction import read_instruction
from .plan import PlannedRecording, ambiguous, plan_edits
from .splice import Patch, Samples, splice, widen
from .word_edits import Ambiguous, WordEdit, find_edit_between, find_edits, is_transcript_of
from .words import Word, join_words, split_words

_MARGIN_SECONDS = 0.05
"""Most that is taken of the pauses beside a word, whose place is known to some hundredths of a second."""


@dataclass(frozen=True, eq=False)
class EditedRecording:
    """A recording of which some spans are new and all else is the source's own, sample by sample.

    Args:
        samples: float64 [channels, n], which holds every source format's values exactly.
        source: the recording before the edits.
        edits: the new spans.
        warnings: of new words that may not be what was asked for.
    """

    samples: Samples
    source: DecodedAudio
    edits: tuple[EditedSpan, ...]
    warnings: tuple[str, ...] = ()

    @property
    def subtype(self) -> Subtype:
        """The narrowest sample format that holds the source, and so all of the result but the new spans, exactly."""
        return exact_subtype(self.source.samples.astype(np.float64, copy=False))


def edit_speech(context: JobContext, task: SpeechEdit, source: DecodedAudio, model: EditingModel) -> EditedRecording:
    """Change words of a recording as `task.desc` asks, or those in `task.span`.

    Args:
        context: the job's attempt.
        task: the request.
        source: float64 [channels, n], up to five minutes; only some seconds around each edit go to the model.
        model: hears the recording, and makes the new words.

    Raises:
        EditAmbiguous: a request that can be read in several ways; its message names them with their times.
        InvalidJob: a request that cannot be read, a word that is not said (`details["heard"]`), no words at all, a
            span beyond the recording or with nothing to delete in it.
        OmnifleetError: of the engine.
    """
    with _errors_of_request(task):
        return _listen(context, task, source, model).apply(context)


def plan_speech_edit(
    context: JobContext, task: SpeechEdit, source: DecodedAudio, model: EditingModel
) -> PlannedRecording:
    """Find out what `edit_speech` would change, and make nothing. Takes and raises what that does."""
    with _errors_of_request(task):
        return _listen(context, task, source, model).plan()


@contextmanager
def _errors_of_request(task: SpeechEdit) -> Iterator[None]:
    """Name the field that the new words came in, where an error is about them."""
    try:
        yield
    except InvalidJob as error:
        if task.span is None or error.field != "desc":
            raise
        raise type(error)(error.problem, "text", error.remedy, error.details) from error


def _listen(context: JobContext, task: SpeechEdit, source: DecodedAudio, model: EditingModel) -> _Editor:
    """Hear the words, understand the request by them, and find when they are said."""
    if task.span is not None:
        _check_span(task.span, source)
    clauses = None if task.desc is None else read_instruction(task.desc)
    heard = model.hear(context, _mono_16k(source))
    if not split_words(heard.text):
        raise InvalidJob("no words are heard in it", "audio", "Send clear speech")
    edits = None
    if task.desc is not None:
        read = clauses or _read_free_words(context, task.desc, heard.text, model)
        edits = find_edits(read, split_words(heard.text))
    with context.stage("conditioned"):
        words = heard.find_words()
    if isinstance(edits, Ambiguous):
        raise ambiguous(edits, words)
    if edits is None:
        assert task.span is not None, "the contract sees to it that there is a span where there is no desc"
        edits = [find_edit_between(task.span, task.text, words)]
    return _Editor(source, words, edits, model.word_maker(source, words, edits))


def _check_span(span: tuple[float, float], source: DecodedAudio) -> None:
    if span[1] > source.seconds:
        problem = f"it ends at {span[1]:g} s, and the recording at {source.seconds:.2f} s"
        raise InvalidJob(problem, "span", "Give seconds of the recording")


def _mono_16k(source: DecodedAudio) -> NDArray[np.float32]:
    return np.array(resample(to_mono(source), ALIGNER_RATE).samples[0], np.float32)


def _read_free_words(context: JobContext, request: str, heard: str, model: EditingModel) -> Sequence[Clause]:
    """Interpret a request in free words: a new transcript if it is much like what was heard, else by the model."""
    if is_transcript_of(request, split_words(heard)):
        return [certain(NewTranscript(request))]
    return model.read_request(context, request, heard)


class _Editor:
    """Applies edits to one recording, once its words are found."""

    def __init__(
        self, source: DecodedAudio, words: Sequence[Word], edits: Sequence[WordEdit], maker: WordMaker
    ) -> None:
        self._source = source
        self._samples: Samples = source.samples.astype(np.float64, copy=False)
        self._rate = source.sample_rate
        self._words = words
        self._edits = edits
        self._maker = maker

    def plan(self) -> PlannedRecording:
        """Say what would change. Raises what only the new words can tell, as `apply` does."""
        self._maker.check([place for place in self._places() if place.edit.new])
        return PlannedRecording(join_words([word.text for word in self._words]), plan_edits(self._edits, self._words))

    def apply(self, context: JobContext) -> EditedRecording:
        places = self._places()
        spoken = [place for place in places if place.edit.new]
        new = self._maker.make(context, spoken) if spoken else NewSpeech([])
        made = iter(new.patches)
        patches = [next(made) if place.edit.new else Patch(place.span, None) for place in places]
        samples, positions = splice(self._samples, patches)
        if not samples.shape[1]:
            raise InvalidJob("nothing would be left of the recording", "desc", "Leave a word of it")
        return EditedRecording(samples, self._source, self._report(patches, positions), new.warnings)

    def _places(self) -> list[Place]:
        gaps = [self._gap(edit) for edit in self._edits]
        borders = [0, *((one[1] + next_one[0]) // 2 for one, next_one in pairwise(gaps)), self._samples.shape[1]]
        rooms = list(pairwise(borders))
        spans = [widen(self._samples, self._rate, gap, room) for gap, room in zip(gaps, rooms, strict=True)]
        return [Place(*one) for one in zip(self._edits, spans, rooms, strict=True)]

    def _gap(self, edit: WordEdit) -> tuple[int, int]:
        """Samples to replace: the words and part of the pauses beside them; beside a cut, one pause stays."""
        before, after = self._pauses(edit)
        if edit.first == edit.last:
            position = self._place_between(edit, before[0], after[1])
            return self._clamped(position, position)
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

    def _report(self, patches: Sequence[Patch], positions: Sequence[tuple[int, int]]) -> tuple[EditedSpan, ...]:
        return tuple(
            EditedSpan(
                start=position[0] / self._rate,
                end=position[1] / self._rate,
                source_start=patch.span.start / self._rate,
                source_end=patch.span.end / self._rate,
                old=join_words([word.text for word in self._words[edit.first : edit.last]]),
                new=join_words(edit.new),
            )
            for edit, patch, position in zip(self._edits, patches, positions, strict=True)
        )
