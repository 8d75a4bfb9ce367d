"""Decoding of audio files to samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from av.audio.frame import AudioFrame
from numpy.typing import NDArray
from omnifleet_shared.errors import MediaEmpty, MediaUnreadable

from omnifleet_worker.media.limits import DEFAULT_LIMITS, MediaLimits
from omnifleet_worker.media.reader import MediaReader, open_media


@dataclass(frozen=True, eq=False)
class DecodedAudio:
    """Decoded audio at its source's own rate and channels.

    Args:
        samples: float32 [channels, n], full scale ±1; a float file may exceed it. float64 where decoded exactly.
        sample_rate: samples per second and channel.
    """

    samples: NDArray[np.float32] | NDArray[np.float64]
    sample_rate: int

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return int(self.samples.shape[-1]) / self.sample_rate


def decode_audio(
    data: bytes,
    *,
    field: str = "audio",
    limits: MediaLimits = DEFAULT_LIMITS,
    exact: bool = False,
    mono_rate: int | None = None,
    track: int | None = None,
) -> DecodedAudio:
    """Decode the sound of a wav, flac, mp3, ogg, aac, m4a, mp4, mov, mkv or webm file.

    A file that was cut off is refused where its format tells (wav, flac, ogg, mp4, webm with a duration, mp3 with a
    Xing header); a few damaged packets in mp3, aac, ogg or webm are skipped, as players do.

    Args:
        data: the whole file.
        field: the request's field, for errors.
        limits: what is allowed.
        exact: give float64, which holds the values of every sample format; by default float32, which rounds those
            of 32-bit integers and of float64.
        mono_rate: give the mean of the channels at that rate, made on the way: hours then fit into memory.
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
    with open_media(data, kind="audio", field=field, limits=limits, track=track) as reader:
        reader.stream.codec_context.thread_count = 1  # audio gains nothing from threads, a many-core worker loses
        return _decode_stream(reader, field, limits, np.dtype(np.float64 if exact else np.float32), mono_rate)


def _decode_stream(
    reader: MediaReader, field: str, limits: MediaLimits, dtype: np.dtype[Any], mono_rate: int | None
) -> DecodedAudio:
    chunks: list[NDArray[Any]] = []
    count, rate = 0, 0
    for frame in _float_frames(reader, limits, "dbl" if dtype == np.float64 else "flt", mono_rate):
        samples = frame.to_ndarray().reshape(-1, frame.layout.nb_channels).astype(dtype, copy=False)
        if mono_rate is not None:
            samples = samples.mean(axis=1, keepdims=True)
        count, rate = count + len(samples), frame.sample_rate
        reader.check_seconds(count / rate)
        reader.check_decoded_bytes(count * samples.shape[1] * dtype.itemsize)
        _check_finite(samples, field)
        chunks.append(samples)
    reader.check_complete(count / rate if rate else 0.0)
    if not count:
        raise MediaEmpty("the file holds no samples", field, "Send a file with sound")
    return DecodedAudio(np.ascontiguousarray(np.concatenate(chunks).T), rate)


def _float_frames(reader: MediaReader, limits: MediaLimits, format: str, rate: int | None) -> Iterator[AudioFrame]:
    # Packed floats from libav itself: for 8 planar channels `AudioFrame.to_ndarray` runs past the planes (PyAV 16).
    resampler = av.AudioResampler(format=format, rate=rate)
    shape: tuple[int, int] | None = None
    for frame in reader.frames(AudioFrame):
        found = (frame.layout.nb_channels, frame.sample_rate)
        if shape is None:
            _check_shape(reader, *found, limits)
            shape = found
        if found != shape:
            raise reader.unreadable("its channels or its sample rate change on the way")
        yield from _convert(resampler, frame, reader)
    if shape is not None:
        yield from _convert(resampler, None, reader)


def _convert(resampler: av.AudioResampler, frame: AudioFrame | None, reader: MediaReader) -> list[AudioFrame]:
    try:
        return resampler.resample(frame)
    except (av.FFmpegError, ValueError) as error:
        raise reader.unreadable("its sample format changes on the way or is unknown") from error


def _check_shape(reader: MediaReader, channels: int, rate: int, limits: MediaLimits) -> None:
    if channels > limits.max_channels:
        problem = f"it has {channels} channels, and {limits.max_channels} are allowed"
        raise reader.too_large(problem, "Mix it down to fewer channels")
    if rate > limits.max_sample_rate:
        problem = f"its sample rate is {rate} Hz, and {limits.max_sample_rate} Hz are allowed"
        raise reader.too_large(problem, "Resample it to 48000 Hz")
    if channels < 1 or rate < limits.min_sample_rate:
        raise reader.unreadable(f"it has {channels} channels at {rate} Hz, below {limits.min_sample_rate} Hz")


def _check_finite(samples: NDArray[Any], field: str) -> None:
    if not (np.isfinite(samples) & (np.abs(samples) <= np.finfo(np.float32).max)).all():
        problem = "it holds samples that are not numbers (NaN or infinity)"
        raise MediaUnreadable(problem, field, "Export the file again from the original")
