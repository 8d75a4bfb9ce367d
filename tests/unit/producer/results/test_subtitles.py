"""Subtitle files, read back by FFmpeg."""

from __future__ import annotations

import io
import json
from pathlib import Path

import av
import pytest
from omnifleet import InvalidJob
from omnifleet.results.subtitles import SubtitleFormat, write_subtitles
from omnifleet.testing import FakeClient
from omnifleet_shared.schema.transcript import HeardWord, Transcript
from support.data import media_files

SOUND = media_files.wav(0.5, 16_000)
FORMATS = pytest.mark.parametrize("form", ["srt", "vtt"])


def transcript(*words: tuple[str, float, float]) -> tuple[str, Transcript]:
    timed = tuple(HeardWord(text=text, start=start, end=end) for text, start, end in words)
    return " ".join(word.text for word in timed), Transcript(seconds=9_000.0, words=timed, segments=())


def parse(content: str, form: SubtitleFormat) -> list[tuple[float, float, str]]:
    """Start, end and text of each cue, as FFmpeg's demuxer finds them."""
    found = []
    with av.open(io.BytesIO(content.encode()), format="webvtt" if form == "vtt" else form) as file:
        for packet in file.demux():
            if packet.size:
                base = packet.time_base
                start, end = packet.pts * base, (packet.pts + packet.duration) * base
                found.append((float(start), float(end), bytes(packet).decode().rstrip("\n")))
    return found


@FORMATS
def test_times_and_words_are_read_back(form: SubtitleFormat) -> None:
    said = transcript(("Hello", 0.25, 0.75), ("world.", 0.8, 1.5), ("Again.", 7_384.001, 7_385.5))

    assert parse(write_subtitles(*said, form), form) == [
        (0.25, 1.5, "Hello world."),
        (7_384.001, 7_385.5, "Again."),
    ]


@FORMATS
def test_two_lines_stay_two_lines(form: SubtitleFormat) -> None:
    words = [(f"word{n:02d}", n / 4, n / 4 + 0.25) for n in range(10)]

    ((_, _, text),) = parse(write_subtitles(*transcript(*words), form), form)

    assert text == "word00 word01 word02 word03 word04\nword05 word06 word07 word08 word09"


def test_what_looks_like_markup_is_text() -> None:
    said = transcript(("<b>a", 0, 1), ("&", 1, 2), ("{c}", 2, 3), ("-->", 3, 4))

    ((_, _, vtt),) = parse(write_subtitles(*said, "vtt"), "vtt")
    ((_, _, srt),) = parse(write_subtitles(*said, "srt"), "srt")

    assert vtt == "&lt;b&gt;a &amp; {c} --&gt;"
    assert srt == "<b>a & {c} →"


@FORMATS
@pytest.mark.parametrize("timestamps", ["word", "segment"])
def test_a_result_is_saved_as_subtitles(tmp_path: Path, form: SubtitleFormat, timestamps: str) -> None:
    omni = FakeClient(answer=lambda job: "Hello there. How are you?")

    result = omni.understand("transcribe", SOUND, timestamps=timestamps).result()  # type: ignore[arg-type]
    saved = result.save(tmp_path / f"call.{form.upper()}")

    cues = parse(saved.read_text(), form)
    assert [text for _, _, text in cues] == ["Hello there.", "How are you?"]
    assert (cues[0][0], cues[-1][1]) == (0.0, 2.5)
    assert timestamps == "segment" or cues[0][1] == cues[1][0] == 1.0


def test_a_result_is_saved_as_json_with_its_times(tmp_path: Path) -> None:
    result = FakeClient(answer=lambda job: "Hello 世界").understand("transcribe", SOUND, timestamps="word").result()

    found = json.loads(result.save(tmp_path / "call.json").read_text())

    assert result.words == (HeardWord(text="Hello", start=0.0, end=0.5), HeardWord(text="世界", start=0.5, end=1.0))
    assert found == {
        "text": "Hello 世界",
        "seconds": 1.0,
        "words": [word.model_dump() for word in result.words],
        "segments": [{"text": "Hello 世界", "start": 0.0, "end": 1.0}],
    }
    assert result.save(tmp_path / "call.txt").read_text() == "Hello 世界"


def test_a_text_without_times_makes_no_subtitles(tmp_path: Path) -> None:
    result = FakeClient().understand("transcribe", SOUND).result()

    with pytest.raises(InvalidJob, match=r'path: subtitles need times.*timestamps="word"'):
        result.save(tmp_path / "call.srt")

    assert (result.words, result.segments) == (None, None)
    assert not (tmp_path / "call.srt").exists()
