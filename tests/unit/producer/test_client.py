"""From a call to its job record, and from a result record to what users hold."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import soundfile
from omnifleet import (
    AudioResult,
    Client,
    DeadlineExceeded,
    HeardSegment,
    InvalidJob,
    InvalidSetting,
    JobFailed,
    JobStatus,
    LanguageNotSupported,
    MediaError,
    ResultTimeout,
    StorageRefused,
    UnknownJob,
    UnknownTask,
)
from omnifleet.results.results import Audio
from omnifleet.testing import FakeClient, FakeFleet
from omnifleet.testing.storage import MemoryStorage
from omnifleet_shared.schema.results import Artifact, EditedSpan, EditPlan
from omnifleet_shared.schema.tasks import SpeechEdit, StyleTransfer, Timestamps
from omnifleet_shared.settings import FleetSettings

SOUND = b"RIFF and so on"


@pytest.fixture
def omni() -> FakeClient:
    return FakeClient()


class TestWhatIsAsked:
    @pytest.mark.parametrize("spelling", ["transcribe", "Transcribe", " TRANSCRIBE "])
    def test_a_single_word_is_a_named_task(self, omni: FakeClient, spelling: str) -> None:
        omni.understand(spelling, SOUND)

        assert omni.jobs[0].task.name == "transcribe"

    def test_a_fake_knows_whose_jobs_they_were(self, omni: FakeClient) -> None:
        mine, theirs = omni.understand("caption", SOUND), omni.of_tenant("acme").understand("caption", SOUND)

        assert omni.fleet.tenants == {theirs.id: "acme"}
        assert [job.job_id for job in omni.jobs] == [mine.id, theirs.id]

    def test_several_words_are_a_free_question(self, omni: FakeClient) -> None:
        omni.understand("What is heard?", SOUND)

        task: Any = omni.jobs[0].task
        assert (task.name, task.text) == ("question", "What is heard?")

    def test_an_unknown_word_is_refused_with_a_suggestion(self, omni: FakeClient) -> None:
        with pytest.raises(UnknownTask, match=r"Did you mean 'transcribe'.*question=") as refusal:
            omni.understand("trancribe", SOUND)

        assert refusal.value.field == "task"

    def test_a_question_of_one_word_is_asked_by_name(self, omni: FakeClient) -> None:
        omni.understand(question="Who?", audio=SOUND)

        task: Any = omni.jobs[0].task
        assert (task.name, task.text) == ("question", "Who?")

    @pytest.mark.parametrize(
        ("arguments", "field"),
        [
            ({}, "task"),
            ({"task": "  "}, "task"),
            ({"task": "caption", "question": "Who?"}, "question"),
            ({"task": "Who is it?", "text": "beside"}, "text"),
        ],
    )
    def test_nothing_or_two_things_asked_is_refused(self, omni: FakeClient, arguments: Any, field: str) -> None:
        with pytest.raises(InvalidJob) as refusal:
            omni.understand(**arguments, audio=SOUND)

        assert refusal.value.field == field

    def test_audio_and_video_may_be_lists(self, omni: FakeClient) -> None:
        omni.understand("caption", [SOUND, b"another"], video=b"frames", max_new_tokens=7, temperature=0.5)

        job: Any = omni.jobs[0]
        assert (len(job.task.audio), len(job.task.video)) == (2, 1)
        assert (job.task.max_new_tokens, job.temperature) == (7, 0.5)


class TestOptions:
    def test_what_is_not_given_is_left_to_the_contract(self, omni: FakeClient) -> None:
        omni.generate("t2a", "rain", steps=None)
        omni.edit("Add", SOUND, desc="rain")

        made, edited = omni.jobs
        assert (made.steps, made.guidance, made.format, made.priority) == (100, 7.0, "wav", "interactive")
        assert (edited.guidance, edited.deadline) == (6.0, None)

    def test_what_is_given_is_in_the_record(self, omni: FakeClient) -> None:
        omni.generate(
            *("text-to-speech", "Hello"),
            ref=SOUND,
            ref_text="So on",
            steps=4,
            guidance=2,
            seed=9,
            format="ogg",
            priority="batch",
            language="en-US",
        )

        job: Any = omni.jobs[0]
        assert (job.task.name, job.task.ref_text, job.steps, job.guidance) == ("tts", "So on", 4, 2.0)
        assert (job.seed, job.format, job.priority, job.language) == (9, "ogg", "batch", "en")

    @pytest.mark.parametrize(
        ("call", "field"),
        [
            (lambda omni: omni.understand("caption", SOUND, steps=5), "steps"),
            (lambda omni: omni.generate("t2a", "rain", temperature=1), "temperature"),
            (lambda omni: omni.edit("add", SOUND, desc="rain", seconds=5), "seconds"),
            (lambda omni: omni.generate("t2a", "rain", speed=2), "speed"),
            (lambda omni: omni.edit("add", SOUND, desc="rain", source="dog"), "source"),
        ],
    )
    def test_an_option_of_another_namespace_or_task_is_refused_by_name(self, call: Any, field: str) -> None:
        with pytest.raises(InvalidJob, match=f"takes no {field}") as refusal:
            call(FakeClient())

        assert refusal.value.field == field

    def test_a_task_of_another_namespace_is_refused_with_its_home(self, omni: FakeClient) -> None:
        with pytest.raises(UnknownTask, match="It is a task of generate"):
            omni.edit("tts", SOUND)

    def test_what_the_model_cannot_do_is_refused_early(self, omni: FakeClient) -> None:
        with pytest.raises(LanguageNotSupported):
            omni.generate("tts", "Hello", language="ru")


class TestDeadline:
    @pytest.mark.parametrize("deadline", [60, 60.0, timedelta(minutes=1), "a moment"])
    def test_it_is_a_span_from_now_or_a_moment(self, omni: FakeClient, deadline: Any) -> None:
        # A moment is made here: the parameters are made when tests are collected.
        moment_or_span = datetime.now(UTC) + timedelta(minutes=1) if deadline == "a moment" else deadline

        omni.generate("t2a", "rain", deadline=moment_or_span)

        moment = omni.jobs[0].deadline
        assert moment is not None
        assert abs((moment - datetime.now(UTC)).total_seconds() - 60) < 30

    @pytest.mark.parametrize(
        "deadline",
        [0, -1, float("-inf"), float("nan"), float("inf"), "tomorrow", True, datetime.now(), datetime.now(UTC)],
    )
    def test_no_time_zone_the_past_and_nonsense_are_refused(self, omni: FakeClient, deadline: Any) -> None:
        with pytest.raises(InvalidJob) as refusal:
            omni.generate("t2a", "rain", deadline=deadline)

        assert refusal.value.field == "deadline"

    def test_a_job_that_starts_after_it_fails(self, omni: FakeClient) -> None:
        omni.fleet.hold()
        job = omni.generate("t2a", "rain", deadline=0.01)
        threading.Event().wait(0.02)
        omni.fleet.release()

        with pytest.raises(DeadlineExceeded):
            job.result()


class TestHandle:
    def test_the_result_of_a_text_task_is_a_text(self, omni: FakeClient, tmp_path: Path) -> None:
        job = omni.understand("transcribe", SOUND)
        result = job.result()

        assert result.text == "A fake answer to transcribe."
        assert result.audio is None
        assert job.save(tmp_path / "call.txt").read_text() == result.text
        assert (result.job_id, result.attempts, result.model.name) == (job.id, 1, "audio-omni")

    def test_a_job_is_found_again_by_its_id(self, omni: FakeClient) -> None:
        job = omni.understand("caption", SOUND)

        with FakeClient(fleet=omni.fleet) as other:
            assert other.job(job.id).result().text == "A fake answer to caption."

    def test_waiting_ends_and_the_job_goes_on(self, omni: FakeClient) -> None:
        omni.fleet.hold()
        job = omni.understand("caption", SOUND)

        with pytest.raises(ResultTimeout) as over:
            job.result(timeout=0.01)
        omni.fleet.release()

        assert over.value.details == {"job_id": job.id, "status": "queued"}
        assert isinstance(over.value, TimeoutError)
        assert job.status() is JobStatus.SUCCEEDED

    def test_an_unknown_id_is_told_at_first_use(self, omni: FakeClient) -> None:
        job = omni.job("never-sent")

        for use in (job.status, job.progress, job.cancel, job.result):
            with pytest.raises(UnknownJob):
                use()

    def test_a_failure_is_raised_as_itself_to_everyone_who_asks(self) -> None:
        job = FakeClient(lambda job: JobFailed("it broke", details={"type": "KeyError"})).generate("t2a", "rain")

        errors = []
        for _ in range(2):
            with pytest.raises(JobFailed) as failure:
                job.result()
            errors.append(failure.value)

        assert errors[0] is not errors[1]
        assert errors[0].details == {"type": "KeyError"}


class TestAudio:
    @pytest.fixture
    def result(self, omni: FakeClient) -> AudioResult:
        return omni.generate("t2a", "rain", seconds=0.5, format="flac").result()

    def test_its_own_suffix_writes_the_bytes_as_they_are(self, result: AudioResult, tmp_path: Path) -> None:
        path = result.audio.save(tmp_path / "rain.FLAC")

        assert path.read_bytes() == result.audio.read()
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize("suffix", ["wav", "mp3", "ogg"])
    def test_another_suffix_converts(self, result: AudioResult, tmp_path: Path, suffix: str) -> None:
        path = result.audio.save(tmp_path / f"rain.{suffix}")

        info = soundfile.info(path)
        assert (info.format.lower(), info.samplerate) == (suffix, 44_100)
        assert info.duration == pytest.approx(0.5, abs=0.06)

    def test_no_suffix_is_completed(self, result: AudioResult, tmp_path: Path) -> None:
        assert result.save(str(tmp_path / "rain")) == tmp_path / "rain.flac"

    def test_another_suffix_or_a_folder_is_refused(self, result: AudioResult, tmp_path: Path) -> None:
        for path in (tmp_path / "rain.docx", tmp_path):
            with pytest.raises(InvalidJob) as refusal:
                result.audio.save(path)
            assert refusal.value.field == "path"

    def test_its_facts_and_link_are_at_hand(self, result: AudioResult) -> None:
        audio = result.audio

        assert (audio.format, audio.sample_rate, audio.channels, audio.seconds) == ("flac", 44_100, 1, 0.5)
        assert audio.bytes == len(audio.read())
        assert audio.url.endswith("?expires=86400")

    def test_other_bytes_than_the_job_made_are_refused(self, omni: FakeClient, result: AudioResult) -> None:
        key = omni.fleet.storage.key(result.audio.uri)
        omni.fleet.storage.objects[key] = b"x" * result.audio.bytes

        with pytest.raises(MediaError, match="not what the job made"):
            result.audio.read()


class TestVideo:
    FILM = b"ftyp and so on"

    @pytest.fixture
    def result(self, omni: FakeClient) -> AudioResult:
        return omni.generate("v2a", video=self.FILM, mux=True).result()

    def test_it_comes_beside_the_audio(self, omni: FakeClient, result: AudioResult) -> None:
        video = result.video

        assert video is not None
        assert (video.read(), video.bytes, video.format) == (self.FILM, len(self.FILM), "mp4")
        assert video.url.endswith("?expires=86400")
        assert result.audio.format == "wav"
        assert omni.jobs[0].model_dump()["task"]["mux"] is True

    def test_its_suffix_must_be_its_own(self, result: AudioResult, tmp_path: Path) -> None:
        video = result.video
        assert video is not None

        assert video.save(tmp_path / "film.MP4").read_bytes() == self.FILM
        assert video.save(tmp_path / "other") == tmp_path / "other.mp4"
        for path in (tmp_path / "film.webm", tmp_path / "film.wav"):
            with pytest.raises(InvalidJob, match="not converted") as refusal:
                video.save(path)
            assert refusal.value.field == "path"

    def test_the_results_suffix_decides_which_of_the_two_is_written(self, result: AudioResult, tmp_path: Path) -> None:
        assert result.save(tmp_path / "film.mp4").read_bytes() == self.FILM
        assert soundfile.info(result.save(tmp_path / "rain.flac")).format == "FLAC"

    def test_other_bytes_than_the_job_made_are_refused(self, omni: FakeClient, result: AudioResult) -> None:
        assert result.video is not None
        omni.fleet.storage.objects[omni.fleet.storage.key(result.video.uri)] = b"x" * len(self.FILM)

        with pytest.raises(MediaError) as refusal:
            result.video.read()
        assert refusal.value.field == "video"

    @pytest.mark.parametrize("mux", [None, False])
    def test_without_mux_there_is_none(self, omni: FakeClient, mux: bool | None) -> None:
        assert omni.generate("v2m", video=self.FILM, mux=mux).result().video is None
        assert omni.understand("caption", SOUND).result().video is None

    def test_sound_without_a_video_takes_no_mux(self, omni: FakeClient) -> None:
        with pytest.raises(InvalidJob, match="takes no mux"):
            omni.generate("t2a", "rain", mux=True)


class TestAudioWithoutAccessToTheStorage:
    def test_the_workers_link_is_used(self, omni: FakeClient) -> None:
        made = omni.generate("t2a", "rain", seconds=0.1).result()
        with web_server(made.audio.read()) as url:
            audio = foreign(made.record.artifact, url)

            assert audio.url == url
            assert audio.read() == made.audio.read()

    def test_an_expired_link_and_one_that_is_none_are_told(self, omni: FakeClient) -> None:
        made = omni.generate("t2a", "rain", seconds=0.1).result()

        with web_server(None) as url, pytest.raises(StorageRefused, match="Links expire"):
            foreign(made.record.artifact, url).read()
        with pytest.raises(StorageRefused, match="OMNIFLEET_STORAGE"):
            foreign(made.record.artifact, "file:///etc/passwd").read()


class TestSettings:
    def test_arguments_win_over_settings_and_settings_over_the_environment(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("OMNIFLEET_URL_LIFETIME", "60")
        settings = FleetSettings(queue="one", redis_timeout=1)

        client = Client(settings, queue="two", storage=f"file://{tmp_path}", transport=FakeFleet())

        assert (client._settings.queue, client._settings.redis_timeout, client._settings.url_lifetime) == ("two", 1, 60)

    @pytest.mark.parametrize("overrides", [{"storage": "ftp://x"}, {"redis_url": "nonsense"}])
    def test_what_does_not_parse_names_its_variable(self, overrides: Any) -> None:
        with pytest.raises(InvalidSetting, match=f"OMNIFLEET_{next(iter(overrides)).upper()}"):
            Client(**overrides)


def foreign(artifact: Artifact | None, url: str) -> Audio:
    assert artifact is not None
    elsewhere = artifact.model_copy(update={"uri": "s3://elsewhere/rain.wav", "url": url})
    return Audio(elsewhere, MemoryStorage(), 60)


@contextmanager
def web_server(body: bytes | None) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if body else 403)
            self.end_headers()
            self.wfile.write(body or b"expired")

        def log_message(self, *args: Any) -> None:
            """Quiet."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/rain.wav"
        finally:
            server.shutdown()
            thread.join()


