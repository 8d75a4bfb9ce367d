"""Words of a recording edited, from the file in storage to the file in storage, on the tiny checkpoint.

The thinker's answers and the words' places are scripted: random weights hear nothing.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from omnifleet_shared.errors import (
    EditAmbiguous,
    InvalidJob,
    LanguageNotSupported,
    MediaTooLong,
    OmnifleetError,
    TaskNotSupported,
)
from omnifleet_shared.keys import JOB_SCHEMA_VERSION
from omnifleet_shared.schema.jobs import read_job
from omnifleet_shared.schema.results import EditedSpan, JobResult, read_result
from omnifleet_shared.storage.folder import FolderStorage
from omnifleet_worker.engine.engine import Engine
from omnifleet_worker.engine.limits import EngineLimits
from omnifleet_worker.engine.model_runner import AudioOmniRunner
from omnifleet_worker.engine.request import DiffusionInputs, Inpainting, Request
from omnifleet_worker.jobs.job_context import JobContext
from omnifleet_worker.jobs.runner import JobRunner
from omnifleet_worker.jobs.speech_edit.words import Word, split_words
from omnifleet_worker.jobs.tasks import OmniModel
from omnifleet_worker.model_loader import describe
from omnifleet_worker.models.audio_omni.chat import Chat
from omnifleet_worker.models.audio_omni.sampling import CLIP_SAMPLES, prepare_latents
from omnifleet_worker.models.audio_omni.tiny import tiny_pipeline
from omnifleet_worker.settings import WorkerSettings
from support.data import media_files
from support.data.aligner_folder import write_tiny_aligner

HEARD = "Well, hello my dear old friend, how are you?"
WORD_SECONDS, PAUSE_SECONDS, LEAD_SECONDS = 0.3, 0.06, 0.2


class ScriptedAligner:
    """Says that the words come at an even pace."""

    def align(self, wave: np.ndarray, transcript: str) -> list[Word]:
        assert wave.dtype == np.float32 and wave.ndim == 1
        step = WORD_SECONDS + PAUSE_SECONDS
        starts = [LEAD_SECONDS + number * step for number in range(len(split_words(transcript)))]
        return [Word(text, at, at + WORD_SECONDS) for text, at in zip(split_words(transcript), starts, strict=True)]


class ScriptedRun(JobContext):
    """Answers the thinker's questions from a list."""

    answers: list[str]
    asked: list[Chat]

    def ask(self, chat: Chat, max_new_tokens: int = 512) -> str:
        self.asked.append(chat)
        return self.answers.pop(0)


@pytest.fixture(scope="module")
def runner() -> AudioOmniRunner:
    return AudioOmniRunner(tiny_pipeline())


@pytest.fixture(scope="module")
def engine(runner: AudioOmniRunner) -> Iterator[Engine]:
    engine = Engine(runner, EngineLimits(clips=4, chats=4))
    engine.start()
    yield engine
    engine.stop()


@pytest.fixture(scope="module")
def model(runner: AudioOmniRunner) -> OmniModel:
    return replace(describe(runner.pipeline), aligner=ScriptedAligner())


Edit = Callable[..., tuple[JobResult, np.ndarray]]


@pytest.fixture
def edit(tmp_path: Path, engine: Engine, model: OmniModel) -> Edit:
    """Edit a file; the result and its samples [n, channels] as float64, which holds every format's values."""
    storage = FolderStorage(tmp_path)

    def run(
        data: bytes,
        desc: str | None,
        *answers: str,
        model: OmniModel = model,
        dry_run: bool = False,
        span: tuple[float, float] | None = None,
        text: str | None = None,
        **fields: Any,
    ) -> tuple[JobResult, np.ndarray]:
        media = storage.put_input(storage.describe_input(io.BytesIO(data)), io.BytesIO(data))
        task = {"name": "speech", "audio": media.model_dump(), "desc": desc, "dry_run": dry_run}
        task |= {"span": span, "text": text}
        version = JOB_SCHEMA_VERSION if dry_run or span else 1
        message = {"schema_version": version, "namespace": "edit", "steps": 2, "guidance": 2, "seed": 5, "task": task}
        job_run = ScriptedRun(read_job(message | fields), engine)
        job_run.answers, job_run.asked = list(answers or [HEARD]), []
        result = JobRunner(model, storage, WorkerSettings()).run(job_run)
        assert not job_run.answers
        if dry_run:
            assert not list(tmp_path.glob("results/**/*"))
            return result, np.zeros((0, 1))
        assert result.artifact is not None
        stored = storage.get(result.artifact.uri, max_bytes=10**8)
        return result, soundfile.read(io.BytesIO(stored), always_2d=True)[0]

    return run


