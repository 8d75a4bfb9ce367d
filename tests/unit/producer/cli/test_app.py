"""The command line, against the fake."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import soundfile
from omnifleet import (
    Client,
    EngineStopped,
    InvalidJob,
    JobCancelled,
    JobFailed,
    MediaTooLong,
    OmnifleetError,
    QueueFull,
    QuotaExceeded,
    StorageUnavailable,
)
from omnifleet.cli import app
from omnifleet.cli.outputs.standard_output import StandardOutput
from omnifleet.handle import JobHandle
from omnifleet.testing import FakeClient
from omnifleet_shared.schema.results import EditPlan, PlannedEdit
from omnifleet_shared.schema.tasks import DescribedEdit
from omnifleet_shared.schema.transcript import HeardWord
from support import services
from typer.testing import CliRunner, Result


@pytest.fixture
def omni() -> FakeClient:
    return FakeClient()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with recordings in it."""
    monkeypatch.chdir(tmp_path)
    for name in ("street.wav", "call.mp3", "voice.wav", "clip.mp4"):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def run(omni: Client, *arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, obj=omni)


def test_edit_writes_the_format_that_the_output_asks_for(omni: FakeClient, here: Path) -> None:
    done = run(
        omni, "edit", "Add", "street.wav", "--desc", "rain sounds", "-o", "out.flac", "--steps", "4", "--seed", "9"
    )

    job: Any = omni.jobs[0]
    assert (done.exit_code, done.stdout) == (0, "out.flac\n")
    assert soundfile.info("out.flac").format == "FLAC"
    assert (job.task.name, job.task.desc, job.format, job.steps, job.seed) == ("add", "rain sounds", "flac", 4, 9)


def test_an_edit_may_be_mono_and_as_loud_as_the_published_model(omni: FakeClient, here: Path) -> None:
    done = run(
        omni, "edit", "Add", "street.wav", "--desc", "rain", "--loudness", "peak", "--channels", "1", "-o", "a.wav"
    )

    (job,) = omni.jobs
    assert done.exit_code == 0
    assert isinstance(job.task, DescribedEdit)
    assert (job.task.loudness, job.task.channels) == ("peak", 1)


def test_a_dry_run_shows_words_and_times_and_what_would_change(omni: FakeClient, here: Path) -> None:
    wish = ("edit", "Speech", "voice.wav", "--desc", "replace 'hello' with 'goodbye'", "--dry-run")

    done, as_json = run(omni, *wish), run(omni, *wish, "--json")

    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "-    0.00    0.40  Hello",
        "+                  Goodbye",
        "     0.50    1.00  world",
    ]
    assert json.loads(as_json.stdout)["plan"]["edits"][0]["new"] == "Goodbye"


@pytest.mark.parametrize("words", ["", "+                  so\n"])
def test_what_would_be_said_at_the_end_comes_last(here: Path, words: str) -> None:
    heard = (HeardWord(text="Hello", start=0.0, end=0.4),)
    edit = PlannedEdit(first=1, last=1, start=0.4, end=0.4, old="", new="so")
    omni = FakeClient(answer=lambda job: EditPlan(words=heard, edits=(edit,) if words else ()))

    done = run(omni, "edit", "Speech", "voice.wav", "--desc", "add 'so' at the end", "--dry-run")

    assert done.stdout == "     0.00    0.40  Hello\n" + words


@pytest.mark.parametrize("suffix", ["srt", "vtt", "json"])
def test_a_transcript_is_written_as_the_output_asks_for(omni: FakeClient, here: Path, suffix: str) -> None:
    begin = {"srt": "1\n00:00:00,000 --> ", "vtt": "WEBVTT\n\n1\n", "json": '{"text": "A fake answer'}

    done = run(omni, "understand", "transcribe", "call.mp3", "--timestamps", "word", "-o", f"call.{suffix}")

    assert (done.exit_code, done.stdout) == (0, f"call.{suffix}\n")
    assert Path(f"call.{suffix}").read_text().startswith(begin[suffix])


def test_segments_are_printed_with_their_times(omni: FakeClient, here: Path) -> None:
    done = run(omni, "understand", "transcribe", "call.mp3", "--timestamps", "segment")

    assert done.stdout == "     0.00      2.50  A fake answer to transcribe.\n"