def test_the_fake_makes_audio_that_decodes() -> None:
    data = FakeClient().edit("remove", SOUND, desc="dog").result().audio.read()

    assert soundfile.info(io.BytesIO(data)).duration == 1.0


class TestLoudnessAndChannels:
    def test_by_default_an_edit_is_what_every_release_takes(self, omni: FakeClient) -> None:
        omni.edit("Add", SOUND, desc="rain", loudness="source", channels=2)

        assert omni.jobs[-1].schema_version == 1

    def test_others_are_passed_on(self, omni: FakeClient) -> None:
        omni.edit("Style", SOUND, source="dog", target="cat", loudness="peak", channels=1)

        task = omni.jobs[-1].task
        assert isinstance(task, StyleTransfer)
        assert (task.loudness, task.channels, omni.jobs[-1].schema_version) == ("peak", 1, 7)

    def test_edits_of_words_have_none(self, omni: FakeClient) -> None:
        with pytest.raises(InvalidJob, match="speech takes no channels"):
            omni.edit("Speech", SOUND, desc="delete 'a'", channels=1)


class TestDryRun:
    def test_it_is_a_job_whose_result_is_a_plan(self, omni: FakeClient) -> None:
        result = omni.edit("Speech", SOUND, desc="replace 'hello' with 'goodbye'", dry_run=True).result()

        assert isinstance(omni.jobs[-1].task, SpeechEdit) and omni.jobs[-1].task.dry_run
        assert omni.jobs[-1].schema_version == 4  # of the first that has it
        assert result.plan is not None
        assert result.text == "Hello world"
        assert [(edit.old, edit.new) for edit in result.plan.edits] == [("Hello", "Goodbye")]

    def test_a_test_may_give_the_plan(self) -> None:
        plan = EditPlan(words=(), edits=())
        omni = FakeClient(answer=lambda job: plan)

        assert omni.edit("Speech", SOUND, desc="delete 'a'", dry_run=True).result().plan == plan
        with pytest.raises(TypeError, match="use EditPlan"):
            FakeClient(answer=lambda job: "text").edit("Speech", SOUND, desc="delete 'a'", dry_run=True)

    def test_without_one_a_job_is_as_ever(self, omni: FakeClient) -> None:
        result = omni.edit("Speech", SOUND, desc="delete 'a'", dry_run=False).result()

        assert (result.plan, omni.jobs[-1].schema_version) == (None, 1)

    def test_other_tasks_have_none(self, omni: FakeClient) -> None:
        with pytest.raises(InvalidJob, match="add takes no dry_run") as caught:
            omni.edit("Add", SOUND, desc="rain", dry_run=True)

        assert caught.value.field == "dry_run"
        assert omni.edit("Add", SOUND, desc="rain", dry_run=False).result().audio

    def test_the_command_that_is_read_from_a_list_has_one_too(self, omni: FakeClient) -> None:
        line = {"task": "edit.speech", "audio": SOUND, "desc": "delete 'a'", "dry_run": True}

        (outcome,) = omni.batch([line])

        assert outcome.result.plan is not None


