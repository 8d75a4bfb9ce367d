"""`omnifleet batch` against the fake: what is validated, refused, printed and written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from omnifleet import MediaTooLong
from omnifleet.batch.journal.lock import FileBatchLock
from omnifleet.cli import app
from omnifleet.testing import FakeClient
from typer.testing import CliRunner, Result

OUT = ("--out", "night")


@pytest.fixture
def omni() -> FakeClient:
    return FakeClient()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with two recordings in it."""
    monkeypatch.chdir(tmp_path)
    for name in ("street.wav", "call.wav"):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def batch(omni: FakeClient, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["batch", *arguments], obj=omni)


def write(name: str, text: str) -> str:
    Path(name).write_text(text)
    return name


def manifest() -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("night/manifest.jsonl").read_text().splitlines()]


def test_columns_and_templates_make_the_jobs(omni: FakeClient, here: Path) -> None:
    jobs = write("jobs.csv", "audio,sound,note\nstreet.wav,rain,x\ncall.wav,wind,y\n")
    options = ("--task", "edit.add", "--desc", "{sound} sounds", "--deadline", "60", "--steps", "4", "--ignore", "note")

    done = batch(omni, "run", jobs, *options, *OUT)

    assert done.exit_code == 0, done.output
    made: list[Any] = sorted(omni.jobs, key=lambda job: job.task.desc)  # type: ignore[union-attr]
    assert [(job.task.desc, job.steps, job.priority) for job in made] == [
        ("rain sounds", 4, "batch"),
        ("wind sounds", 4, "batch"),
    ]
    assert all(job.deadline is not None for job in made)
    assert omni.fleet.storage.get(made[0].task.audio.uri, max_bytes=99) == b"street.wav"


