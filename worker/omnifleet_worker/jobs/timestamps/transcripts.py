"""Transcripts with times: of every word by the aligner, or of segments by the pauses around them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from omnifleet_shared.errors import InvalidJob
from omnifleet_shared.schema.tasks import NamedUnderstanding
from omnifleet_shared.schema.transcript import HeardSegment, HeardWord, Transcript, ends_sentence, place_texts

from ...media.signal import split_at_pauses
from ..inputs import THINKER_SAMPLE_RATE
from ..job_context import JobContext
from ..model import ModelData
from ..speech_edit.alignment import WordAligner
from ..speech_edit.words import Word, split_words, spoken_form
from ..streaming.text import ask_parts_streamed
from ..transcripts import following, join_parts, part_seconds
from .pauses import find_speech

SEGMENT_SECONDS = 15.0
"""Longest segment."""
SEGMENT_PAUSE = 0.8
"""Seconds of silence that end a segment whose words are known."""


@dataclass(frozen=True)
class TimedTranscript:
    """What is said in a recording, and when.

    Attributes:
        text: all of it.
        transcript: its times.
        warnings: of times that are no more than estimates.
    """

    text: str
    transcript: Transcript
    warnings: tuple[str, ...] = ()


def transcribe_timed(
    context: JobContext, task: NamedUnderstanding, wave: np.ndarray, model: ModelData
) -> TimedTranscript:
    """Transcribe a recording, mono float32 [n] at 16 kHz, with the times that the task asks for.

    Raises:
        TaskNotSupported: words are asked for, and the worker has no aligner.
        OmnifleetError: of the engine.
    """
    if task.timestamps == "word":
        return _by_words(context, task, wave, model)
    return _by_pauses(context, task, wave, model)


def _by_pauses(context: JobContext, task: NamedUnderstanding, wave: np.ndarray, model: ModelData) -> TimedTranscript:
    longest = min(SEGMENT_SECONDS, part_seconds(task, model))
    stretches = find_speech(wave, THINKER_SAMPLE_RATE, longest)
    texts = _transcribe(context, task, [wave[one.start : one.stop] for one in stretches], model)
    segments = tuple(
        HeardSegment(text=text, start=_seconds(one.start), end=_seconds(one.stop))
        for one, text in zip(stretches, texts, strict=True)
        if text
    )
    return TimedTranscript(join_parts(texts), Transcript(seconds=_seconds(len(wave)), segments=segments))


def _by_words(context: JobContext, task: NamedUnderstanding, wave: np.ndarray, model: ModelData) -> TimedTranscript:
    aligner = model.require_aligner()
    parts = split_at_pauses(wave, THINKER_SAMPLE_RATE, part_seconds(task, model))
    texts = _transcribe(context, task, parts, model)
    words: list[HeardWord] = []
    warnings: list[str] = []
    start = 0
    for part, text in zip(parts, texts, strict=True):
        # A stage for each part, so that a cancelled job ends after one: two hours take the CPU minutes.
        with context.stage("conditioned"):
            found, estimated = _align(aligner, part, text)
        warnings += [_warning(start, len(part))] if estimated else []
        words += [_moved(word, start, len(part)) for word in found]
        start += len(part)
    text = join_parts(texts)
    transcript = Transcript(seconds=_seconds(len(wave)), words=tuple(words), segments=tuple(cut_segments(text, words)))
    return TimedTranscript(text, transcript, tuple(warnings))


def _transcribe(
    context: JobContext, task: NamedUnderstanding, waves: Sequence[np.ndarray], model: ModelData
) -> list[str]:
    """What is said in each part; of a streamed job it is given out as soon as it and those before it are there."""
    chats = [model.prompts.question(task, audio=(wave,)) for wave in waves]
    if context.stream is not None:
        ask_parts_streamed(context, chats, task.max_new_tokens, context.stream, following)
        return [text.strip() for text in context.stream.texts]
    return [text.strip() for text in context.ask_all(chats, task.max_new_tokens)] if chats else []


def _align(aligner: WordAligner, wave: np.ndarray, text: str) -> tuple[list[Word], bool]:
    """The words of a part, and whether their times are estimates: more is heard than can be said in that time."""
    words = split_words(text)
    if not words:
        return [], False
    try:
        return aligner.align(wave, text), False
    except InvalidJob:
        return _spread(words, _seconds(len(wave))), True


def _spread(words: Sequence[str], seconds: float) -> list[Word]:
    """Words as long as their letters are many."""
    letters = np.cumsum([0, *(len(spoken_form(word)) for word in words)])
    times = (letters * seconds / letters[-1]).tolist()
    return [Word(word, start, end) for word, (start, end) in zip(words, pairwise(times), strict=True)]


def _warning(start: int, samples: int) -> str:
    when = f"from {_seconds(start):.0f} to {_seconds(start + samples):.0f} s"
    return f"timestamps: {when} more was heard than can be said in that time; its words are spread over it. Check them."


def _moved(word: Word, start: int, samples: int) -> HeardWord:
    """The word in the whole recording, and not beyond its part, whose frames end a little later."""
    end = min(word.end, samples / THINKER_SAMPLE_RATE)
    begin = min(word.start, end)
    return HeardWord(text=word.text, start=_seconds(start, begin), end=_seconds(start, end))


def cut_segments(text: str, words: Sequence[HeardWord]) -> Iterator[HeardSegment]:
    """Iterate over the sentences of a text that has these words, cut at pauses too, and where they are very long."""
    places = [*place_texts(text, words), len(text)]
    first = 0
    for number, word in enumerate(words):
        following = words[number + 1] if number + 1 < len(words) else None
        written = text[places[number] : places[number + 1]].rstrip()
        if following is None or _ends(written, words[first], word, following):
            said = text[places[first] : places[number + 1]].strip()
            yield HeardSegment(text=said, start=words[first].start, end=word.end)
            first = number + 1


def _ends(written: str, first: HeardWord, word: HeardWord, following: HeardWord) -> bool:
    pause = following.start - word.end >= SEGMENT_PAUSE
    return ends_sentence(written) or pause or following.end - first.start > SEGMENT_SECONDS


def _seconds(samples: int, more: float = 0.0) -> float:
    """Seconds to the millisecond, which is finer than any aligner hears."""
    return round(samples / THINKER_SAMPLE_RATE + more, 3)
