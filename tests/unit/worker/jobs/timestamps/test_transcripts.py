"""Transcripts with times, from the job's message to its result; what is heard and where words are is scripted."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omnifleet_shared.errors import InvalidJob, JobCancelled, TaskNotSupported
from omnifleet_shared.schema.jobs import read_job
from omnifleet_shared.schema.results import JobResult, read_result
from omnifleet_shared.schema.transcript import HeardSegment, HeardWord
from omnifleet_shared.storage.folder import FolderStorage
from omnifleet_worker.jobs.job_context import JobContext
from omnifleet_worker.jobs.prompts import Prompts
from omnifleet_worker.jobs.runner import JobRunner
from omnifleet_worker.jobs.speech_edit.alignment import CtcAligner
from omnifleet_worker.jobs.speech_edit.words import Word, split_words
from omnifleet_worker.jobs.tasks import OmniModel
from omnifleet_worker.models.audio_omni.speech_tokenizer import SpeechTokenizer
from omnifleet_worker.models.audio_omni.tiny import tiny_vocab
from omnifleet_worker.settings import WorkerSettings
from support.data import media_files
from support.data.aligner_folder import write_tiny_aligner
from support.scripted_thinker import CARD, SENTENCES, ScriptedThinker, stored

RATE = 16_000


@dataclass
class EvenAligner:
    """Says that the words come one after the other from the beginning, each as long as the last, at most 0.5 s."""

    most_words: int = 10_000
    heard: list[tuple[float, str]] = field(default_factory=list)

    def align(self, wave: np.ndarray, transcript: str) -> list[Word]:
        seconds = len(wave) / RATE
        self.heard.append((seconds, transcript))
        words = split_words(transcript)
        if len(words) > self.most_words:
            raise InvalidJob("more words than fit", "audio")
        step = min(0.5, 0.9 * seconds / len(words))
        return [Word(word, at * step, (at + 1) * step) for at, word in enumerate(words)]


def model_with(aligner: Any) -> OmniModel:
    prompts, tokenizer = Prompts(SENTENCES), SpeechTokenizer(tiny_vocab())
    return OmniModel(card=CARD, prompts=prompts, tokenizer=tokenizer, aligner=aligner)


def transcribe(
    folder: Path, thinker: ScriptedThinker, data: bytes, timestamps: str = "word", aligner: Any = None, **task: Any
) -> JobResult:
    media = stored(folder, data)
    fields = {"name": "transcribe", "audio": [media], "timestamps": timestamps, **task}
    engine: Any = thinker
    context = JobContext(read_job({"schema_version": 5, "namespace": "understand", "task": fields}), engine)
    result = JobRunner(model_with(aligner), FolderStorage(folder), WorkerSettings()).run(context)
    return read_result(result.model_dump(mode="json"))


def tones(*spans: tuple[float, float], seconds: float) -> bytes:
    times = np.arange(round(seconds * RATE)) / RATE
    loud = np.any([(times >= start) & (times < end) for start, end in spans] or [times < 0], axis=0)
    return media_files.encode("wav", (0.3 * loud * np.sin(1400 * times)).astype(np.float32)[None], RATE)


def times_of(result: JobResult) -> tuple[tuple[HeardWord, ...], tuple[HeardSegment, ...], float]:
    assert result.transcript is not None
    return result.transcript.words or (), result.transcript.segments, result.transcript.seconds


def test_every_word_has_its_time_and_its_punctuation(tmp_path: Path) -> None:
    thinker = ScriptedThinker(["Well, that's 3.5 % — or is it? Yes!"])

    result = transcribe(tmp_path, thinker, tones((0, 4), seconds=4), aligner=EvenAligner())

    words, segments, seconds = times_of(result)
    assert [word.text for word in words] == ["Well,", "that's", "3.5", "%", "or", "is", "it?", "Yes!"]
    assert (words[0].start, words[0].end, words[-1].end, seconds) == (0.0, 0.45, 3.6, 4.0)
    assert [(one.text, one.start, one.end) for one in segments] == [
        ("Well, that's 3.5 % — or is it?", 0.0, 3.15),
        ("Yes!", 3.15, 3.6),
    ]
    assert result.text == "Well, that's 3.5 % — or is it? Yes!"


@pytest.mark.parametrize(
    ("said", "words", "sentences"),
    [
        ("你好，世界。再见！", ["你", "好，", "世", "界。", "再", "见！"], ["你好，世界。", "再见！"]),
        ("「はい」と言った。", ["は", "い」", "と", "言", "っ", "た。"], ["「はい」と言った。"]),
        ("L'arbre est là !", ["L'", "arbre", "est", "là"], ["L'arbre est là !"]),
    ],
)
def test_scripts_without_spaces_and_elisions(tmp_path: Path, said: str, words: list[str], sentences: list[str]) -> None:
    result = transcribe(tmp_path, ScriptedThinker([said]), tones((0, 3), seconds=3), aligner=EvenAligner())

    found, segments, _ = times_of(result)
    assert [word.text.lstrip("「") for word in found] == words
    assert [one.text.lstrip("「") for one in segments] == [one.lstrip("「") for one in sentences]


def test_a_long_recording_has_times_over_the_whole(tmp_path: Path) -> None:
    aligner = EvenAligner()
    numbered = iter(range(1000))
    thinker = ScriptedThinker(lambda chat: f"This is part {next(numbered)}.")

    result = transcribe(tmp_path, thinker, tones((0, 400), seconds=400), aligner=aligner, max_new_tokens=256)

    words, segments, seconds = times_of(result)
    assert seconds == 400.0
    assert sum(length for length, _ in aligner.heard) == pytest.approx(400)
    assert len(aligner.heard) >= 13
    assert len(words) == 4 * len(aligner.heard)
    assert all(one.start <= one.end <= after.start for one, after in pairwise(words))
    starts = np.cumsum([0, *(length for length, _ in aligner.heard)])[:-1]
    assert [word.start for word in words[::4]] == pytest.approx(starts, abs=0.001)
    assert [one.text for one in segments] == [f"This is part {n}." for n in range(len(aligner.heard))]


def test_more_words_than_a_part_can_hold_are_spread_and_said_so(tmp_path: Path) -> None:
    thinker = ScriptedThinker(["one two three four five"])

    result = transcribe(tmp_path, thinker, tones((0, 2), seconds=2), aligner=EvenAligner(most_words=3))

    words, _, _ = times_of(result)
    assert [word.text for word in words] == ["one", "two", "three", "four", "five"]
    assert (words[0].start, words[-1].end) == (0.0, 2.0)
    (warning,) = result.warnings
    assert warning.startswith("timestamps: from 0 to 2 s more was heard than can be said")


def test_segments_lie_between_pauses_and_need_no_aligner(tmp_path: Path) -> None:
    spans = [(0.5, 2.0), (3.0, 4.0), (6.0, 9.0)]
    thinker = ScriptedThinker(["First.", "", "Third."])

    result = transcribe(tmp_path, thinker, tones(*spans, seconds=10), "segment")

    words, segments, seconds = times_of(result)
    assert (result.text, words, seconds) == ("First. Third.", (), 10.0)
    assert [(one.text, round(one.start, 1), round(one.end, 1)) for one in segments] == [
        ("First.", 0.4, 2.1),
        ("Third.", 5.9, 9.1),
    ]
    assert [round(len(chat.audio[0]) / RATE, 1) for chat in thinker.asked] == [1.7, 1.2, 3.2]


@pytest.mark.parametrize("timestamps", ["word", "segment"])
def test_silence_is_a_transcript_without_words(tmp_path: Path, timestamps: str) -> None:
    thinker = ScriptedThinker([""])

    result = transcribe(tmp_path, thinker, tones(seconds=2), timestamps, EvenAligner())

    assert result.text == ""
    assert times_of(result) == ((), (), 2.0)


def test_a_worker_without_an_aligner_refuses_words_before_it_fetches(tmp_path: Path) -> None:
    thinker = ScriptedThinker([])
    fields = {"name": "transcribe", "audio": [{"uri": "file:///nowhere"}], "timestamps": "word"}
    engine: Any = thinker
    context = JobContext(read_job({"schema_version": 5, "namespace": "understand", "task": fields}), engine)

    with pytest.raises(TaskNotSupported, match=r"OMNIFLEET_ALIGNER.*segments need none") as refused:
        JobRunner(model_with(None), FolderStorage(tmp_path), WorkerSettings()).run(context)

    assert refused.value.field == "timestamps"
    assert thinker.asked == []


def test_a_cancelled_job_aligns_no_further_part(tmp_path: Path) -> None:
    context: list[JobContext] = []

    class Cancelling(EvenAligner):
        def align(self, wave: np.ndarray, transcript: str) -> list[Word]:
            context[0].cancel()
            return super().align(wave, transcript)

    aligner = Cancelling()
    fields = {"name": "transcribe", "audio": [stored(tmp_path, tones((0, 200), seconds=200))], "timestamps": "word"}
    engine: Any = ScriptedThinker(lambda chat: "Hello there.")
    context.append(JobContext(read_job({"schema_version": 5, "namespace": "understand", "task": fields}), engine))

    with pytest.raises(JobCancelled):
        JobRunner(model_with(aligner), FolderStorage(tmp_path), WorkerSettings()).run(context[0])

    assert len(aligner.heard) == 1


def test_the_real_aligner_s_words_are_in_order_and_inside(tmp_path: Path) -> None:
    (tmp_path / "aligner").mkdir()
    aligner = CtcAligner.from_pretrained(write_tiny_aligner(tmp_path / "aligner"))
    said = "Hello, my dear old friend; 你好 — how are you?"

    result = transcribe(tmp_path, ScriptedThinker(lambda chat: said), tones((0, 70), seconds=70.003), aligner=aligner)

    words, segments, seconds = times_of(result)
    assert [word.text for word in words] == split_words(said) * 2
    assert all(one.start <= one.end <= after.start for one, after in pairwise(words))
    assert words[-1].end <= seconds == 70.003
    assert segments