def speech(format: str = "wav", rate: int = 16_000, channels: int = 1, words: int = 9, lead: float = 0.0) -> bytes:
    """A recording in which a tone sounds for each word, with some noise that no two samples share."""
    seconds = LEAD_SECONDS + words * (WORD_SECONDS + PAUSE_SECONDS) + 0.2
    times = np.arange(round(seconds * rate)) / rate
    loud = (times >= LEAD_SECONDS) & ((times - LEAD_SECONDS) % (WORD_SECONDS + PAUSE_SECONDS) < WORD_SECONDS)
    tone = np.stack([np.sin(2 * np.pi * 180 * (1 + channel) * times) for channel in range(channels)])
    noise = np.random.default_rng(1).uniform(-0.01, 0.01, tone.shape)
    samples = np.concatenate([np.zeros((channels, round(lead * rate))), 0.3 * tone * loud + noise], axis=1)
    return media_files.encode(format, samples.astype(np.float32), rate)


def read(data: bytes) -> np.ndarray:
    return soundfile.read(io.BytesIO(data), always_2d=True)[0]


def spans_of(result: JobResult) -> tuple[EditedSpan, ...]:
    assert result.edits is not None
    return result.edits


def assert_rest_untouched(result: JobResult, edited: np.ndarray, source: np.ndarray) -> None:
    """Every sample outside the reported spans is the source's, bit for bit."""
    assert result.artifact is not None
    rate = result.artifact.sample_rate
    there, here = [0], [0]
    for span in spans_of(result):
        there += [round(span.source_start * rate), round(span.source_end * rate)]
        here += [round(span.start * rate), round(span.end * rate)]
    kept = list(zip(pairwise([*there, len(source)]), pairwise([*here, len(edited)]), strict=True))[::2]
    for (begin, end), (first, last) in kept:
        np.testing.assert_array_equal(edited[first:last], source[begin:end])
    assert sum(end - begin for (begin, end), _ in kept) > 0


SOURCES = [
    ("wav", 8_000, 1, "wav", "PCM_16"),
    ("wav", 44_100, 2, "flac", "PCM_16"),
    ("wav-24", 48_000, 2, "wav", "PCM_24"),
    ("flac-24", 48_000, 2, "flac", "PCM_24"),
    ("wav-float", 16_000, 1, "wav", "FLOAT"),
    ("wav-32", 22_050, 3, "wav", "PCM_32"),
    ("mp3", 44_100, 2, "wav", "FLOAT"),
]


@pytest.mark.parametrize(("source", "rate", "channels", "format", "subtype"), SOURCES)
def test_all_but_the_edited_span_is_the_sources_own(
    edit: Edit, source: str, rate: int, channels: int, format: str, subtype: str, tmp_path: Path
) -> None:
    data = speech(source, rate, channels)

    result, edited = edit(data, "replace 'dear' with 'good'", format=format)

    assert result.artifact is not None
    assert (result.artifact.sample_rate, result.artifact.channels) == (rate, channels)
    stored = Path(result.artifact.uri.removeprefix("file://")).read_bytes()
    assert soundfile.info(io.BytesIO(stored)).subtype == subtype
    original = read(data)
    assert edited.shape == original.shape
    if source != "mp3":  # libsndfile and libav decode mp3 differently; what counts is what the worker decoded
        assert_rest_untouched(result, edited, original)
    assert not np.array_equal(edited, original)


