"""Speech in the formats that OpenAI's clients ask for, each of which can be sent while it is made."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from omnifleet_shared.content_types import CONTENT_TYPES
from omnifleet_shared.schema.jobs import AudioFormat

SpeechFormat = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]
OF_WORKERS: dict[SpeechFormat, AudioFormat] = {"mp3": "mp3", "flac": "flac", "wav": "wav"}
"""Formats that a job is sent with; the others are made of its wav."""
PCM_RATE = 24_000
"""Samples a second of `pcm`: 16 bits, one channel, no header, as OpenAI sends it."""
SPEECH_TYPES: dict[SpeechFormat, str] = {
    **{form: CONTENT_TYPES[of_workers] for form, of_workers in OF_WORKERS.items()},
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "pcm": "audio/pcm",
}
"""The media type of each format."""


@dataclass(frozen=True)
class _Form:
    """How FFmpeg writes a format."""

    container: str
    codec: str
    rate: int
    layout: str = "stereo"
    options: dict[str, str] = field(default_factory=dict[str, str])


FORMS: dict[SpeechFormat, _Form] = {
    # Neither tags nor a table of what follows, which nobody knows yet.
    "mp3": _Form("mp3", "libmp3lame", 44_100, options={"write_xing": "0", "id3v2_version": "0"}),
    # Pages of 0.1 s, in microseconds: of a second by default, which would be held back.
    "opus": _Form("ogg", "libopus", 48_000, options={"page_duration": "100000"}),
    "aac": _Form("adts", "aac", 44_100),
    "flac": _Form("flac", "flac", 44_100),
    "wav": _Form("wav", "pcm_s16le", 44_100, options={"fflags": "+bitexact"}),
    "pcm": _Form("s16le", "pcm_s16le", PCM_RATE, "mono"),
}
assert set(FORMS) == set(SPEECH_TYPES) == set(get_args(SpeechFormat))


class SpeechEncoder:
    """Encodes wav files, one behind the other, as a single file. Its methods block, some 100 ms a minute of audio.

    What it gives can be sent at once: lengths that headers of wav and flac have are those of a stream, unknown. To be
    closed, whatever happens: PyAV 16 brings the process down where an open file that it writes to is collected.

    Args:
        wanted: the format.
    """

    def __init__(self, wanted: SpeechFormat) -> None:
        # Not at the top: it loads FFmpeg, which is only for those who ask for such a format.
        import av

        form = FORMS[wanted]
        self._lock = threading.Lock()
        self._sink = _Sink()
        self._file: Any = av.open(
            self._sink, "w", format=form.container, options={"flush_packets": "1", **form.options}
        )
        self._stream: Any = self._file.add_stream(form.codec, rate=form.rate, layout=form.layout)
        self._samples = 0
        self._is_closed = False

    def encode(self, wav: bytes) -> bytes:
        """Encode a worker's file; gives what can be sent of all so far, and nothing once it is closed."""
        with self._lock:
            if self._is_closed:
                return b""
            for frame in _decode(wav):
                frame.pts = self._samples  # behind the file before
                self._samples += frame.samples
                self._file.mux(self._stream.encode(frame))
            return self._sink.take()

    def finish(self) -> bytes:
        """End the file; gives the rest of it."""
        with self._lock:
            self._file.mux(self._stream.encode(None))
            self._file.close()
            self._is_closed = True
            return self._sink.take()

    def close(self) -> None:
        """Let go of the file, finished or not; after what another thread, which nobody waits for, may still encode."""
        with self._lock:
            self._file.close()
            self._is_closed = True


def encode(wav: bytes, wanted: SpeechFormat) -> bytes:
    """Encode a single wav file; see `SpeechEncoder`."""
    with closing(SpeechEncoder(wanted)) as encoder:
        return encoder.encode(wav) + encoder.finish()


class _Sink:
    """A file that can only be written: FFmpeg goes back in none that has no `seek`."""

    def __init__(self) -> None:
        self._written = bytearray()

    def write(self, data: bytes) -> int:
        self._written += data
        return len(data)

    def take(self) -> bytes:
        """What was written since."""
        data = bytes(self._written)
        self._written.clear()
        return data


def _decode(wav: bytes) -> Iterator[Any]:
    import av

    with av.open(io.BytesIO(wav), "r") as source:
        yield from source.decode(audio=0)
