"""Operations on samples before and after the model: resampling, downmixing, fading, trimming and splitting."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, cast

import av
import numpy as np
import torch
from av.audio.frame import AudioFrame
from av.filter.context import FilterContext
from av.filter.graph import Graph
from numpy.typing import NDArray
from torchaudio.functional import resample as torchaudio_resample

from omnifleet_worker.media.decode import DecodedAudio
from omnifleet_worker.media.downmix import mix_to_mono

# torchaudio's filter has the two rates' reduced terms as its sides: a file at 44,101 Hz would ask for gigabytes.
# Up to these terms, which all rates in use have, it is made; for others libswresample's, interpolated between 4,096
# phases, which keeps pitch and length exactly and is off by less than -100 dB.
_MAX_TERM = 1_000
_ANY_RATE_OPTIONS = "linear_interp=1:filter_size=64:phase_shift=12:cutoff=0.97"
_BLOCK = 65_536

_TRIM_FRAME_SECONDS = 0.01

_PAUSE_SECONDS = 0.1
_PAUSE_SEARCH_SECONDS = 5.0

# What cancels out more than this is not made up for in a crossfade: it would take more than 3 dB.
_LEAST_CORRELATION = -0.5


def resample(audio: DecodedAudio, rate: int) -> DecodedAudio:
    """Resample with torchaudio's windowed sinc; the same object if the rate is right already.

    Args:
        audio: float32 [channels, n].
        rate: samples per second wanted, > 0.

    Returns:
        float32 [channels, about n * rate / audio.sample_rate]; at least one sample if there was one.
    """
    if audio.sample_rate == rate:
        return audio
    ratio = Fraction(rate, audio.sample_rate)
    if max(ratio.numerator, ratio.denominator) > _MAX_TERM:
        channels = [_resample_any(channel, audio.sample_rate, rate) for channel in audio.samples]
        return DecodedAudio(np.stack(channels), rate, audio.places)
    samples = torch.from_numpy(np.ascontiguousarray(audio.samples))
    resampled = torchaudio_resample(samples, ratio.denominator, ratio.numerator)
    return DecodedAudio(resampled.numpy(), rate, audio.places)


def _resample_any(samples: NDArray[Any], source: int, target: int) -> NDArray[Any]:
    """Resample one channel [n] by libswresample, to the length that the rates make of it."""
    graph = Graph()
    form = "flt" if samples.dtype == np.float32 else "dbl"
    begin = graph.add_abuffer(sample_rate=source, format=form, layout="mono", time_base=Fraction(1, source))
    end = graph.add("abuffersink")
    graph.link_nodes(begin, graph.add("aresample", f"{target}:{_ANY_RATE_OPTIONS}"), end).configure()
    made: list[NDArray[Any]] = []
    for start in range(0, len(samples), _BLOCK):
        frame = AudioFrame.from_ndarray(
            np.ascontiguousarray(samples[None, start : start + _BLOCK]), format=form, layout="mono"
        )
        frame.sample_rate, frame.pts, frame.time_base = source, start, Fraction(1, source)
        begin.push(frame)
        made += _pulled(end)
    begin.push(None)
    count = math.ceil(len(samples) * target / source)
    joined = np.concatenate([*made, *_pulled(end), np.zeros(count, samples.dtype)])
    return joined[:count]


def _pulled(sink: FilterContext) -> Iterator[NDArray[Any]]:
    while True:
        try:
            yield cast(AudioFrame, sink.pull()).to_ndarray()[0]
        except (av.BlockingIOError, av.EOFError):
            return


def to_mono(audio: DecodedAudio) -> DecodedAudio:
    """Mix the channels to float32 [1, n] as `downmix` does; the same object if there is one channel only."""
    if audio.samples.shape[0] == 1:
        return audio
    mixed = mix_to_mono(audio.samples, audio.places).astype(np.float32, copy=False)
    return DecodedAudio(np.ascontiguousarray(mixed), audio.sample_rate)


def crossfade(before: NDArray[Any], after: NDArray[Any]) -> NDArray[Any]:
    """Fade from one [channels, n] to the other at constant power, whatever they have in common.

    Sine and cosine keep the power of strangers and add 3 dB to twins. So both are divided by what they do to the
    power of signals with the measured correlation: twins get gains that add up to 1, strangers keep theirs.
    """
    angle = (np.arange(before.shape[1]) + 0.5) / max(1, before.shape[1]) * (np.pi / 2)
    change = np.sqrt(1 + _correlation(before, after) * np.sin(2 * angle))
    fall, rise = np.cos(angle) / change, np.sin(angle) / change
    faded: NDArray[Any] = (before * fall + after * rise).astype(before.dtype)
    return faded


def _correlation(before: NDArray[Any], after: NDArray[Any]) -> float:
    """Of both signals over all channels, between -0.5 and 1; 0 where either is silent."""
    one, other = before.ravel().astype(np.float64), after.ravel().astype(np.float64)
    scale = float(np.sqrt(one.dot(one) * other.dot(other)))
    return min(1.0, max(_LEAST_CORRELATION, float(one.dot(other)) / scale)) if scale else 0.0


def trim_silence(samples: NDArray[np.float32], sample_rate: int, below_peak_db: float = 30.0) -> NDArray[np.float32]:
    """Cut the silence at both ends, in frames of 10 ms; silence in between stays.

    Args:
        samples: float32 [channels, n].
        sample_rate: samples per second and channel.
        below_peak_db: a frame is silent if its level (RMS over all channels) lies more decibels than this under
            the loudest frame's. Default 30 dB.

    Returns:
        A view float32 [channels, m] of the input with 0 < m <= n; all of it if it is silent throughout.
    """
    size = max(1, round(sample_rate * _TRIM_FRAME_SECONDS))
    power = _frame_power(samples, size)
    if power.size == 0 or power.max() == 0:
        return samples
    (loud,) = np.nonzero(power >= power.max() * 10 ** (-below_peak_db / 10))
    return samples[:, loud[0] * size : (loud[-1] + 1) * size]


def split_at_pauses(samples: NDArray[np.float32], sample_rate: int, max_seconds: float) -> list[NDArray[np.float32]]:
    """Cut a recording into parts of about the same length, each cut in the quietest tenth of a second thereabouts.

    Args:
        samples: float32 [n], n > 0.
        sample_rate: samples per second.
        max_seconds: longest part; a cut is looked for in a quarter of that, at most 5 seconds, around the even one.

    Returns:
        Views float32 [m] of the input that joined are the input again; one if it is no longer than `max_seconds`.
    """
    if len(samples) <= max_seconds * sample_rate:
        return [samples]
    search = min(_PAUSE_SEARCH_SECONDS, max_seconds / 4)
    parts = math.ceil(len(samples) / sample_rate / (max_seconds - search))
    reach, pause = round(search / 2 * sample_rate), round(_PAUSE_SECONDS * sample_rate)
    even = [round(part * len(samples) / parts) for part in range(1, parts)]
    return np.split(samples, [_quietest_near(samples, middle, reach, pause) for middle in even])


def _quietest_near(samples: NDArray[np.float32], middle: int, reach: int, pause: int) -> int:
    start = middle - reach
    power = _frame_power(samples[None, start : middle + reach], pause)
    return start + int(power.argmin()) * pause + pause // 2


def _frame_power(samples: NDArray[np.float32], size: int) -> NDArray[np.float64]:
    """Return the mean square of each frame of `size` samples, over all channels; the last one may be shorter."""
    starts = np.arange(0, samples.shape[1], size)
    squares: NDArray[np.float64] = np.square(samples, dtype=np.float64).mean(axis=0)
    if not starts.size:
        return squares
    lengths = np.diff(np.append(starts, samples.shape[1]))
    power: NDArray[np.float64] = np.add.reduceat(squares, starts) / lengths
    return power
