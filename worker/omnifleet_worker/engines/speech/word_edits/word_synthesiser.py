"""New words said by a model that speaks in the voice of the recording, and cut out of the phrase that it said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from omnifleet_shared.errors import InvalidJob

from ....jobs.job_context import JobContext
from ....jobs.speech_edit.editing_model import NewSpeech, Place
from ....jobs.speech_edit.splice import Patch, Samples, Span, splice, widen
from ....jobs.speech_edit.word_edits import WordEdit
from ....jobs.speech_edit.words import Word, join_words
from ....media.decode import DecodedAudio
from ....media.signal import resample, to_mono
from ....models.speech_model import ReferenceVoice, SpeechInputs
from ..recogniser import PART_SECONDS, RATE, Recogniser
from .joints import SEARCH_SECONDS, Joints, find_joints
from .pauses import settle_words
from .phrases import AROUND_WORDS, Phrase, find_new_words, likeness, phrases
from .voice_match import add_room, match_pitch, match_sound, speech_level

VOICE_SECONDS = 15.0
"""Most of the recording, around an edit, that is the voice to speak with."""
SEEDS = 2
"""Times that a phrase is said, each with a seed of its own, before another one is tried."""
MARGIN_SECONDS = 0.05
"""Most that is taken of the pauses beside new words."""
_HEARD_WORDS = 2
"""Words before new ones, and after them, that must be heard too: no joint may spoil them."""
_ROOM_SECONDS = 10.0
"""Of the recording, before and after an edit, whose pauses tell the noise of its room."""


@dataclass(frozen=True, kw_only=True)
class SpeakingModel:
    """What new words need of a model that speaks.

    Attributes:
        sample_rate: in Hz, of what it says.
        most_steps: the most pieces that a text is given in.
        most_text: characters that it says well in one go.
        voice_seconds: of a recording that it hears; None for all.
    """

    sample_rate: int
    most_steps: int
    most_text: int
    voice_seconds: float | None


@dataclass(frozen=True, eq=False)
class _Attempt:
    """One way in which an edit's words were said."""

    patch: Patch
    likeness: float
    heard: str


@dataclass(eq=False)
class _Words:
    """New words on the way: where they go, the ways to say them that are left, and the best one so far."""

    place: Place
    ways: list[tuple[Phrase, int]]
    best: _Attempt | None = None

    @property
    def is_heard(self) -> bool:
        """Whether nothing could be heard better."""
        return self.best is not None and self.best.likeness == 1

    @property
    def patch(self) -> Patch:
        assert self.best is not None, "words that are said alone need no words beside them"
        return self.best.patch

    def take(self, attempt: _Attempt) -> None:
        """Keep an attempt that is heard better than the one before."""
        if self.best is None or attempt.likeness > self.best.likeness:
            self.best = attempt


