"""Media files on the caller's disk: which format a name asks for, and conversion."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, get_args

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


def convert(data: bytes, wanted: AudioFormat) -> bytes:
    """Convert an audio file to another format.

    Raises:
        MediaUnreadable: libsndfile cannot read it, or cannot write it so.
    """
    # Not at the top: it loads numpy, which only those who convert need.
    import soundfile

    converted = io.BytesIO()
    files: Any = soundfile.SoundFile
    try:
        with files(io.BytesIO(data)) as source:
            shape = {"samplerate": source.samplerate, "channels": source.channels}
            with files(converted, "w", format=wanted.upper(), **shape) as target:
                for block in source.blocks(BLOCK, dtype="float32"):
                    target.write(block)
    except soundfile.LibsndfileError as error:
        raise MediaUnreadable(f"the audio cannot be converted to {wanted}: {error}", "path") from error
    return converted.getvalue()