def test_subtitles_without_times_are_refused_before_the_job(omni: FakeClient, here: Path) -> None:
    done = run(omni, "understand", "transcribe", "call.mp3", "-o", "call.srt")

    assert (done.exit_code, omni.jobs) == (2, [])
    assert "Add --timestamps word, or segment." in done.stderr


def test_words_to_change_are_named_by_their_seconds(omni: FakeClient, here: Path) -> None:
    done = run(omni, "edit", "Speech", "voice.wav", "--span", "1.5-2.75", "--text", "goodbye", "-o", "out.wav")

    job: Any = omni.jobs[0]
    assert done.exit_code == 0, done.output
    assert (job.task.span, job.task.text) == ((1.5, 2.75), "goodbye")


def test_understand_prints_the_text_alone(omni: FakeClient, here: Path) -> None:
    done = run(omni, "understand", "transcribe", "call.mp3")

    assert (done.exit_code, done.stdout) == (0, "A fake answer to transcribe.\n")


def test_a_question_may_be_about_several_files(omni: FakeClient, here: Path) -> None:
    done = run(omni, "understand", "What is heard?", "street.wav", "call.mp3", "--video", "clip.mp4")

    task: Any = omni.jobs[0].task
    assert done.exit_code == 0
    assert (task.name, len(task.audio), len(task.video)) == ("question", 2, 1)


def test_generate_prints_where_the_audio_is(omni: FakeClient, here: Path) -> None:
    done = run(omni, "generate", "tts", "Hello", "--ref", "voice.wav", "--format", "mp3", "--deadline", "60")

    assert done.exit_code == 0
    assert done.stdout.startswith("https://memory.invalid/results/")
    assert omni.jobs[0].deadline is not None


def test_every_option_reaches_the_job(omni: FakeClient, here: Path) -> None:
    options = {"steps": "4", "quality": "fast", "guidance": "2.5", "seed": "9"}
    options |= {"format": "ogg", "priority": "batch", "language": "en"}

    done = run(
        omni, "generate", "t2a", "rain", "--seconds", "2", *(f"--{name}={text}" for name, text in options.items())
    )

    job = omni.jobs[0].model_dump(mode="json")
    assert done.exit_code == 0
    assert {name: str(job[name]) for name in options} == options
    assert job["task"]["seconds"] == 2


@pytest.mark.parametrize("key", ["order-7", "auto"])
def test_the_same_request_under_a_key_is_one_job(omni: FakeClient, here: Path, key: str) -> None:
    ids = {
        run(omni, "generate", "t2a", "rain", "--no-wait", "--idempotency-key", key, "--seed", "9").stdout
        for _ in range(2)
    }

    assert ids == {f"{omni.jobs[0].job_id}\n"}
    assert len(omni.jobs) == 1


def test_a_film_is_written_where_its_suffix_is_asked_for(omni: FakeClient, here: Path) -> None:
    done = run(omni, "generate", "v2a", "--video", "clip.mp4", "--mux", "-o", "film.mp4", "--json")

    record = json.loads(done.stdout)
    assert (done.exit_code, record["saved"], record["artifact"]["format"]) == (0, "film.mp4", "wav")
    assert record["video"]["url"].startswith("https://memory.invalid/results/")
    assert (here / "film.mp4").read_bytes() == b"clip.mp4"


def test_without_mux_a_film_is_no_output(omni: FakeClient, here: Path) -> None:
    done = run(omni, "generate", "v2a", "--video", "clip.mp4", "-o", "film.mp4")

    assert (done.exit_code, omni.jobs) == (2, [])


def test_a_record_is_printed_as_json_of_its_own(omni: FakeClient, here: Path) -> None:
    done = run(omni, "understand", "scene", "call.mp3", "--json")

    assert json.loads(done.stdout)["answer"]["place"] == "a fake place"


def test_json_prints_the_record(omni: FakeClient, here: Path) -> None:
    done = run(omni, "generate", "t2a", "rain", "-o", "rain.wav", "--json")

    record = json.loads(done.stdout)
    assert (record["job_id"], record["saved"]) == (omni.jobs[0].job_id, "rain.wav")
    assert record["artifact"]["format"] == "wav"


