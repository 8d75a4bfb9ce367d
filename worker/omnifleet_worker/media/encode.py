"""Samples to audio files."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
import soundfile
from numpy.typing import NDArray
from omnifleet_shared.errors import InvalidJob

AudioFormat = Literal["wav", "flac", "mp3", "ogg"]

CONTENT_TYPES: dict[str, str] = {"wav": "audio/wav", "flac": "audio/flac", "mp3": "audio/mpeg", "ogg": "audio/ogg"}
"""The media type of each format that `encode_audio` writes."""

_SUBTYPES = {"wav": "PCM_16", "flac": "PCM_16", "mp3": "MPEG_LAYER_III", "ogg": "VORBIS"}

# libsndfile overruns its stack when it gets minutes of ogg in one call.
_BLOCK_FRAMES = 65_536


def encode_audio(pcm: NDArray[np.int16], sample_rate: int, format: AudioFormat) -> bytes:
    """Encode samples as a file.

    Args:
        pcm: int16 [n, channels].
        sample_rate: samples per second and channel.
        format: "wav" and "flac" keep the 16 bits; "mp3" and "ogg" (Vorbis) are lossy, at libsndfile's default quality.

    Returns:
        The whole file. Its media type is `CONTENT_TYPES[format]`.

    Raises:
        ValueError: `pcm` is not int16 [n, channels].
        InvalidJob: the format is unknown, or cannot hold that sample rate or that many channels.
    """
    if pcm.dtype != np.int16 or pcm.ndim != 2:
        raise ValueError(f"pcm must be int16 [n, channels], not {pcm.dtype} {list(pcm.shape)}")
    if format not in CONTENT_TYPES:
        raise InvalidJob(f"audio cannot be written as {format!r}", "format", f"Use one of {', '.join(CONTENT_TYPES)}")
    try:
        return _write(pcm, sample_rate, format)
    except soundfile.LibsndfileError as error:
        problem = f"{format} cannot hold {pcm.shape[1]} channels at {sample_rate} Hz"
        raise InvalidJob(problem, "format", "Use wav or flac") from error


def _write(pcm: NDArray[np.int16], sample_rate: int, format: AudioFormat) -> bytes:
    target = io.BytesIO()
    with soundfile.SoundFile(
        target, "w", sample_rate, pcm.shape[1], subtype=_SUBTYPES[format], format=format.upper()
    ) as file:
        for start in range(0, len(pcm), _BLOCK_FRAMES):
            file.write(_as_written(pcm[start : start + _BLOCK_FRAMES], format))
    return target.getvalue()


def _as_written(block: NDArray[np.int16], format: AudioFormat) -> NDArray[np.int16] | NDArray[np.float32]:
    # libsndfile 1.2 garbles stereo mp3 when it gets 16-bit samples; as floats they come out right.
    return block if _SUBTYPES[format] == "PCM_16" else block.astype(np.float32) / np.float32(32_768)
