"""Media types of the files that jobs make."""

from __future__ import annotations

from typing import Final

from .schema.jobs import AudioFormat
from .schema.results import VideoFormat

CONTENT_TYPES: Final[dict[AudioFormat | VideoFormat, str]] = {
    "wav": "audio/wav",
    "flac": "audio/flac",
    "mp3": "audio/mpeg",
    "ogg": "audio/ogg",
    "mp4": "video/mp4",
    "mov": "video/quicktime",
    "webm": "video/webm",
}
"""The media type of each format, as it is stored with a file and sent before it."""