def test_without_waiting_the_id_is_printed_and_leads_to_the_result(omni: FakeClient, here: Path) -> None:
    omni.fleet.hold()
    sent = run(omni, "understand", "caption", "call.mp3", "--no-wait")
    job_id = sent.stdout.strip()
    assert job_id == omni.jobs[0].job_id

    omni.fleet.advance(job_id, 37, 100, eta=4.1)
    assert run(omni, "status", job_id).stdout == "running 37/100, 4 s left\n"
    assert json.loads(run(omni, "status", job_id, "--json").stdout) == {
        "job_id": job_id,
        "status": "running",
        "progress": {"step": 37, "steps": 100, "eta": 4.1},
    }

    omni.fleet.release()
    assert run(omni, "result", job_id).stdout == "A fake answer to caption.\n"


def test_waiting_shows_progress_on_stderr(omni: FakeClient, here: Path) -> None:
    omni.fleet.hold()
    run(omni, "understand", "caption", "call.mp3", "--no-wait")
    job_id = omni.jobs[0].job_id
    omni.fleet.advance(job_id, 37, 100)

    waited = run(omni, "result", job_id, "--timeout", "0.6")

    assert waited.stdout == ""
    assert f"{job_id}: running 37/100" in waited.stderr


def test_cancel_stops_a_job_and_tells_when_there_is_nothing_to_stop(omni: FakeClient, here: Path) -> None:
    omni.fleet.hold()
    run(omni, "understand", "caption", "call.mp3", "--no-wait")
    job_id = omni.jobs[0].job_id

    assert run(omni, "cancel", job_id).exit_code == 0
    assert run(omni, "result", job_id).exit_code == 5
    assert run(omni, "cancel", job_id).stdout == f"{job_id}: cancelled\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (JobFailed("it broke"), 1),
        (EngineStopped("it stopped"), 1),
        (MediaTooLong("it is 400 s long", "audio", "Send less"), 2),
        (StorageUnavailable("it is away"), 3),
        (QueueFull("5 jobs wait", None, "Submit again in 30 s", {"retry_after": 30}), 3),
        (QuotaExceeded("used up", "tenant", "Submit again in 30 s", {"retry_after": 30}), 3),
        (JobCancelled("someone did"), 5),
    ],
)
def test_a_failed_job_is_an_exit_code_and_one_readable_line(error: OmnifleetError, code: int, here: Path) -> None:
    failed = run(FakeClient(lambda job: error), "understand", "transcribe", "call.mp3")

    assert (failed.exit_code, failed.stdout) == (code, "")
    assert failed.stderr == f"{type(error).__name__}: {error}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["understand", "transcribe", "missing.mp3"],
        ["understand", "trancribe", "call.mp3"],
        ["edit", "add", "street.wav"],
        ["edit", "add", "street.wav", "--desc", "rain", "-o", "out.docx"],
        ["edit", "add", "street.wav", "--desc", "rain", "-o", "nowhere/out.wav"],
        ["edit", "add", "street.wav", "--desc", "rain", "-o", "out.wav", "--no-wait"],
        ["edit", "speech", "street.wav", "--desc", "delete 'a'", "-o", "out.wav", "--dry-run"],
        ["generate", "t2a", "rain", "-o", "-", "--no-wait"],
        ["edit", "add", "street.wav", "--desc", "rain", "--dry-run"],
        ["generate", "t2a", "rain", "--format", "docx"],
        ["generate", "t2a", "rain", "--guidance", "-1"],
        ["status", "never-sent"],
        ["nonsense"],
    ],
)
def test_bad_input_submits_nothing_and_exits_with_2(omni: FakeClient, here: Path, arguments: list[str]) -> None:
    refused = run(omni, *arguments)

    assert (refused.exit_code, refused.stdout, omni.jobs) == (2, "", [])
    assert refused.stderr