def test_media_are_looked_for_beside_the_list(omni: FakeClient, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("jobs.csv", "audio\nstreet.wav\n")
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")

    assert batch(omni, "run", "../jobs.csv", "--task", "understand.caption", "--check").exit_code == 0


def test_the_manifest_is_in_the_order_of_the_list(omni: FakeClient, here: Path) -> None:
    omni.fleet.answer = lambda job: MediaTooLong("too long", "audio") if job.namespace == "edit" else None
    lines = [
        {"task": "understand.caption", "audio": "street.wav"},
        {"task": "edit.add", "audio": "call.wav", "desc": "rain"},
        {"task": "generate.t2a", "text": "wind", "seconds": 1},
        {"task": "understand.gender", "audio": "call.wav"},
    ]
    jobs = write("jobs.jsonl", "\n\n".join(map(json.dumps, lines)))

    done = batch(omni, "run", jobs, *OUT)

    found = manifest()
    assert done.exit_code == 1
    assert "line 3: MediaTooLong: audio: too long." in done.output
    assert [line["line"] for line in found] == [1, 3, 5, 7]
    assert [line["fields"] for line in found] == lines
    assert [line["status"] for line in found] == ["succeeded", "failed", "succeeded", "succeeded"]
    assert found[0]["text"] == "A fake answer to caption."
    assert found[1]["error"]["type"] == "MediaTooLong"
    assert found[2]["url"].startswith("https://memory.invalid/results/")
    assert found[3]["answer"]["kind"] == "gender"


BAD = """task,audio,desc
edit.add,street.wav,rain
edit.mend,street.wav,rain
edit.add,nowhere.wav,rain
edit.add,empty.wav,rain
edit.add,street.wav,
sing,street.wav,rain
"""


def test_every_line_is_checked_before_anything_is_sent(omni: FakeClient, here: Path) -> None:
    Path("empty.wav").touch()
    jobs = write("jobs.csv", BAD)

    for option in ((), ("--check",)):
        refused = batch(omni, "run", jobs, *OUT, *option)

        assert refused.exit_code == 2
        found = [line.split(":")[:2] for line in refused.output.splitlines() if line.startswith("line ")]
        assert found == [
            ["line 3", " UnknownTask"],
            ["line 4", " MediaNotFound"],
            ["line 5", " MediaEmpty"],
            ["line 6", " InvalidJob"],
            ["line 7", " InvalidJob"],
        ]
        assert "5 of 6 lines are no jobs, and nothing was sent" in refused.output
    assert omni.jobs == []


def test_bad_lines_may_be_left_out(omni: FakeClient, here: Path) -> None:
    Path("empty.wav").touch()

    done = batch(omni, "run", write("jobs.csv", BAD), *OUT, "--skip-invalid", "--json")

    end = json.loads(done.stdout.splitlines()[-1])
    assert done.exit_code == 1
    assert (end["event"], end["succeeded"], end["failed"]) == ("end", 1, 5)
    assert end["reasons"] == {"InvalidJob": 2, "MediaEmpty": 1, "MediaNotFound": 1, "UnknownTask": 1}
    assert len(omni.jobs) == 1


def test_a_column_that_is_no_field_is_refused(omni: FakeClient, here: Path) -> None:
    refused = batch(omni, "run", write("jobs.csv", "audio,colour\nstreet.wav,red\n"), "--check")

    assert refused.exit_code == 2
    assert "line 1: InvalidJob: colour: no call takes a field 'colour'" in refused.output


def test_a_valid_list_is_reported_as_such_and_leaves_no_trace(omni: FakeClient, here: Path) -> None:
    before = set(here.iterdir())
    write("jobs.csv", "audio\nstreet.wav\n")

    done = batch(omni, "run", "jobs.csv", "--task", "understand.caption", "--check")

    assert (done.exit_code, done.stdout) == (0, "1 job, all of them valid\n")
    assert set(here.iterdir()) - before == {here / "jobs.csv"}


@pytest.mark.parametrize("name", ["jobs.csv", "jobs.jsonl"])
def test_an_empty_list_is_done_at_once(omni: FakeClient, here: Path, name: str) -> None:
    done = batch(omni, "run", write(name, ""), *OUT)

    assert (done.exit_code, manifest()) == (0, [])


def test_a_batch_that_is_done_sends_nothing_again(omni: FakeClient, here: Path) -> None:
    jobs = write("jobs.csv", "audio\nstreet.wav\ncall.wav\n")
    for _ in range(3):
        assert batch(omni, "run", jobs, "--task", "understand.caption", *OUT).exit_code == 0

    assert len(omni.jobs) == 2


@pytest.mark.parametrize("change", ["list", "template"])
def test_a_journal_of_another_list_is_refused(omni: FakeClient, here: Path, change: str) -> None:
    jobs = write("jobs.csv", "audio\nstreet.wav\n")
    batch(omni, "run", jobs, "--task", "understand.caption", *OUT)
    if change == "list":
        write("jobs.csv", "audio\ncall.wav\n")

    task = "understand.caption" if change == "list" else "understand.scene"
    refused = batch(omni, "run", jobs, "--task", task, *OUT)

    assert refused.exit_code == 2
    assert refused.output.startswith("JournalMismatch: jobs: ")


def test_a_file_that_is_no_journal_is_refused_and_left_alone(omni: FakeClient, here: Path) -> None:
    jobs, notes = write("jobs.csv", "audio\nstreet.wav\n"), write("notes.txt", "my notes\n" * 200)

    refused = batch(omni, "run", jobs, "--task", "understand.caption", *OUT, "--journal", notes)

    assert refused.exit_code == 2
    assert refused.output.startswith("JournalMismatch")
    assert Path(notes).read_text() == "my notes\n" * 200


def test_a_batch_that_somebody_works_on_is_refused(omni: FakeClient, here: Path) -> None:
    jobs = write("jobs.csv", "audio\nstreet.wav\n")
    other = FileBatchLock(Path("jobs.csv.journal"))
    other.acquire()

    refused = batch(omni, "run", jobs, "--task", "understand.caption", *OUT)
    other.release()

    assert refused.exit_code == 2
    assert refused.output.startswith("BatchRunning")
    assert batch(omni, "run", jobs, "--task", "understand.caption", *OUT).exit_code == 0


def test_what_failed_is_done_anew_under_another_id(omni: FakeClient, here: Path) -> None:
    omni.fleet.answer = lambda job: MediaTooLong("too long") if job.task.name == "scene" else None
    lines = [{"task": f"understand.{task}", "audio": "street.wav"} for task in ("caption", "scene", "caption")]
    jobs = write("jobs.jsonl", "\n".join(map(json.dumps, lines)))
    batch(omni, "run", jobs, *OUT)
    omni.fleet.answer = None

    again = batch(omni, "retry-failed", jobs)

    assert again.exit_code == 0
    assert [line["status"] for line in manifest()] == ["succeeded"] * 3
    assert len(omni.jobs) == 4
    assert len({job.job_id for job in omni.jobs}) == 4


def test_the_status_is_told_from_the_journal(omni: FakeClient, here: Path) -> None:
    jobs = write("jobs.csv", "audio\nstreet.wav\ncall.wav\n")
    batch(omni, "run", jobs, "--task", "understand.caption", *OUT)

    found = json.loads(batch(omni, "status", jobs, "--json").stdout)

    assert (found["jobs"], found["succeeded"], found["running"]) == (2, 2, False)
    assert batch(omni, "status", jobs).stdout == "jobs.csv is done: 2 done, 0 failed, 0 in the fleet, 0 to be sent\n"


@pytest.mark.parametrize("command", ["status", "cancel", "fetch", "retry-failed"])
def test_a_batch_that_was_never_begun_is_unknown(omni: FakeClient, here: Path, command: str) -> None:
    refused = batch(omni, command, write("jobs.csv", "audio\nstreet.wav\n"))

    assert refused.exit_code == 2
    assert "Begin" in refused.output


def test_a_result_that_is_gone_fails_alone_when_all_are_fetched(omni: FakeClient, here: Path) -> None:
    jobs = write("jobs.csv", "text\nrain\nwind\n")
    batch(omni, "run", jobs, "--task", "generate.t2a", "--seconds", "1", *OUT)
    storage: Any = omni.fleet.storage
    del storage.objects[manifest()[0]["uri"].removeprefix("s3://memory/")]

    report = batch(omni, "fetch", jobs)

    assert report.exit_code == 1
    assert "line 2: MediaNotFound" in report.output
    assert {path.name for path in Path("night").iterdir()} == {"manifest.jsonl", "000003.wav"}


def test_the_out_folder_may_be_in_the_storage(omni: FakeClient, here: Path) -> None:
    jobs = write("jobs.csv", "text\nrain\n")

    done = batch(omni, "run", jobs, "--task", "generate.t2a", "--out", "s3://memory/night/")

    storage: Any = omni.fleet.storage
    assert done.stdout.endswith("s3://memory/night/manifest.jsonl\n")
    assert json.loads(storage.objects["night/manifest.jsonl"])["status"] == "succeeded"


def test_a_manifest_without_a_place_is_refused(omni: FakeClient, here: Path) -> None:
    refused = batch(omni, "run", write("jobs.csv", "text\nrain\n"), "--task", "generate.t2a")

    assert (refused.exit_code, omni.jobs) == (2, [])
    assert "--out" in refused.output


def test_transcripts_with_times_are_in_the_manifest_and_fetched_as_subtitles(omni: FakeClient, here: Path) -> None:
    jobs = write("jobs.csv", "audio\nstreet.wav\n")

    done = batch(omni, "run", jobs, "--task", "understand.transcribe", "--timestamps", "word", *OUT)
    fetched = [batch(omni, "fetch", jobs) for _ in range(2)]

    assert done.exit_code == 0, done.output
    (line,) = manifest()
    assert [word["text"] for word in line["transcript"]["words"]] == ["A", "fake", "answer", "to", "transcribe."]
    names = {path.name for path in Path("night").iterdir()}
    assert names == {"manifest.jsonl", *(f"000002.{suffix}" for suffix in ("txt", "json", "srt", "vtt"))}
    assert Path("night/000002.vtt").read_text().startswith("WEBVTT")
    assert [one.stdout.startswith("4 files saved") for one in fetched] == [True, False]


def test_spans_of_words_are_columns_of_a_list(omni: FakeClient, here: Path) -> None:
    jobs = write("jobs.csv", "audio,from,to,text\nstreet.wav,0.5,1.25,hello\n")

    done = batch(omni, "run", jobs, "--task", "edit.speech", "--span", "{from}-{to}", *OUT)

    assert done.exit_code == 0, done.output
    job: Any = omni.jobs[0]
    assert (job.task.span, job.task.text) == ((0.5, 1.25), "hello")
