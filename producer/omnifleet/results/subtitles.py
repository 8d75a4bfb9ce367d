"""Subtitle files of transcripts: SubRip (srt) and WebVTT (vtt).

Both are a few lines of text a cue. The libraries that write them take braces and angle brackets for markup, and would
lose words that have them.
"""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Literal, get_args

from omnifleet_shared.schema.transcript import Transcript

from .cues import Cue, make_cues

SubtitleFormat = Literal["srt", "vtt"]
SUBTITLE_FORMATS: tuple[SubtitleFormat, ...] = get_args(SubtitleFormat)


def write_subtitles(text: str, transcript: Transcript, form: SubtitleFormat) -> str:
    """Write a transcript as a subtitle file.

    Args:
        text: all that is said.
        transcript: its times.
        form: `srt` or `vtt`.
    """
    write: Callable[[int, Cue], str] = _srt if form == "srt" else _vtt
    cues = [write(number, cue) for number, cue in enumerate(make_cues(text, transcript), 1)]
    return "\n".join(["WEBVTT\n", *cues] if form == "vtt" else cues)


def _srt(number: int, cue: Cue) -> str:
    # The arrow would be taken for a line of times; SubRip has no way to write it otherwise.
    lines = "\n".join(cue.lines).replace("-->", "→")
    return f"{number}\n{_time(cue.start, ',')} --> {_time(cue.end, ',')}\n{lines}\n"


def _vtt(number: int, cue: Cue) -> str:
    lines = html.escape("\n".join(cue.lines), quote=False)
    return f"{number}\n{_time(cue.start, '.')} --> {_time(cue.end, '.')}\n{lines}\n"


def _time(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d}{point}{rest % 1000:03d}"