@pytest.mark.parametrize(
    ("source", "rate", "channels", "format"),
    [
        *[("wav", 384_000, 1, "ogg"), ("wav", 96_000, 2, "mp3"), ("wav", 44_100, 3, "mp3")],
        *[
            ("m4a", 96_000, 2, "mp3"),
            ("webm", 48_000, 6, "mp3"),
            ("aiff", 47_999, 1, "mp3"),
            ("caf", 192_001, 1, "flac"),
        ],
    ],
)
def test_what_the_format_cannot_hold_is_refused_before_the_model_is_asked(
    edit: Edit, source: str, rate: int, channels: int, format: str
) -> None:
    with pytest.raises(InvalidJob, match=f"{format} cannot hold") as refused:
        edit(speech(source, rate, channels), "replace 'dear' with 'good'", "never asked", format=format)

    assert refused.value.field == "format"


@pytest.mark.parametrize(
    ("source", "format", "said"),
    [("wav-float", "flac", "floating-point"), ("wav-32", "flac", "32-bit"), ("flac-24", "flac", None),
     ("wav-float", "wav", None), ("mp3", "flac", None), ("wav-float", "ogg", None)],
)  # fmt: skip
def test_depth_that_is_lost_is_said(edit: Edit, source: str, format: str, said: str | None) -> None:
    result, _ = edit(speech(source, 44_100), "replace 'dear' with 'good'", format=format)

    assert [said in warning for warning in result.warnings] == ([True] if said else [])


def test_a_recording_above_full_scale_is_not_cut_off(edit: Edit) -> None:
    loud = media_files.encode("wav-float", read(speech()).T.astype(np.float32) * 5, 16_000)

    with pytest.raises(InvalidJob, match="full scale"):
        edit(loud, "replace 'dear' with 'good'", "never asked", format="flac")


def test_new_words_of_the_same_length_take_the_old_ones_time(edit: Edit) -> None:
    data = speech()

    result, edited = edit(data, "replace 'dear' with 'good'")

    (span,) = spans_of(result)
    assert (span.old, span.new) == ("dear", "good")
    start, end = LEAD_SECONDS + 3 * 0.36, LEAD_SECONDS + 3 * 0.36 + WORD_SECONDS
    assert start - 0.09 < span.start == span.source_start < start
    assert end < span.end == span.source_end < end + 0.09
    assert_rest_untouched(result, edited, read(data))
    assert read_result(result.model_dump(mode="json")) == result


def test_new_material_is_as_loud_as_what_is_around_it(edit: Edit) -> None:
    data = speech(channels=2)
    source = read(data) * [1.0, 0.1]
    file = io.BytesIO()
    soundfile.write(file, source, 16_000, format="WAV", subtype="PCM_16")

    result, edited = edit(file.getvalue(), "replace 'dear' with 'good'")

    (span,) = spans_of(result)
    new = edited[round(span.start * 16_000) : round(span.end * 16_000)]
    level, around = (np.sqrt(np.square(samples).mean(axis=0)) for samples in (new, source))
    assert (np.abs(20 * np.log10(level / around)) < 9).all()


def test_longer_words_make_it_longer_and_all_after_them_moves(edit: Edit) -> None:
    data = speech(rate=48_000, channels=2)

    result, edited = edit(data, "replace 'dear' with 'wonderful incomparable'")

    (span,) = spans_of(result)
    assert span.end - span.start > span.source_end - span.source_start + 0.2
    assert len(edited) > len(read(data))
    assert_rest_untouched(result, edited, read(data))


def test_deleted_words_are_gone_with_one_of_their_pauses(edit: Edit) -> None:
    data = speech()

    result, edited = edit(data, "delete 'dear old'")

    (span,) = spans_of(result)
    assert (span.old, span.new) == ("dear old", "")
    assert (len(read(data)) - len(edited)) / 16_000 == pytest.approx(2 * (WORD_SECONDS + PAUSE_SECONDS), abs=0.05)
    assert span.end - span.start == pytest.approx(0.02, abs=0.001)
    assert_rest_untouched(result, edited, read(data))


@pytest.mark.parametrize(
    "desc", ["insert 'so' before 'well'", "insert 'today' after 'you'", "insert 'sweet' after 'my'"]
)
def test_inserted_words_take_nothing_away(edit: Edit, desc: str) -> None:
    data = speech()

    result, edited = edit(data, desc)

    (span,) = spans_of(result)
    assert span.old == ""
    assert span.source_end - span.source_start < 0.07
    assert len(edited) > len(read(data)) + 0.05 * 16_000
    assert_rest_untouched(result, edited, read(data))