def test_json_prints_errors_too(omni: FakeClient, here: Path) -> None:
    refused = run(omni, "understand", "transcribe", "missing.mp3", "--json")

    error = json.loads(refused.stdout)["error"]
    assert refused.exit_code == 2
    assert (error["type"], error["field"]) == ("MediaNotFound", "audio.0")
    assert "missing.mp3" in error["problem"]


def test_a_fleet_that_is_away_exits_with_3(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNIFLEET_REDIS_URL", f"redis://127.0.0.1:{services.free_port()}/0")
    monkeypatch.setenv("OMNIFLEET_STORAGE", f"file://{here}/storage")

    away = CliRunner().invoke(app, ["status", "some-job"])

    assert away.exit_code == 3
    assert "OMNIFLEET_REDIS_URL" in away.stderr


def test_a_setting_that_does_not_parse_exits_with_2(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNIFLEET_STORAGE", "ftp://somewhere")

    assert CliRunner().invoke(app, ["status", "some-job"]).exit_code == 2


def test_time_that_runs_out_exits_with_4(omni: FakeClient, here: Path) -> None:
    omni.fleet.hold()

    assert run(omni, "understand", "caption", "call.mp3", "--timeout", "0").exit_code == 4


def test_an_interrupt_leaves_the_job_running_and_tells_its_id(
    omni: FakeClient, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    omni.fleet.hold()
    monkeypatch.setattr(JobHandle, "result", interrupt)

    stopped = run(omni, "understand", "caption", "call.mp3")

    assert stopped.exit_code == 130
    assert f"omnifleet result {omni.jobs[0].job_id}" in stopped.stderr
    assert not omni.job(omni.jobs[0].job_id).status().is_final


def test_an_output_that_cannot_be_written_exits_with_2(omni: FakeClient, here: Path) -> None:
    done = run(omni, "understand", "caption", "call.mp3", "-o", f"{'long' * 100}.txt")

    assert (done.exit_code, done.stdout) == (2, "")
    assert "cannot be written" in done.stderr


class TestOutput:
    @pytest.fixture
    def taken(self, here: Path) -> Path:
        (here / "out.wav").write_bytes(b"mine")
        return here / "out.wav"

    @pytest.mark.parametrize("output", ["out.wav", "out"])
    def test_a_file_that_is_there_is_left_alone_and_nothing_is_sent(
        self, omni: FakeClient, taken: Path, output: str
    ) -> None:
        done = run(omni, "generate", "t2a", "rain", "-o", output)

        assert (done.exit_code, omni.jobs, taken.read_bytes()) == (2, [], b"mine")
        assert "--force" in done.stderr

    def test_it_is_written_over_by_force(self, omni: FakeClient, taken: Path) -> None:
        done = run(omni, "generate", "t2a", "rain", "-o", "out.wav", "--force")

        assert (done.exit_code, soundfile.info(taken).format) == (0, "WAV")

    def test_a_file_that_appears_meanwhile_is_left_alone_and_the_result_is_not_lost(self, here: Path) -> None:
        def appear(job: Any) -> None:
            (here / "out.wav").write_bytes(b"mine")

        omni = FakeClient(appear)
        done = run(omni, "generate", "t2a", "rain", "-o", "out.wav")

        assert (done.exit_code, (here / "out.wav").read_bytes()) == (2, b"mine")
        assert f"omnifleet result {omni.jobs[0].job_id} -o" in done.stderr

    @pytest.mark.parametrize(
        ("arguments", "name"),
        [
            (["edit", "Add", "street.wav", "--desc", "rain", "--format", "flac"], "add-street.flac"),
            (["generate", "t2a", "Rain on a tin roof, the neighbour's"], "t2a-Rain-on-a-tin-roof-the-neighbours.wav"),
            (["generate", "v2a", "--video", "clip.mp4", "--mux"], "v2a-clip.mp4"),
            (["understand", "transcribe", "call.mp3"], "transcribe-call.txt"),
            (["understand", "What is heard?", "call.mp3"], "answer-call.txt"),
        ],
    )
    def test_in_a_folder_it_is_named_by_task_and_input(
        self, omni: FakeClient, here: Path, arguments: list[str], name: str
    ) -> None:
        (here / "made").mkdir()

        done = run(omni, *arguments, "-o", "made")

        assert (done.exit_code, done.stdout) == (0, f"made/{name}\n")
        assert [path.name for path in (here / "made").iterdir()] == [name]


def test_a_question_may_be_a_single_word(omni: FakeClient, here: Path) -> None:
    done = run(omni, "understand", "--question", "Who?", "call.mp3", "street.wav")

    task: Any = omni.jobs[0].task
    assert (done.exit_code, task.name, task.text, len(task.audio)) == (0, "question", "Who?", 2)


def test_nothing_that_is_asked_is_refused(omni: FakeClient, here: Path) -> None:
    done = run(omni, "understand")

    assert (done.exit_code, omni.jobs) == (2, [])
    assert "nothing is asked" in done.stderr


def test_the_version_and_the_exit_codes_are_told(omni: FakeClient) -> None:
    assert run(omni, "--version").stdout.strip()
    assert "4 not done" in run(omni, "--help").stdout


def test_a_callback_is_asked_for_and_its_delivery_told() -> None:
    omni = FakeClient()
    run(omni, "generate", "t2a", "rain", "--callback", "https://hooks.example.com/x", "--no-wait")
    job = omni.jobs[0]

    assert job.callback == "https://hooks.example.com/x"
    assert run(omni, "status", job.job_id).stdout == "succeeded, callback delivered\n"
    assert json.loads(run(omni, "status", job.job_id, "--json").stdout)["callback"]["status"] == "delivered"


class TestStandardOutput:
    def test_sound_is_one_wav_file_that_begins_before_it_is_made(self, omni: FakeClient, here: Path) -> None:
        done = run(omni, "generate", "t2m", "a waltz", "--seconds", "25", "-o", "-")

        (job,) = omni.jobs
        whole, _ = soundfile.read(omni.job(job.job_id).result().save("whole.wav"), dtype="int16")
        heard, rate = soundfile.read(io.BytesIO(done.stdout_bytes), dtype="int16")
        assert (done.exit_code, rate, len(heard)) == (0, 44_100, 25 * 44_100)
        assert (heard == whole).all()
        assert done.stdout_bytes.count(b"RIFF") == 1
        assert job.model_dump()["stream"] is True

    def test_text_is_written_as_it_comes(self, omni: FakeClient, here: Path) -> None:
        done = run(omni, "understand", "caption", "call.mp3", "-o", "-")

        assert (done.exit_code, done.stdout) == (0, "A fake answer to caption.\n")
        assert omni.jobs[0].model_dump()["stream"] is True

    @pytest.mark.parametrize(
        "arguments", [["generate", "t2m", "a waltz"], ["edit", "add", "street.wav", "--desc", "x"]]
    )
    def test_what_does_not_come_in_parts_is_written_whole(
        self, omni: FakeClient, here: Path, arguments: list[str]
    ) -> None:
        done = run(omni, *arguments, "--format", "flac", "-o", "-")

        audio = omni.job(omni.jobs[0].job_id).result().audio
        assert audio is not None
        assert done.stdout_bytes == audio.read()

    def test_a_job_that_was_sent_before_is_written_too(self, omni: FakeClient, here: Path) -> None:
        job = omni.generate("t2m", "a waltz", seconds=25, stream=True)

        done = run(omni, "result", job.id, "-o", "-")

        assert soundfile.info(io.BytesIO(done.stdout_bytes)).samplerate == 44_100
        assert len(done.stdout_bytes) == 44 + 2 * 25 * 44_100

    def test_records_and_results_do_not_share_it(self, omni: FakeClient, here: Path) -> None:
        refused = run(omni, "generate", "t2a", "rain", "-o", "-", "--json")

        assert (refused.exit_code, omni.jobs) == (2, [])
        assert json.loads(refused.stdout)["error"]["field"] == "output"

    def test_sound_is_not_written_to_a_terminal(self, omni: FakeClient, here: Path, monkeypatch: Any) -> None:
        monkeypatch.setattr("omnifleet.cli.outputs.standard_output.sys.stdout.isatty", lambda: True, raising=False)
        output = StandardOutput(holds_text=False, as_json=False)
        with pytest.raises(InvalidJob, match="ffplay"):
            output.check()
