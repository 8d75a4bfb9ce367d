"""Decoding of audio files to samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypedDict

import av
import numpy as np
from av.audio.frame import AudioFrame
from numpy.typing import NDArray
from omnifleet_shared.errors import MediaEmpty, MediaUnreadable

from omnifleet_worker.media.downmix import MonoMix
from omnifleet_worker.media.limits import DEFAULT_LIMITS, PADDING_SAMPLES, LimitGuard, MediaLimits
from omnifleet_worker.media.reader import MediaReader, open_media
from omnifleet_worker.media.timeline import Timeline
from omnifleet_worker.media.wav import PcmWav, read_wav

_REMEDY = "Send a file with sound"


@dataclass(frozen=True, eq=False)
class DecodedAudio:
    """Decoded audio at its source's own rate and channels.

    Args:
        samples: float32 [channels, n], full scale ±1; a float file may exceed it. float64 where decoded exactly.
        sample_rate: samples per second and channel.
        places: where the channels belong, such as `("FL", "FR")`; None where the file does not say.
        lossy: whether the file's encoding was, so that its samples are not what once was recorded.
    """

    samples: NDArray[np.float32] | NDArray[np.float64]
    sample_rate: int
    places: tuple[str, ...] | None = None
    lossy: bool = False

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return int(self.samples.shape[-1]) / self.sample_rate


class AudioForm(TypedDict, total=False):
    """How sound is decoded; see `decode_audio`."""

    exact: bool
    mono_rate: int | None
    track: int | None


def decode_audio(
    data: bytes,
    *,
    field: str = "audio",
    limits: MediaLimits = DEFAULT_LIMITS,
    exact: bool = False,
    mono_rate: int | None = None,
    track: int | None = None,
) -> DecodedAudio:
    """Decode the sound of wav, flac, mp3, ogg, aac, m4a, mp4, mov, mkv, webm, aiff, caf, amr, wma, avi, flv, ts.

    A file that was cut off is refused where its format tells (wav, flac, ogg, mp4, webm with a duration, mp3 with a
    Xing header); a few damaged packets in mp3, aac, ogg or webm are skipped, as players do. Time is kept: gaps in the
    timestamps become silence, and so does what a film shows before its sound begins.

    Args:
        data: the whole file.
        field: the request's field, for errors.
        limits: what is allowed.
        exact: give float64, which holds the values of every sample format; by default float32, which rounds those
            of 32-bit integers and of float64.
        mono_rate: give the channels mixed to one (`downmix`) at that rate, on the way: hours then fit into memory.
        track: number of the sound track, from 0; by default the one that the file marks as such, else the first.

    Returns:
        Samples [channels, n] at the source's own rate, or [1, n] at `mono_rate`, n > 0.

    Raises:
        MediaEmpty: no bytes, or no samples.
        MediaUnreadable: not audio, damaged, cut off, or holding samples that are not numbers; with the field
            `audio_track`, no such track.
        MediaTooLarge: more bytes, streams, channels, samples per second or decoding time than allowed.
        MediaTooLong: more seconds than allowed.
    """
    dtype = np.dtype(np.float64 if exact else np.float32)
    guard = LimitGuard(field, limits)
    guard.check_bytes(data, _REMEDY)
    wav = read_wav(data, field) if not track else None

    def blocks() -> Iterator[_Block]:
        return _wav_blocks(wav, guard, dtype) if wav else _decoded_blocks(data, field, limits, track, dtype)

    return _gather(blocks(), field) if mono_rate is None else _gather_mono(blocks, mono_rate, field)


@dataclass(frozen=True, eq=False)
class _Block:
    """Some samples [n, channels] of a file, and what the file says of them."""

    samples: NDArray[Any]
    rate: int
    places: tuple[str, ...] | None
    lossy: bool = False


def _wav_blocks(wav: PcmWav, guard: LimitGuard, dtype: np.dtype[Any]) -> Iterator[_Block]:
    guard.check_shape(wav.channels, wav.rate)
    count = 0
    for samples in wav.blocks(dtype):
        count += len(samples)
        guard.check_time()
        guard.check_seconds(count / wav.rate)
        guard.check_decoded_bytes(count * wav.channels * dtype.itemsize)
        yield _Block(samples, wav.rate, wav.places)


def _decoded_blocks(
    data: bytes, field: str, limits: MediaLimits, track: int | None, dtype: np.dtype[Any]
) -> Iterator[_Block]:
    with open_media(data, kind="audio", field=field, limits=limits, track=track) as reader:
        reader.stream.codec_context.thread_count = 1  # audio gains nothing from threads, a many-core worker loses
        yield from _placed_blocks(reader, dtype)


def _placed_blocks(reader: MediaReader, dtype: np.dtype[Any]) -> Iterator[_Block]:
    """Yield the decoded samples with silence where the file has none; what lies beyond its end is left out."""
    guard, timeline = reader.guard, Timeline(reader)
    for frame in _float_frames(reader, "dbl" if dtype == np.float64 else "flt"):
        channels, rate = frame.layout.nb_channels, frame.sample_rate
        samples = frame.to_ndarray().reshape(-1, channels).astype(dtype, copy=False)
        silence, kept = timeline.place(frame, len(samples))
        guard.check_seconds(timeline.seconds, spare=PADDING_SAMPLES / rate)
        guard.check_decoded_bytes(timeline.samples * channels * dtype.itemsize)
        if silence:
            yield _Block(np.zeros((silence, channels), dtype), rate, _places(frame), reader.lossy)
        yield _Block(samples[:kept], rate, _places(frame), reader.lossy)
    reader.check_complete(timeline.seconds)


def _places(frame: AudioFrame) -> tuple[str, ...] | None:
    names = tuple(channel.name for channel in frame.layout.channels)
    return None if "NONE" in names else names


def _gather(blocks: Iterator[_Block], field: str) -> DecodedAudio:
    found = [_checked(block, field) for block in blocks if len(block.samples)]
    if not found:
        raise MediaEmpty("the file holds no samples", field, _REMEDY)
    samples = np.concatenate([block.samples for block in found])
    first = found[0]
    return DecodedAudio(np.ascontiguousarray(samples.T), first.rate, first.places, first.lossy)


def _gather_mono(blocks: Callable[[], Iterator[_Block]], rate: int, field: str) -> DecodedAudio:
    """Mix and resample block by block; once more for a single channel where all of them cancel each other out."""
    samples, mix = _mix(blocks(), rate, field, only=None)
    if mix.instead is not None:
        samples, _ = _mix(blocks(), rate, field, only=mix.instead)
    return DecodedAudio(samples[None] if mix.gain == 1.0 else samples[None] * samples.dtype.type(mix.gain), rate)


def _mix(blocks: Iterator[_Block], rate: int, field: str, only: int | None) -> tuple[NDArray[Any], MonoMix]:
    mix: MonoMix | None = None
    resampler = av.AudioResampler(format="flt", rate=rate)
    made: list[NDArray[Any]] = []
    for block in blocks:
        if not len(block.samples):
            continue
        mix = mix or MonoMix(block.samples.shape[1], block.places, only)
        mono = mix.mix(_checked(block, field).samples).astype(np.float32, copy=False)
        made += _resample(resampler, mono, block.rate)
    if mix is None:
        raise MediaEmpty("the file holds no samples", field, _REMEDY)
    made += [frame.to_ndarray()[0] for frame in resampler.resample(None)]
    return np.concatenate(made), mix


def _resample(resampler: av.AudioResampler, mono: NDArray[np.float32], rate: int) -> list[NDArray[Any]]:
    frame = AudioFrame.from_ndarray(np.ascontiguousarray(mono)[None], format="flt", layout="mono")
    frame.sample_rate = rate
    return [made.to_ndarray()[0] for made in resampler.resample(frame)]


def _float_frames(reader: MediaReader, format: str) -> Iterator[AudioFrame]:
    # Packed floats from libav itself: for 8 planar channels `AudioFrame.to_ndarray` runs past the planes (PyAV 16).
    resampler = av.AudioResampler(format=format)
    shape: tuple[int, int] | None = None
    for frame in reader.frames(AudioFrame):
        found = (frame.layout.nb_channels, frame.sample_rate)
        if shape is None:
            reader.guard.check_shape(*found)
            shape = found
        if found != shape:
            raise reader.guard.unreadable("its channels or its sample rate change on the way")
        yield from _convert(resampler, frame, reader)
    if shape is not None:
        yield from _convert(resampler, None, reader)


def _convert(resampler: av.AudioResampler, frame: AudioFrame | None, reader: MediaReader) -> list[AudioFrame]:
    try:
        return resampler.resample(frame)
    except (av.FFmpegError, ValueError) as error:
        raise reader.guard.unreadable("its sample format changes on the way or is unknown") from error


def _checked(block: _Block, field: str) -> _Block:
    samples = block.samples
    if not (np.isfinite(samples) & (np.abs(samples) <= np.finfo(np.float32).max)).all():
        problem = "it holds samples that are not numbers (NaN or infinity)"
        raise MediaUnreadable(problem, field, "Export the file again from the original")
    return block