def test_edited_spans_are_at_hand_where_words_were_edited(omni: FakeClient) -> None:
    made = omni.edit("add", SOUND, desc="rain").result()
    span = EditedSpan(start=1, end=2, source_start=1, source_end=1.5, old="hello", new="goodbye")
    edited = AudioResult(made.record.model_copy(update={"edits": (span,)}), made.audio)

    assert (made.edits, edited.edits) == (None, (span,))


class TestTimestamps:
    @pytest.mark.parametrize("timestamps", ["word", "segment"])
    def test_a_transcript_has_the_times_that_were_asked_for(self, timestamps: Timestamps) -> None:
        omni = FakeClient(answer=lambda job: "Hello big world")

        result = omni.understand("transcribe", SOUND, timestamps=timestamps).result()

        assert result.segments == (HeardSegment(text="Hello big world", start=0, end=1.5),)
        assert [word.text for word in result.words or ()] == (["Hello", "big", "world"] if timestamps == "word" else [])
        assert omni.jobs[-1].schema_version == 5

    def test_without_them_a_job_is_as_ever(self, omni: FakeClient) -> None:
        result = omni.understand("transcribe", SOUND).result()

        assert (result.words, result.segments, omni.jobs[-1].schema_version) == (None, None, 1)

    @pytest.mark.parametrize(
        ("task", "audio"), [("caption", SOUND), ("Who speaks?", SOUND), ("transcribe", [SOUND, b"another"])]
    )
    def test_they_are_of_the_transcript_of_one_recording(self, omni: FakeClient, task: str, audio: Any) -> None:
        with pytest.raises(InvalidJob) as refused:
            omni.understand(task, audio, timestamps="word")

        assert refused.value.field == "timestamps"
        assert omni.fleet.storage.objects == {}  # type: ignore[attr-defined]

    def test_a_batch_has_them_too(self, omni: FakeClient) -> None:
        (outcome,) = omni.batch([{"task": "understand.transcribe", "audio": SOUND, "timestamps": "segment"}])

        assert outcome.result.segments is not None


class TestSpan:
    @pytest.mark.parametrize("span", [(1.5, 2.75), "1.5-2.75"])
    def test_the_words_to_change_may_be_named_by_their_seconds(self, omni: FakeClient, span: Any) -> None:
        assert omni.edit("Speech", SOUND, span=span, text="goodbye").result().audio

        task: Any = omni.jobs[-1].task
        assert (task.span, task.text, task.desc, omni.jobs[-1].schema_version) == ((1.5, 2.75), "goodbye", None, 5)

    @pytest.mark.parametrize("span", ["soon", "1.5", "1-2-3", "2-1", "nan-1"])
    def test_what_is_no_span_is_refused(self, omni: FakeClient, span: str) -> None:
        with pytest.raises(InvalidJob) as refused:
            omni.edit("Speech", SOUND, span=span)

        assert (refused.value.field or "").startswith("span")

    def test_other_tasks_have_none(self, omni: FakeClient) -> None:
        with pytest.raises(InvalidJob, match="add takes no span"):
            omni.edit("Add", SOUND, desc="rain", span=(1, 2))
