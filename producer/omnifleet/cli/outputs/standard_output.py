"""`-o -`: a result on standard output, part by part as it is made, for a player or another program."""

from __future__ import annotations

import io
import struct
import sys
import wave
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from omnifleet_shared.errors import InvalidJob

from ...results.parts import Part

NAME = Path("-")
UNKNOWN = 0xFFFFFFFF
"""Length of a wav file whose end is not known yet, as players and ffmpeg read and write it."""


class StandardOutput:
    """Writes a stream to standard output: text as UTF-8, sound as one wav file that begins before it is made.

    Args:
        holds_text: whether the result is text, as far as is known.
        as_json: whether records are to be printed.
    """

    def __init__(self, *, holds_text: bool, as_json: bool) -> None:
        self._holds_text = holds_text
        self._as_json = as_json
        self._form: tuple[int, int] | None = None

    def check(self) -> None:
        """Refuse what could not be written after the job. Raises InvalidJob."""
        if self._as_json:
            raise InvalidJob(
                "standard output takes the result or records", "output", "Leave out --json, or name a file"
            )
        if not self._holds_text and sys.stdout.isatty():
            remedy = "Send it to a player, such as | ffplay -nodisp -autoexit -, or name a file"
            raise InvalidJob("sound is nothing to read on a terminal", "output", remedy)

    def write(self, parts: Iterable[Part]) -> None:
        """Write all parts, each as soon as it is there. Raises as `Audio.read`, and OSError."""
        out, last = sys.stdout.buffer, None
        for last in parts:
            out.write((last.text or "").encode()) if last.audio is None else self._write_audio(out, last.audio.read())
            out.flush()
        if last is not None and last.audio is None:
            out.write(b"\n")
            out.flush()

    def _write_audio(self, out: BinaryIO, data: bytes) -> None:
        if (found := _read_wav(data)) is None:
            out.write(data)  # a whole result, as it is
            return
        sample_rate, channels, samples = found
        if self._form is None:
            self._form = sample_rate, channels
            out.write(_endless_header(sample_rate, channels))
        out.write(samples)


def _read_wav(data: bytes) -> tuple[int, int, bytes] | None:
    """Samples a second, channels and samples of a wav file of 16 bits; None for any other file."""
    try:
        with wave.open(io.BytesIO(data)) as file:
            if file.getsampwidth() != 2:
                return None
            return file.getframerate(), file.getnchannels(), file.readframes(file.getnframes())
    except (wave.Error, EOFError):
        return None


def _endless_header(sample_rate: int, channels: int) -> bytes:
    frame = 2 * channels
    form = struct.pack("<IHHIIHH", 16, 1, channels, sample_rate, sample_rate * frame, frame, 16)
    return b"RIFF" + struct.pack("<I", UNKNOWN) + b"WAVEfmt " + form + b"data" + struct.pack("<I", UNKNOWN)