class WordSynthesiser:
    """See `WordMaker`. Of the ways in which new words are said, it takes the one that is heard as they are.

    Args:
        model: speaks.
        recogniser: hears what it said.
        language: that is spoken; None where the job names none.
        source: the recording, [channels, n].
        words: said in it.
        edits: all of them, in order.
    """

    def __init__(
        self,
        model: SpeakingModel,
        recogniser: Recogniser,
        language: str | None,
        source: DecodedAudio,
        words: Sequence[Word],
        edits: Sequence[WordEdit],
    ) -> None:
        self._model = model
        self._recogniser = recogniser
        self._language = language
        self._channels: Samples = source.samples.astype(np.float64, copy=False)
        self._mono: Samples = to_mono(source).samples[0].astype(np.float64)
        self._rate = source.sample_rate
        self._words = words
        self._edits = edits

    def check(self, wanted: Sequence[Place]) -> None:
        """Refuse words that cannot be said in one go."""
        for place in wanted:
            text = join_words(place.edit.new)
            if len(text) >= self._model.most_text:
                problem = f"{text[:80]!r} has {len(text)} characters, and {self._model.most_text} can be said at once"
                raise InvalidJob(problem, "desc", "Say less in one place, or make it as speech (tts) of its own")

    def make(self, context: JobContext, wanted: Sequence[Place]) -> NewSpeech:
        """Say the words of all edits, those again that are not heard as they are."""
        self.check(wanted)
        context.plan_steps(len(wanted), self._model.most_steps)
        open_ones = [_Words(place, list(self._ways(place.edit))) for place in wanted]
        every = list(open_ones)
        while open_ones:
            said = context.speak_all([self._inputs(context, one) for one in open_ones])
            for one, clip in zip(open_ones, said, strict=True):
                phrase, _ = one.ways.pop(0)
                with context.stage("conditioned"):
                    self._join(one, phrase, clip, context.job.seed)
            open_ones = [one for one in open_ones if one.ways and not one.is_heard]
        return NewSpeech([one.patch for one in every], tuple(_warnings(every)))

    def _ways(self, edit: WordEdit) -> Iterator[tuple[Phrase, int]]:
        """Phrases, and what is added to the job's seed."""
        for phrase in phrases(edit, self._edits, self._words, self._model.most_text):
            yield from ((phrase, seed) for seed in range(SEEDS if phrase.before or phrase.after else 1))

    def _inputs(self, context: JobContext, words: _Words) -> SpeechInputs:
        phrase, seed = words.ways[0]
        return SpeechInputs(
            text=phrase.text,
            language=self._language,
            voice=self._voice(words.place.span),
            most_steps=self._model.most_steps,
            seed=context.job.seed + seed,
        )

    def _voice(self, span: Span) -> ReferenceVoice:
        """The words around an edit, as many as the model hears, and what they say."""
        seconds = min(VOICE_SECONDS, self._model.voice_seconds or VOICE_SECONDS)
        middle = (span.start + span.end) / 2 / self._rate
        begin = max(0.0, min(middle - seconds / 2, len(self._mono) / self._rate - seconds))
        near = [word for word in self._words if word.start >= begin and word.end <= begin + seconds]
        near = near or list(self._words)
        first, last = self._at(near[0].start - MARGIN_SECONDS), self._at(near[-1].end + MARGIN_SECONDS)
        wave = self._mono[first:last][: self._at(seconds)].astype(np.float32)
        return ReferenceVoice(wave=wave, sample_rate=self._rate, text=join_words([word.text for word in near]))

    def _join(self, wanted: _Words, phrase: Phrase, clip: NDArray[np.float32], seed: int) -> None:
        """Bring what was said to the recording's voice, cut the new words out, and hear them in their place."""
        near = self._beside(wanted.place)
        around = self._mono[near]
        made = resample(DecodedAudio(clip.mean(axis=0, keepdims=True), self._model.sample_rate), self._rate).samples[0]
        fitted = match_sound(match_pitch(made.astype(np.float64), around, self._rate), around, self._rate)
        words = self._hear(fitted)
        found = find_new_words(phrase, [word.text for word in words])
        if found is None and (phrase.before or phrase.after):
            return
        first, last = (0, len(words)) if found is None else (found.first, found.last)
        heard = self._edges(words, first, last, fitted)
        for gap, cut in self._joints(wanted.place, phrase, fitted, heard):
            if not wanted.is_heard:
                patch = self._patch(wanted.place, gap, fitted, cut, seed)
                wanted.take(self._listen(wanted.place, patch))

    def _joints(self, place: Place, phrase: Phrase, made: Samples, heard: Joints) -> Iterator[tuple[Joints, Joints]]:
        """Where the recording is left, and what was made begins, in seconds: by their sounds, then by their words."""
        edit, rate = place.edit, self._rate
        gap = Joints(place.span.gap[0] / rate, place.span.gap[1] / rate)
        beside = self._words[edit.first - len(phrase.before) : edit.last + len(phrase.after)]
        if phrase.before or phrase.after:
            start = max(0.0, min(gap.start, beside[0].start) - MARGIN_SECONDS)
            end = max(gap.end, beside[-1].end) + MARGIN_SECONDS
            part = _at_16k(self._mono[self._at(start) : self._at(end)], rate)
            found = find_joints(part, _at_16k(made, rate), (Joints(gap.start - start, gap.end - start), heard))
            if found is not None:
                yield Joints(start + found[0].start, start + found[0].end), found[1]
        yield gap, heard

    def _listen(self, place: Place, patch: Patch) -> _Attempt:
        """Hear the new words in their place."""
        near, edit = self._beside(place), place.edit
        moved = replace(patch.span, start=patch.span.start - near.start, end=patch.span.end - near.start)
        material = None if patch.material is None else patch.material.mean(axis=0, keepdims=True)
        spliced, _ = splice(self._mono[None, near], [Patch(moved, material)])
        texts = [word.text for word in self._words]
        before, after = texts[: edit.first][-_HEARD_WORDS:], texts[edit.last :][:_HEARD_WORDS]
        heard = [word.text for word in self._hear(spliced[0])]
        return _Attempt(patch, likeness([*before, *edit.new, *after], heard), join_words(heard))

    def _hear(self, samples: Samples) -> list[Word]:
        wave = resample(DecodedAudio(samples[None].astype(np.float32), self._rate), RATE).samples[0]
        wave = wave[: round(PART_SECONDS * RATE)]
        return settle_words(self._recogniser.recognise(wave, self._language), wave, RATE)

    def _edges(self, words: Sequence[Word], first: int, last: int, made: Samples) -> Joints:
        """Seconds between which new words are said, with some of the pauses beside them."""
        if not words:  # nothing was heard: all that was said
            return Joints(0.0, len(made) / self._rate)
        before = words[first - 1].end if first else words[first].start - 2 * MARGIN_SECONDS
        after = words[last].start if last < len(words) else words[last - 1].end + 2 * MARGIN_SECONDS
        start = words[first].start - min(MARGIN_SECONDS, max(0.0, words[first].start - before) / 2)
        end = words[last - 1].end + min(MARGIN_SECONDS, max(0.0, after - words[last - 1].end) / 2)
        return Joints(max(0.0, start), min(len(made) / self._rate, end))

    def _patch(self, place: Place, gap: Joints, made: Samples, cut: Joints, seed: int) -> Patch:
        """The new words and, for the crossfades, what was said beside them; in all channels, as loud as those are."""
        first, last = (min(max(self._at(one), place.room[0]), place.room[1]) for one in (gap.start, gap.end))
        span = widen(self._channels, self._rate, (first, last), place.room)
        before, after = first - span.start, span.end - last
        padded = np.pad(made, (before, after))
        material = padded[self._at(cut.start) : max(self._at(cut.start), self._at(cut.end)) + before + after]
        reach = self._at(_ROOM_SECONDS)
        near = slice(max(0, span.start - reach), span.end + reach)
        loudness = speech_level(self._mono[near], self._rate)
        with_room = add_room(material, self._mono[near], self._rate, seed)
        gains = [speech_level(channel[near], self._rate) / loudness for channel in self._channels]
        peak = max(1.0, float(np.abs(self._channels).max()))
        return Patch(span, np.clip(np.stack([with_room * gain for gain in gains]), -peak, peak))

    def _beside(self, place: Place) -> slice:
        """Samples of an edit and of the words beside it: they tell how this voice sounds there."""
        near = self._words[max(0, place.edit.first - AROUND_WORDS) : place.edit.last + AROUND_WORDS]
        start, end = self._at(near[0].start - SEARCH_SECONDS), self._at(near[-1].end + SEARCH_SECONDS)
        return slice(min(place.span.start, start), min(len(self._mono), max(place.span.end, end)))

    def _at(self, seconds: float) -> int:
        return max(0, round(seconds * self._rate))


def _at_16k(samples: Samples, rate: int) -> Samples:
    resampled: Samples = resample(DecodedAudio(samples[None], rate), RATE).samples[0]
    return resampled


def _warnings(words: Sequence[_Words]) -> Iterator[str]:
    for one in words:
        if one.best is not None and one.best.likeness < 1:
            heard = repr(one.best.heard) if one.best.heard else "nothing"
            yield f"edits: {join_words(one.place.edit.new)!r} was said, and with it {heard} is heard; listen to it"