def test_several_edits_at_once(edit: Edit) -> None:
    data = speech()

    result, edited = edit(data, "replace 'hello' with 'good evening'; delete 'old' and insert 'now' after 'are'")

    assert [(span.old, span.new) for span in spans_of(result)] == [
        ("hello", "good evening"),
        ("old", ""),
        ("", "now"),
    ]
    assert_rest_untouched(result, edited, read(data))


@pytest.mark.parametrize(
    "desc", ["Well, hello my good old friend, where are you?", "say 'well hello my good old friend where are you'"]
)
def test_a_plain_new_transcript_changes_what_differs(edit: Edit, desc: str) -> None:
    data = speech()

    result, edited = edit(data, desc)

    assert [(span.old, span.new) for span in spans_of(result)] == [("dear", "good"), ("how", "where")]
    assert_rest_untouched(result, edited, read(data))


def test_free_phrasing_goes_to_the_thinker(edit: Edit) -> None:
    data = speech()

    result, _ = edit(data, "he should greet an enemy", HEARD, 'So:\n{"do": "replace", "old": "friend", "new": "enemy"}')

    assert [(span.old, span.new) for span in spans_of(result)] == [("friend,", "enemy")]


def test_the_only_word_is_replaced_in_its_own_voice(edit: Edit) -> None:
    data = speech(words=1)

    result, edited = edit(data, "replace 'hello' with 'goodbye'", "Hello!")

    assert [(span.old, span.new) for span in spans_of(result)] == [("Hello!", "goodbye")]
    assert_rest_untouched(result, edited, read(data))


def test_a_recogniser_of_the_settings_finds_the_words(edit: Edit, runner: AudioOmniRunner, tmp_path: Path) -> None:
    data, folder = speech(), tmp_path / "aligner"
    folder.mkdir()
    model = describe(runner.pipeline, write_tiny_aligner(folder))

    result, edited = edit(data, "replace 'dear' with 'good' and delete 'are'", model=model)

    assert [(span.old, span.new) for span in spans_of(result)] == [("dear", "good"), ("are", "")]
    assert_rest_untouched(result, edited, read(data))


def test_of_a_minute_only_the_window_around_the_edit_goes_to_the_model(edit: Edit) -> None:
    data, heard = speech(words=160), " ".join(f"word{number}" for number in range(160))

    result, edited = edit(data, "replace 'word100' with 'name100'", heard)

    (span,) = spans_of(result)
    assert span.start == pytest.approx(LEAD_SECONDS + 36, abs=0.1)
    assert_rest_untouched(result, edited, read(data))


@pytest.mark.parametrize("format", ["mp3", "ogg"])
def test_lossy_results_have_the_sources_rate_and_channels(edit: Edit, format: str) -> None:
    result, edited = edit(speech(rate=16_000, channels=2), "delete 'old'", format=format)

    assert result.artifact is not None
    assert (result.artifact.format, result.artifact.sample_rate, edited.shape[1]) == (format, 16_000, 2)


def test_one_seed_gives_one_result(edit: Edit) -> None:
    one, same, other = (edit(speech(), "replace 'dear' with 'good'", seed=seed)[1] for seed in (1, 1, 2))

    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_a_count_of_the_request_reaches_the_thinkers_answer(edit: Edit) -> None:
    heard = "um hello um my um friend"

    result, _ = edit(speech(words=6), "mute all of those noises", heard, '{"do": "delete", "old": "um"}')

    assert [span.old for span in spans_of(result)] == ["um", "um", "um"]


def test_a_request_with_quotes_is_not_spoken_into_the_recording(edit: Edit) -> None:
    result, _ = edit(speech(words=3), "Can you replace 'Hello big world' with 'Hi world'?", "Hello big world")

    assert [(span.old, span.new) for span in spans_of(result)] == [("Hello big world", "Hi world")]


