"""Speech in the formats that OpenAI's clients ask for and that workers do not write."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, Literal

from omnifleet_shared.schema.jobs import AudioFormat

SpeechFormat = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]
OF_WORKERS: dict[SpeechFormat, AudioFormat] = {"mp3": "mp3", "flac": "flac", "wav": "wav"}
"""Formats that a job is sent with; the others are made of its wav."""
PCM_RATE = 24_000
"""Samples a second of `pcm`: 16 bits, one channel, no header, as OpenAI sends it."""
CODECS = {"opus": ("ogg", "libopus", 48_000, "stereo"), "aac": ("adts", "aac", 44_100, "stereo")}
"""Container, codec, samples a second and channels."""
CONTENT_TYPES: dict[SpeechFormat, str] = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}


def encode(wav: bytes, wanted: SpeechFormat) -> bytes:
    """Encode a wav file, which is a worker's own, as `opus`, `aac` or `pcm`. Blocks, some 100 ms a minute of it."""
    # Not at the top: it loads FFmpeg, which is only for those who ask for such a format.
    import av

    with av.open(io.BytesIO(wav), "r") as source:
        frames: Iterator[Any] = source.decode(audio=0)
        if wanted == "pcm":
            return b"".join(_resampled(frames, av.AudioResampler("s16", "mono", PCM_RATE)))
        return _muxed(frames, *CODECS[wanted])


def _resampled(frames: Iterator[Any], resampler: Any) -> Iterator[bytes]:
    for frame in [*frames, None]:  # None gives what is left in it
        for part in resampler.resample(frame):
            yield part.to_ndarray().tobytes()


def _muxed(frames: Iterator[Any], container: str, codec: str, rate: int, layout: str) -> bytes:
    import av

    file = io.BytesIO()
    with av.open(file, "w", format=container) as target:
        stream: Any = target.add_stream(codec, rate=rate, layout=layout)
        for frame in [*frames, None]:
            target.mux(stream.encode(frame))
    return file.getvalue()
