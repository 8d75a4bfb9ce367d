"""Brings speech that was made to the pitch, the sound, the level and the room of the recording that it goes into."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, cast

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.filter.graph import Graph
from numpy.typing import NDArray

Samples = NDArray[np.float64]

LEAST_SEMITONES, MOST_SEMITONES = 0.5, 4.0
"""Differences of pitch that are evened out: smaller ones are a voice's own, larger ones another way to speak."""
MOST_EQUALISED_DB = 6.0
"""Most that a third of an octave is raised or lowered."""
LEAST_UNDER_SPEECH_DB = 12.0
"""How far the room's noise lies under speech at least; what is louder is no background."""
_FRAME_SECONDS, _LOUD = 0.02, 10 ** (-20 / 20)
_WINDOW = 1024
_LOWEST_HZ, _HIGHEST_HZ, _PITCH_BAND_HZ = 60.0, 400.0, 900.0
_VOICED = 0.6
"""Share of a frame that repeats from which it is of a voice."""
_SILENCE = 1e-5


def match_pitch(made: Samples, around: Samples, rate: int) -> Samples:
    """Shift speech to the pitch of other speech, as long as it is, where the two differ a little.

    Args:
        made: float64 [n].
        around: float64 [m].
        rate: in Hz, of both.
    """
    wanted, found = voice_pitch(around, rate), voice_pitch(made, rate)
    if wanted is None or found is None:
        return made
    semitones = abs(12 * float(np.log2(wanted / found)))
    if not LEAST_SEMITONES <= semitones <= MOST_SEMITONES:
        return made
    return _shift(made, rate, wanted / found)


def voice_pitch(samples: Samples, rate: int) -> float | None:
    """Return the median pitch of a voice in Hz; None where little of it has a pitch."""
    size, hop = round(0.04 * rate), round(0.01 * rate)
    shortest, longest = int(rate / _HIGHEST_HZ), int(rate / _LOWEST_HZ)
    if len(samples) < size + longest:
        return None
    frames = np.lib.stride_tricks.sliding_window_view(_below(samples, rate, _PITCH_BAND_HZ), size)[::hop]
    level = np.sqrt(np.square(frames).mean(axis=1))
    pitches = [_pitch(frame, rate, shortest, longest) for frame in frames[level > _LOUD * level.max()]]
    voiced = [pitch for pitch in pitches if pitch is not None]
    return float(np.median(voiced)) if len(voiced) >= 10 else None


def _below(samples: Samples, rate: int, highest: float) -> Samples:
    spectrum = np.fft.rfft(samples)
    spectrum[np.fft.rfftfreq(len(samples), 1 / rate) > highest] = 0
    low: Samples = np.fft.irfft(spectrum, len(samples))
    return low


def _pitch(frame: Samples, rate: int, shortest: int, longest: int) -> float | None:
    """By the autocorrelation of a frame; None where it does not repeat."""
    spectrum = np.fft.rfft(frame - frame.mean(), 2 * len(frame))
    repeats = np.fft.irfft(np.abs(spectrum) ** 2)[: longest + 1]
    if repeats[0] <= 0:
        return None
    # Of a frame of limited length longer periods overlap less.
    repeats = repeats / repeats[0] * (len(frame) / (len(frame) - np.arange(longest + 1)))
    best = shortest + int(repeats[shortest:].argmax())
    # Two periods repeat as well as one: the first that is nearly as good is the pitch.
    good = np.nonzero(repeats[shortest:best] > 0.9 * repeats[best])[0]
    lag = _peak_from(repeats, shortest + int(good[0])) if good.size else best
    return rate / lag if repeats[best] > _VOICED else None


def _peak_from(values: Samples, at: int) -> int:
    while at + 1 < len(values) and values[at + 1] > values[at]:
        at += 1
    return at


def _shift(samples: Samples, rate: int, ratio: float) -> Samples:
    """Play it faster or slower, and then stretch it to the time that it took."""
    graph = Graph()
    begin = graph.add_abuffer(sample_rate=rate, format="dbl", layout="mono", time_base=Fraction(1, rate))
    filters = [("asetrate", str(round(rate * ratio))), ("aresample", str(rate)), ("atempo", f"{1 / ratio:.6f}")]
    chain = [graph.add(name, value) for name, value in [*filters, ("aformat", "sample_fmts=dbl:channel_layouts=mono")]]
    graph.link_nodes(begin, *chain, end := graph.add("abuffersink")).configure()
    frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), format="dbl", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    begin.push(frame)
    begin.push(None)
    shifted = np.concatenate([*_pulled(end), np.zeros(len(samples))])
    return shifted[: len(samples)]