class TestSpan:
    """`HEARD` has a word every 0.36 s from 0.2 s on, each 0.3 s long."""

    def test_the_words_in_it_are_replaced_and_all_else_stays(self, edit: Edit) -> None:
        result, edited = edit(speech(), None, span=(0.6, 1.2), text="good old")

        (span,) = spans_of(result)
        assert (span.old, span.new) == ("hello my", "good old")
        assert span.source_start <= 0.6 and span.source_end >= 1.2
        assert_rest_untouched(result, edited, read(speech()))

    def test_without_a_text_they_go(self, edit: Edit) -> None:
        result, edited = edit(speech(), None, span=(0.6, 1.2))

        assert [(span.old, span.new) for span in spans_of(result)] == [("hello my", "")]
        assert len(edited) < len(read(speech()))

    def test_it_is_planned_in_a_dry_run(self, edit: Edit) -> None:
        result, _ = edit(speech(), None, span=(0.52, 0.54), text="so", dry_run=True)

        assert result.plan is not None
        assert [(one.first, one.last, one.new) for one in result.plan.edits] == [(1, 1, "so")]

    def test_one_beyond_the_recording_is_refused_before_anything_is_heard(self, edit: Edit) -> None:
        with pytest.raises(InvalidJob, match=r"it ends at 90 s, and the recording at 3\.64 s") as refused:
            edit(speech(), None, span=(1, 90), text="so")

        assert refused.value.field == "span"

    @pytest.mark.parametrize(("text", "problem"), [("so " * 200, "can be made"), ("Ω Ψ Θ", "signs without a sound")])
    def test_what_cannot_be_said_is_an_error_of_the_text(self, edit: Edit, text: str, problem: str) -> None:
        with pytest.raises(InvalidJob, match=problem) as refused:
            edit(speech(), None, span=(0.6, 1.2), text=text)

        assert refused.value.field == "text"


class TestDryRun:
    def test_it_tells_words_times_and_what_would_change_and_makes_nothing(self, edit: Edit) -> None:
        request = "replace 'dear' with 'good' and insert 'now' after 'are'"

        result, _ = edit(speech(), request, dry_run=True)

        assert (result.artifact, result.edits, result.text) == (None, None, HEARD)
        assert result.plan is not None
        assert " ".join(word.text for word in result.plan.words) == HEARD
        assert [(word.start, word.end) for word in result.plan.words[:1]] == [pytest.approx((0.2, 0.5))]
        replaced, inserted = result.plan.edits
        assert (replaced.first, replaced.last, replaced.old, replaced.new) == (3, 4, "dear", "good")
        assert (replaced.start, replaced.end) == pytest.approx((1.28, 1.58))
        assert (inserted.first, inserted.last, inserted.old, inserted.new) == (8, 8, "", "now")
        assert inserted.start == inserted.end == pytest.approx(result.plan.words[7].end)
        assert read_result(result.model_dump(mode="json")) == result

    def test_it_plans_what_the_edit_then_does(self, edit: Edit) -> None:
        request = "replace the last word with 'they' and delete hello"

        planned, _ = edit(speech(), request, dry_run=True)
        made, _ = edit(speech(), request)

        assert planned.plan is not None
        for plan, span in zip(planned.plan.edits, spans_of(made), strict=True):
            assert (plan.old, plan.new) == (span.old, span.new)
            assert span.source_start <= plan.start and plan.end <= span.source_end

    def test_a_free_request_is_planned_by_the_thinker(self, edit: Edit) -> None:
        answer = '{"do": "replace", "old": "friend", "new": "enemy"}'

        result, _ = edit(speech(), "he should greet an enemy", HEARD, answer, dry_run=True)

        assert result.plan is not None
        assert [(edit.old, edit.new) for edit in result.plan.edits] == [("friend,", "enemy")]


