"""Encoding of samples as audio files."""

from __future__ import annotations

import io
from typing import Any, Literal

import numpy as np
import soundfile
from numpy.typing import NDArray
from omnifleet_shared.audio_formats import LIMITS, check_format
from omnifleet_shared.errors import InvalidJob
from omnifleet_shared.schema.jobs import AudioFormat

Subtype = Literal["PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"]
"""Sample formats of a wav file, as libsndfile names them."""

FloatSamples = NDArray[np.float32] | NDArray[np.float64]

_BITS: dict[Subtype, int] = {"PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
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
        The whole file.

    Raises:
        ValueError: `pcm` is not int16 [n, channels].
        InvalidJob: the format is unknown, or cannot hold that sample rate or that many channels.
    """
    if pcm.dtype != np.int16 or pcm.ndim != 2:
        raise ValueError(f"pcm must be int16 [n, channels], not {pcm.dtype} {list(pcm.shape)}")
    if format not in _SUBTYPES:
        raise InvalidJob(f"audio cannot be written as {format!r}", "format", f"Use one of {', '.join(_SUBTYPES)}")
    return _write(_as_written(pcm, format), sample_rate, format, _SUBTYPES[format])


def exact_subtype(samples: FloatSamples) -> Subtype:
    """Return the narrowest sample format that holds every sample exactly; full scale is ±1."""
    for subtype, bits in _BITS.items():
        top = 2 ** (bits - 1)
        scaled = samples * top
        if (scaled == np.rint(scaled)).all() and scaled.max(initial=0) < top and scaled.min(initial=0) >= -top:
            return subtype
    return "FLOAT" if (samples == samples.astype(np.float32)).all() else "DOUBLE"


def encode_samples(samples: FloatSamples, sample_rate: int, format: AudioFormat, subtype: Subtype) -> bytes:
    """Encode samples as a file that holds those of `subtype` as they are; others are rounded to it.

    Args:
        samples: float64 [channels, n], full scale ±1; float32 unless `subtype` is wider.
        sample_rate: samples per second and channel.
        format: "wav" holds every subtype; "flac" 16 and 24 bits, the wider ones are rounded to 24; "mp3" and "ogg"
            are lossy and hold none.
        subtype: of a wav or flac file.

    Returns:
        The whole file.

    Raises:
        InvalidJob: the format cannot hold that sample rate or that many channels.
    """
    if _SUBTYPES[format] != "PCM_16":
        return _write(np.clip(samples.T, -1, 1).astype(np.float32), sample_rate, format, _SUBTYPES[format])
    held: Subtype = "PCM_24" if format == "flac" and subtype != "PCM_16" else subtype
    return _write(_in_subtype(samples.T, held), sample_rate, format, held)


def _in_subtype(samples: FloatSamples, subtype: Subtype) -> NDArray[Any]:
    if subtype not in _BITS:
        return samples.astype(np.float32 if subtype == "FLOAT" else np.float64, copy=False)
    top = 1 << (_BITS[subtype] - 1)
    rounded = np.clip(np.rint(samples * top), -top, top - 1)
    # soundfile takes 16 and 32 bits; of the latter 24-bit files keep the upper ones.
    return rounded.astype(np.int16) if subtype == "PCM_16" else (rounded * (2**31 // top)).astype(np.int32)


def check_samples(samples: FloatSamples, format: AudioFormat, *, lossy: bool = False) -> str | None:
    """Look whether a format holds the samples of a recording, before any of it is changed.

    Args:
        samples: float64 [channels, n], full scale ±1.
        format: of the file that they shall go to.
        lossy: whether they come of a lossy file, whose decoders overshoot and whose depth is nobody's concern.

    Returns:
        What the format does not keep, as a warning; None where it keeps all that there was to keep.

    Raises:
        InvalidJob: it would cut off samples above full scale, of a recording that was made to go there.
    """
    if LIMITS[format].keeps_floats:
        return None
    peak = float(np.abs(samples).max(initial=0))
    if peak > 1:
        problem = (
            f"{format} cuts samples off at full scale, and the recording reaches {20 * np.log10(peak):.1f} dB above"
        )
        if lossy:
            return f"format: {problem}. Use wav to keep them."
        raise InvalidJob(problem, "format", "Use wav, or lower the recording", {"peak": peak})
    return None if lossy else _rounding(samples, format)


def _rounding(samples: FloatSamples, format: AudioFormat) -> str | None:
    bits, subtype = LIMITS[format].bits, exact_subtype(samples)
    if not bits or _BITS.get(subtype, 64) <= bits:
        return None
    kind = "floating-point" if subtype in ("FLOAT", "DOUBLE") else f"{_BITS[subtype]}-bit"
    return f"format: the recording's {kind} samples are rounded to {bits} bits in {format}. Use wav to keep them."


def _write(data: NDArray[Any], sample_rate: int, format: AudioFormat, subtype: str) -> bytes:
    check_format(format, sample_rate, data.shape[1])
    target = io.BytesIO()
    try:
        with soundfile.SoundFile(
            target, "w", sample_rate, data.shape[1], subtype=subtype, format=format.upper()
        ) as file:
            for start in range(0, len(data), _BLOCK_FRAMES):
                file.write(data[start : start + _BLOCK_FRAMES])
    except soundfile.LibsndfileError as error:
        problem = f"{format} cannot hold {data.shape[1]} channels at {sample_rate} Hz"
        raise InvalidJob(problem, "format", "Use wav or flac") from error
    return target.getvalue()


def _as_written(pcm: NDArray[np.int16], format: AudioFormat) -> NDArray[np.int16] | NDArray[np.float32]:
    # libsndfile 1.2 garbles stereo mp3 when it gets 16-bit samples; as floats they come out right.
    return pcm if _SUBTYPES[format] == "PCM_16" else pcm.astype(np.float32) / np.float32(32_768)