def _pulled(sink: Any) -> Iterator[NDArray[np.float64]]:
    while True:
        try:
            yield cast(AudioFrame, sink.pull()).to_ndarray()[0]
        except (av.BlockingIOError, av.EOFError):
            return


def match_sound(made: Samples, around: Samples, rate: int) -> Samples:
    """Give speech the spectrum, as far as microphone and room colour it, and the level of other speech.

    Args:
        made: float64 [n].
        around: float64 [m].
        rate: in Hz, of both.
    """
    wanted, found = _spectrum(around, rate), _spectrum(made, rate)
    if wanted is None or found is None:
        return made
    gain = np.sqrt(np.maximum(wanted, 1e-20) / np.maximum(found, 1e-20))
    middle = speech_level(around, rate) / speech_level(made, rate)
    most = 10 ** (MOST_EQUALISED_DB / 20)
    shape = np.clip(gain / middle, 1 / most, most)
    frequencies = np.fft.rfftfreq(_WINDOW, 1 / rate)
    spectrum = np.fft.rfft(made, 2 * len(made))
    spectrum *= np.interp(np.fft.rfftfreq(2 * len(made), 1 / rate), frequencies, shape)
    shaped: Samples = np.fft.irfft(spectrum)[: len(made)]
    shaped *= speech_level(around, rate) / speech_level(shaped, rate)
    return shaped


def speech_level(samples: Samples, rate: int) -> float:
    """Return the root mean square of what is loud in a recording; hardly more than 0 where all is silent."""
    level = _levels(samples, rate)
    loud = level[level >= _LOUD * level.max()] if level.size else level
    return max(_SILENCE, float(np.sqrt(np.square(loud).mean()))) if loud.size else _SILENCE


def _levels(samples: Samples, rate: int) -> Samples:
    size = max(1, round(_FRAME_SECONDS * rate))
    frames = samples[: len(samples) // size * size].reshape(-1, size)
    level: Samples = np.sqrt(np.square(frames).mean(axis=1))
    return level


def _spectrum(samples: Samples, rate: int) -> Samples | None:
    """Mean power of what is loud by frequency, smoothed over a third of an octave; None of hardly any speech."""
    frames = _frames_of(samples, lambda level: level >= _LOUD * level.max())
    if len(frames) < 4 or speech_level(samples, rate) <= _SILENCE:
        return None
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(_WINDOW), axis=1))).mean(axis=0)
    return _smooth(power)


def _frames_of(samples: Samples, chosen: Callable[[Samples], NDArray[np.bool_]]) -> Samples:
    if len(samples) < _WINDOW:
        return np.zeros((0, _WINDOW))
    frames = np.lib.stride_tricks.sliding_window_view(samples, _WINDOW)[:: _WINDOW // 2]
    level = np.sqrt(np.square(frames).mean(axis=1))
    picked: Samples = frames[chosen(level)]
    return picked


def _smooth(power: Samples) -> Samples:
    bins = np.arange(len(power))
    reach = np.maximum(2, bins * (2 ** (1 / 3) - 1)).astype(int)
    sums = np.concatenate([[0.0], np.cumsum(power)])
    low, high = np.maximum(0, bins - reach), np.minimum(len(power), bins + reach + 1)
    smoothed: Samples = (sums[high] - sums[low]) / (high - low)
    return smoothed


def add_room(material: Samples, around: Samples, rate: int, seed: int) -> Samples:
    """Lay the noise of a recording's pauses under what was made without it.

    Args:
        material: float64 [n].
        around: float64 [m], the recording, pauses included.
        rate: in Hz, of both.
        seed: of the noise.
    """
    quiet = _frames_of(around, lambda level: level <= np.percentile(level, 10))
    if not len(quiet) or not len(material):
        return material
    level = float(np.sqrt(np.square(quiet).mean()))
    has = float(np.percentile(_levels(material, rate), 10)) if len(material) > rate * _FRAME_SECONDS else 0.0
    most = speech_level(around, rate) * 10 ** (-LEAST_UNDER_SPEECH_DB / 20)
    missing = np.sqrt(max(0.0, min(level, most) ** 2 - has**2))
    if missing <= _SILENCE:
        return material
    shape = np.sqrt(_smooth(np.square(np.abs(np.fft.rfft(quiet * np.hanning(_WINDOW), axis=1))).mean(axis=0)))
    noise = np.random.default_rng(seed).standard_normal(len(material))
    spectrum = np.fft.rfft(noise)
    spectrum *= np.interp(np.linspace(0, 1, len(spectrum)), np.linspace(0, 1, len(shape)), shape)
    coloured = np.fft.irfft(spectrum, len(material))
    with_room: Samples = material + coloured * (missing / max(_SILENCE, float(np.sqrt(np.square(coloured).mean()))))
    return with_room
