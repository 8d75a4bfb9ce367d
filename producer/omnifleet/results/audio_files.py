"""Media files on the caller's disk: which format a name asks for, and conversion."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, BinaryIO, get_args

from omnifleet_shared.audio_formats import LIMITS, check_format
from omnifleet_shared.errors import InvalidJob, MediaUnreadable
from omnifleet_shared.schema.jobs import AudioFormat
from omnifleet_shared.schema.results import VideoFormat

FORMATS: tuple[AudioFormat, ...] = get_args(AudioFormat)
VIDEO_FORMATS: tuple[VideoFormat, ...] = get_args(VideoFormat)
BLOCK = 65_536
"""Frames that are converted at once; libsndfile's Vorbis encoder overflows its stack on very long ones."""


def format_of(path: Path) -> AudioFormat | None:
    """Return the format that a file name asks for; None where it has no suffix.

    Raises:
        InvalidJob: another suffix, or a folder.
    """
    if path.is_dir():
        raise InvalidJob(f"{str(path)!r} is a folder", "path", "Name the file")
    suffix = path.suffix.lower().removeprefix(".")
    if not suffix:
        return None
    if suffix in FORMATS:
        return suffix
    problem = f"no audio is written as {path.suffix!r}"
    raise InvalidJob(problem, "path", f"Use one of .{', .'.join(FORMATS)}, or no suffix")


def is_video(path: Path) -> bool:
    """Whether a file name asks for a video."""
    return path.suffix.lower().removeprefix(".") in VIDEO_FORMATS


def sound_form(file: BinaryIO) -> tuple[int, int] | None:
    """Return samples per second and channels of an audio file, left at its beginning; None where it is not known."""
    # Not at the top: it loads numpy, which few need here.
    import soundfile

    try:
        info: Any = soundfile.info(file)
    except soundfile.LibsndfileError:
        return None
    finally:
        file.seek(0)
    return info.samplerate, info.channels


def convert(data: bytes, wanted: AudioFormat) -> bytes:
    """Convert an audio file to another format, at its own rate, channels and, where the format holds it, depth.

    Raises:
        MediaUnreadable: libsndfile cannot read it.
        InvalidJob: the format cannot hold its rate, its channels or samples above full scale.
    """
    # Not at the top: it loads numpy, which only those who convert need.
    import soundfile

    converted = io.BytesIO()
    files: Any = soundfile.SoundFile
    try:
        with files(io.BytesIO(data)) as source:
            check_format(wanted, source.samplerate, source.channels)
            shape = {"samplerate": source.samplerate, "channels": source.channels}
            subtype, numbers = _depth(source.subtype, wanted)
            with files(converted, "w", format=wanted.upper(), subtype=subtype, **shape) as target:
                for block in source.blocks(BLOCK, dtype=numbers):
                    _check_peak(block, wanted, numbers)
                    target.write(block)
    except soundfile.LibsndfileError as error:
        raise MediaUnreadable(f"the audio cannot be converted to {wanted}: {error}", "path") from error
    return converted.getvalue()


def _depth(subtype: str, wanted: AudioFormat) -> tuple[str | None, str]:
    """The sample format to write, and the numbers to carry samples in: integers stay integers, floats floats."""
    if not LIMITS[wanted].bits:
        return None, "float32"
    if subtype not in ("PCM_24", "PCM_32", "FLOAT", "DOUBLE"):
        return "PCM_16", "float32" if subtype in ("VORBIS", "MPEG_LAYER_III") else "int32"
    held = subtype if wanted == "wav" else "PCM_24"
    return held, "int32" if subtype.startswith("PCM") else "float64"


def _check_peak(block: Any, wanted: AudioFormat, numbers: str) -> None:
    if numbers == "float64" and not LIMITS[wanted].keeps_floats and abs(block).max(initial=0) > 1:
        raise InvalidJob(f"{wanted} cuts samples off at full scale, and the audio goes above", "format", "Use wav")
