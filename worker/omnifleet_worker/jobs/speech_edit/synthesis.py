"""New words in the voice of the recording: latent inpainting of a gap between the words around it.

The model sees a context window: the recording's own sound before the gap, silence, and its sound after it. As the gap
may be of any length, new words that take longer or shorter than the old ones are made like those that do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from omnifleet_shared.errors import InvalidJob, LanguageNotSupported

from ...engine.request import Inpainting
from ...media.decode import DecodedAudio
from ...media.signal import resample
from ...models.audio_omni.sampling import SAMPLE_RATE
from ..job_context import Clip, JobContext
from ..model import ModelData
from .editing_model import NewSpeech, Place
from .splice import Patch, Samples, Span
from .word_edits import WordEdit
from .words import Word, join_words

CONTEXT_SECONDS = 10.0
"""Seconds of a context window: what the model takes of an audio prompt."""
LONGEST_GAP_SECONDS = 6.0
"""Longest gap to fill at once, so that the model hears enough of the voice beside it."""
SAME_LENGTH = 0.3
"""New words with as many letters as the old ones, but for this share of them, take exactly their time."""
_VOICE_SECONDS = 1.5
"""With less speech than this around a gap, the old words go before it as a sample of the voice."""
_SAMPLE_SECONDS = 3.0
_PAUSE_SECONDS = 0.3
"""Silence between the sample of the voice and the rest, and most that is kept of a pause at a context window's ends."""
_FASTEST, _SLOWEST = 25.0, 4.0
"""Tokens a second that anybody speaks."""
_LEVEL_RANGE = 2.0
"""Ratio to the level around it that new material may have: 6 dB."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ContextWindow:
    """A gap to be filled and the recording around it, at the source's rate and channels.

    Attributes:
        samples: float64 [channels, n], silence in the gap.
        gap: its first sample, and one past its last.
        fades: samples before and after the gap that belong to the edited span.
        text: what is said in all of it, new words included.
    """

    samples: Samples
    gap: tuple[int, int]
    fades: tuple[int, int]
    text: str


class SpeechInpainter:
    """Synthesises new words for one recording by inpainting; see `WordMaker`.

    Args:
        source: the recording, float64 [channels, n].
        words: the words said in it.
        model: describes the loaded checkpoint.
    """

    def __init__(self, source: DecodedAudio, words: Sequence[Word], model: ModelData) -> None:
        self._samples: Samples = source.samples.astype(np.float64, copy=False)
        self._rate = source.sample_rate
        self._words = words
        self._model = model

    def check(self, wanted: Sequence[Place]) -> None:
        """Refuse new words that `make` would refuse, with the same errors; nothing is made."""
        for one in wanted:
            self._gap_samples(one.edit, one.span)

    def make(self, context: JobContext, wanted: Sequence[Place]) -> NewSpeech:
        """Synthesise what goes to each place; clips share engine steps. Raises as `WordMaker.make`."""
        windows = [self._window(one.edit, one.span) for one in wanted]
        clips = context.sample_all([self._clip(window, index) for index, window in enumerate(windows)])
        materials = [self._material(window, clip) for window, clip in zip(windows, clips, strict=True)]
        return NewSpeech([Patch(one.span, made) for one, made in zip(wanted, materials, strict=True)])

    def _window(self, edit: WordEdit, span: Span) -> ContextWindow:
        gap = self._gap_samples(edit, span)
        pause = self._at(_PAUSE_SECONDS)
        room = self._at(CONTEXT_SECONDS) - gap - 2 * pause
        before, after = self._around(edit, span, room)
        sample, transcript = self._voice_sample(edit, [*before, *after])
        if transcript:
            before, after = self._around(edit, span, max(0, room - sample.shape[1]))
        left = max(0, min(span.start, (self._at(before[0].start) if before else span.start) - pause))
        right = max(span.end, (self._at(after[-1].end) if after else span.end) + pause)
        ahead = np.concatenate([sample, self._samples[:, left : span.gap[0]]], axis=1)
        silence = np.zeros((len(ahead), gap))
        return ContextWindow(
            samples=np.concatenate([ahead, silence, self._samples[:, span.gap[1] : right]], axis=1),
            gap=(ahead.shape[1], ahead.shape[1] + gap),
            fades=(span.fade_in, span.fade_out),
            text=transcript + join_words([*self._texts(before), *edit.new, *self._texts(after)]),
        )

    def _around(self, edit: WordEdit, span: Span, room: int) -> tuple[Sequence[Word], Sequence[Word]]:
        """The words beside the gap that fit into so many samples; what one side leaves over is the other's."""
        left, right = span.start, self._samples.shape[1] - span.end
        earliest = span.start - max(room // 2, room - right)
        latest = span.end + max(room // 2, room - left)
        before = [word for word in self._words[: edit.first] if self._at(word.start) >= earliest]
        after = [word for word in self._words[edit.last :] if self._at(word.end) <= latest]
        return before, after

    def _gap_samples(self, edit: WordEdit, span: Span) -> int:
        """How long the new words take: the old ones' time where there is as much to say, else by the voice's pace."""
        text = join_words(edit.new)
        self._check_speakable(text)
        new, old = self._tokens(text), self._tokens(join_words(self._texts(self._words[edit.first : edit.last])))
        alike = abs(new - old) <= SAME_LENGTH * old
        seconds = (span.gap[1] - span.gap[0]) / self._rate if alike else new * self._seconds_a_token()
        if seconds > LONGEST_GAP_SECONDS:
            problem = f"{text[:80]!r} takes about {seconds:.0f} s to say, and {LONGEST_GAP_SECONDS:g} s can be made"
            raise InvalidJob(problem, "desc", "Say less in one place, or make it as speech (tts) of its own")
        return max(1, self._at(seconds))

    def _check_speakable(self, text: str) -> None:
        if self._model.tokenizer.unknown_share(text) > 0.5:
            remedy = f"{self._model.card.name} speaks {', '.join(self._model.card.languages)}"
            raise LanguageNotSupported("most of the new words are in signs without a sound", "desc", remedy)

    def _seconds_a_token(self) -> float:
        seconds = sum(word.end - word.start for word in self._words)
        pace = self._tokens(join_words(self._texts(self._words))) / max(seconds, 1e-3)
        return 1 / min(_FASTEST, max(_SLOWEST, pace))

    def _tokens(self, text: str) -> int:
        return len(self._model.tokenizer.split(text))

    def _voice_sample(self, edit: WordEdit, around: Sequence[Word]) -> tuple[Samples, str]:
        """Speech to go before the context window, and its transcript; none where enough speech is around the gap."""
        if sum(word.end - word.start for word in around) >= _VOICE_SECONDS:
            return self._samples[:, :0], ""
        first = max(0, min(edit.first, len(self._words) - 1))
        begin = self._words[first].start
        heard = [word for word in self._words[first:] if word.end <= begin + _SAMPLE_SECONDS]
        if not heard:
            return self._samples[:, :0], ""
        sample = self._samples[:, self._at(begin) : self._at(heard[-1].end)]
        silence = np.zeros((len(sample), self._at(_PAUSE_SECONDS)))
        return np.concatenate([sample, silence], axis=1), f"{join_words(self._texts(heard)).rstrip('. ')}. "

    def _clip(self, window: ContextWindow, index: int) -> Clip:
        window_audio = resample(DecodedAudio(_stereo(window.samples), self._rate), SAMPLE_RATE).samples
        scale = SAMPLE_RATE / self._rate
        gap = (round(window.gap[0] * scale), round(window.gap[1] * scale))
        return Clip(
            prompt=self._model.prompts.speech(),
            speech=window.text,
            audio=window_audio.mean(axis=0, dtype=np.float32),
            inpainting=Inpainting(source=window_audio, start=gap[0], end=gap[1]),
            index=index,
        )

    def _material(self, window: ContextWindow, clip: NDArray[np.float32]) -> Samples:
        made = resample(DecodedAudio(clip, SAMPLE_RATE), self._rate).samples[:, : window.samples.shape[1]]
        made = made.astype(np.float64)
        channels = (
            made if len(window.samples) == 2 else np.repeat(made.mean(axis=0, keepdims=True), len(window.samples), 0)
        )
        first, last = window.gap[0] - window.fades[0], window.gap[1] + window.fades[1]
        peak = max(1.0, float(np.abs(self._samples).max()))
        return np.clip(channels[:, first:last] * _gain(window, channels)[:, None], -peak, peak)

    @staticmethod
    def _texts(words: Sequence[Word]) -> list[str]:
        return [word.text for word in words]

    def _at(self, seconds: float) -> int:
        return round(seconds * self._rate)


def _stereo(samples: Samples) -> NDArray[np.float32]:
    pair = samples if len(samples) == 2 else np.repeat(samples.mean(axis=0, keepdims=True), 2, axis=0)
    return pair.astype(np.float32)


def _gain(window: ContextWindow, made: Samples) -> Samples:
    """For each channel: what brings the remade surroundings to the level of the real ones (a clip has a peak of 1).

    A model that missed the surroundings' level would miss the new words' too: they stay within 6 dB of them.
    """
    start, end = window.gap
    around = [_level(np.delete(one, np.s_[start:end], axis=1)) for one in (window.samples, made)]
    new = _level(made[:, start:end])
    gain = np.divide(around[0], around[1], out=np.ones_like(new), where=around[1] > 0)
    same = np.divide(around[0], new, out=np.zeros_like(new), where=new > 0)
    return np.clip(gain, same / _LEVEL_RANGE, same * _LEVEL_RANGE)


def _level(samples: Samples) -> Samples:
    """Root mean square of each channel over what is not digital silence; 0 where all is."""
    heard = np.maximum(1, np.count_nonzero(samples, axis=1))
    level: Samples = np.sqrt(np.square(samples).sum(axis=1) / heard)
    return level