class TestAmbiguous:
    def test_the_readings_are_told_with_their_times_and_nothing_is_done(self, edit: Edit) -> None:
        heard = "very old and very wise"

        with pytest.raises(EditAmbiguous) as caught:
            edit(speech(words=5), "delete 'very'", heard)

        assert caught.value.problem == "it may mean: delete 'very' at 0.20-0.50 s; or delete 'very' at 1.28-1.58 s"
        assert caught.value.field == "desc"
        assert "the first" in (caught.value.remedy or "")
        assert caught.value.details["heard"] == heard
        assert [[one["first"] for one in reading] for reading in caught.value.details["readings"]] == [[0], [3]]

    def test_words_and_a_place_of_that_name_are_told_apart(self, edit: Edit) -> None:
        with pytest.raises(EditAmbiguous, match=r"delete 'last word,' at .*; or delete 'wise' at") as caught:
            edit(speech(words=4), "delete the last word", "my last word, wise")

        assert "quotes" in (caught.value.remedy or "")

    def test_a_place_to_insert_at_is_told_by_its_neighbour(self, edit: Edit) -> None:
        with pytest.raises(EditAmbiguous, match=r"'so' after 'very' at 0\.50 s; or insert 'so' after 'very' at 1\.58"):
            edit(speech(words=5), "insert 'so' after 'very'", "very old and very wise")


REFUSED: dict[str, tuple[str, tuple[str, ...], type[OmnifleetError], str]] = {
    "a word that is not said": ("delete 'goodbye'", (HEARD,), InvalidJob, "'goodbye' is not said; heard was: Well,"),
    "nobody speaks": ("delete 'hello'", ("",), InvalidJob, "no words are heard"),
    "no request for words": ("louder, please", (HEARD, "I can't."), InvalidJob, "cannot be read"),
    "a speech": (f"insert '{'many words ' * 30}' after 'my'", (HEARD,), InvalidJob, "Say less in one place"),
    "another language": ("replace 'dear' with 'дорогой'", (HEARD,), LanguageNotSupported, "signs without a sound"),
}  # fmt: skip


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_done_is_refused_in_words(edit: Edit, case: str, dry_run: bool) -> None:
    desc, answers, error, said = REFUSED[case]

    with pytest.raises(error, match=said) as caught:
        edit(speech(), desc, *answers, dry_run=dry_run)

    assert caught.value.field in ("desc", "audio")
    assert caught.value.remedy


def test_what_was_heard_comes_with_the_error(edit: Edit) -> None:
    with pytest.raises(InvalidJob) as caught:
        edit(speech(), "delete 'goodbye'")

    assert caught.value.details["heard"] == HEARD


def test_a_worker_without_an_aligner_names_the_setting(edit: Edit, model: OmniModel) -> None:
    with pytest.raises(TaskNotSupported, match="OMNIFLEET_ALIGNER"):
        edit(speech(), "delete 'hello'", model=replace(model, aligner=None))


def test_more_than_the_thinker_can_hear_is_refused(edit: Edit) -> None:
    with pytest.raises(MediaTooLong, match="300 seconds are allowed"):
        edit(media_files.encode("flac", np.zeros((1, 301 * 8_000), np.float32), 8_000), "delete 'hello'")


def test_the_known_part_of_an_inpainted_clip_ends_as_it_was_and_its_mates_are_as_without_it(
    runner: AudioOmniRunner,
) -> None:
    source = 0.1 * media_files.tone(3.0, 44_100, 2)
    plain = DiffusionInputs(prompt=Chat(system="", user=""), steps=3, guidance=2.0, seed=3)
    inpainted = replace(plain, seed=4, inpainting=Inpainting(source=source, start=2048 * 10 + 1, end=2048 * 12))
    alone = sampled(runner, [plain])[0]

    mate, filled = sampled(runner, [plain, inpainted])

    known = runner.pipeline.encode_latents(source)
    new = torch.zeros(CLIP_SAMPLES // 2048, dtype=torch.bool)
    new[10:12] = True
    assert torch.equal(filled[:, ~new], known[:, ~new])
    assert not torch.isclose(filled[:, new], known[:, new]).any(dim=0).all()
    assert not torch.equal(filled[:, new], prepare_latents(4)[:, new])
    torch.testing.assert_close(mate, alone, rtol=1e-5, atol=1e-5)


def sampled(runner: AudioOmniRunner, inputs: list[DiffusionInputs]) -> list[torch.Tensor]:
    """The latents of clips that share every step."""
    requests = [Request(inputs=one) for one in inputs]
    for request in requests:
        runner.prepare(request)
    for _ in range(inputs[0].steps):
        runner.advance(requests)
    latents = [runner._clips[request].latents for request in requests]
    for request in requests:
        runner.release(request)
    return latents
