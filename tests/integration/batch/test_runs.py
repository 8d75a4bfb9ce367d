"""`omnifleet batch` as a real process on a real fleet: killed, interrupted, refused, and resumed."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from omnifleet.batch.journal.journal import Journal
from omnifleet_shared.keys import PROGRESS_KEY
from support import batches, services
from support.batches import BatchFleet, read_manifest, run_batch, start_batch, write_questions
from support.fork_server import ForkServer

COUNT = 40


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, fork_server: ForkServer) -> Iterator[BatchFleet]:
    """One scripted worker."""
    folder = tmp_path_factory.mktemp("batch-fleet")
    with batches.batch_fleet(folder, fork_server) as fleet:
        fleet.start_worker()
        yield fleet


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "night"


def ended(jobs: Path) -> int:
    """Lines that the journal knows the end of."""
    path = Path(f"{jobs}.journal")
    if not path.exists():
        return 0
    with Journal(path) as journal:
        return journal.counts().ended


def assert_each_job_ran_once(fleet: BatchFleet, out: Path, count: int = COUNT) -> None:
    manifest = read_manifest(out)
    assert [line["line"] for line in manifest] == list(range(1, count + 1))
    assert {line["status"] for line in manifest} == {"succeeded"}
    for number, line in enumerate(manifest):
        assert line["text"].startswith(f"What is {number}? by ")
    runs = fleet.runs()
    assert {runs[line["job_id"]] for line in manifest} == {1}
    batch = manifest[0]["job_id"].split("-")[1]
    assert sum(count for job_id, count in runs.items() if batch in job_id) == count


def test_a_list_is_carried_out_in_full(fleet: BatchFleet, tmp_path: Path, out: Path) -> None:
    jobs = write_questions(tmp_path / "jobs.jsonl", COUNT)

    done = run_batch(fleet, "run", jobs, "--out", out)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{COUNT} of {COUNT} jobs done, 0 failed\n")
    assert_each_job_ran_once(fleet, out)


POINTS = [
    ("omnifleet.batch.journal.journal:Journal.begin:before", 1),
    ("omnifleet.batch.journal.journal:Journal.begin:after", 1),
    ("omnifleet.batch.journal.journal:Journal.sent:before", 7),
    ("omnifleet.batch.journal.journal:Journal.sent:after", 7),
    ("omnifleet.batch.sender:JobSender.send:before", 9),
    ("omnifleet.batch.sender:JobSender.send:after", 9),
    ("omnifleet.batch.journal.journal:Journal.ended:before", 11),
    ("omnifleet.batch.journal.journal:Journal.ended:after", 11),
    ("omnifleet.batch.journal.journal:Journal.ended:after", COUNT),
    ("omnifleet.batch.manifest:Manifest.write:before", 1),
]


@pytest.mark.parametrize(("point", "call"), POINTS, ids=lambda value: str(value).rpartition(".batch.")[2])
def test_a_batch_that_is_killed_is_gone_on_with(
    fleet: BatchFleet, tmp_path: Path, out: Path, point: str, call: int
) -> None:
    jobs = write_questions(tmp_path / "jobs.jsonl", COUNT)
    command = ("run", jobs, "--out", out, "--in-flight", "8")

    killed = run_batch(fleet, *command, KILLED_AT=point, KILLED_CALL=str(call))
    done = run_batch(fleet, *command)

    assert killed.returncode == batches.KILLED, killed.stderr
    assert done.returncode == 0, done.stderr
    assert_each_job_ran_once(fleet, out)


def test_a_batch_may_be_killed_again_and_again(fleet: BatchFleet, tmp_path: Path, out: Path) -> None:
    chance = random.Random(7)
    jobs = write_questions(tmp_path / "jobs.jsonl", COUNT)
    command = ("run", jobs, "--out", out, "--in-flight", "4")

    for _ in range(5):
        point, _ = chance.choice(POINTS[2:8])
        run_batch(fleet, *command, KILLED_AT=point, KILLED_CALL=str(chance.randrange(1, 9)))
    done = run_batch(fleet, *command)

    assert done.returncode == 0, done.stderr
    assert_each_job_ran_once(fleet, out)


def test_a_second_process_on_the_same_journal_is_refused(fleet: BatchFleet, tmp_path: Path, out: Path) -> None:
    jobs = write_questions(tmp_path / "jobs.jsonl", COUNT, steps=10)
    with start_batch(fleet, "run", jobs, "--out", out, "--in-flight", "4") as first:
        services.wait_until(lambda: ended(jobs) > 0, batches.WAIT, "the first outcome")
        # So that it cannot be done before the others look; what it holds it still holds.
        first.send_signal(signal.SIGSTOP)

        second = run_batch(fleet, "run", jobs, "--out", out, "--json")
        status = run_batch(fleet, "status", jobs, "--json")

        first.send_signal(signal.SIGCONT)
        first.communicate(timeout=batches.WAIT)
    assert second.returncode == 2
    assert json.loads(second.stdout)["error"]["type"] == "BatchRunning"
    assert json.loads(status.stdout)["running"] is True
    assert first.returncode == 0
    assert_each_job_ran_once(fleet, out)


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_batch_says_how_to_go_on_and_does(
    fleet: BatchFleet, tmp_path: Path, out: Path, sign: signal.Signals
) -> None:
    jobs = write_questions(tmp_path / "jobs.jsonl", COUNT, steps=4)
    with start_batch(fleet, "run", jobs, "--out", out, "--in-flight", "4") as first:
        services.wait_until(lambda: ended(jobs) > 3, batches.WAIT, "the first outcomes")
        first.send_signal(sign)
        _, stderr = first.communicate(timeout=batches.WAIT)

    done = run_batch(fleet, "run", jobs, "--out", out)

    assert first.returncode == 130
    assert "Run the same command again" in stderr
    assert done.returncode == 0, done.stderr
    assert_each_job_ran_once(fleet, out)


def test_one_broken_file_fails_alone_and_is_retried_once_mended(fleet: BatchFleet, tmp_path: Path, out: Path) -> None:
    import soundfile
    from support.data.tones import tone

    for number in range(6):
        soundfile.write(tmp_path / f"{number}.wav", tone(number, 4410).T, 44_100)
    (tmp_path / "3.wav").write_bytes(b"no audio at all")
    jobs = tmp_path / "jobs.csv"
    jobs.write_text("clip\n" + "".join(f"{number}.wav\n" for number in range(6)))
    command = ("run", jobs, "--task", "understand.caption", "--audio", "{clip}", "--out", out)

    first = run_batch(fleet, *command)
    soundfile.write(tmp_path / "3.wav", tone(3, 4410).T, 44_100)
    again = run_batch(fleet, "retry-failed", jobs)

    assert first.returncode == 1
    assert "line 5: MediaUnreadable" in first.stderr
    assert "5 of 6 jobs done, 1 failed (MediaUnreadable 1)" in first.stdout
    assert again.returncode == 0, again.stderr
    runs = fleet.runs()
    assert [runs[line["job_id"]] for line in read_manifest(out)] == [1] * 6
    assert read_manifest(out)[3]["job_id"].endswith("-5-1")


def test_a_batch_is_cancelled_by_another_process(fleet: BatchFleet, tmp_path: Path, out: Path) -> None:
    jobs = write_questions(tmp_path / "jobs.jsonl", COUNT, steps=400)
    with start_batch(fleet, "run", jobs, "--out", out, "--in-flight", "4") as first:
        services.wait_until(lambda: len(steps_of(fleet, jobs)) == 4, batches.WAIT, "four jobs that step")

        cancelled = run_batch(fleet, "cancel", jobs)
        first.communicate(timeout=batches.WAIT)

    assert cancelled.returncode == 0, cancelled.stderr
    assert first.returncode == 5
    statuses = [line["status"] for line in read_manifest(out)]
    assert (statuses.count("cancelled"), statuses.count("not sent")) == (4, COUNT - 4)


def steps_of(fleet: BatchFleet, jobs: Path) -> list[str]:
    """Jobs of the list that are running."""
    if not Path(f"{jobs}.journal").exists():
        return []
    with Journal(Path(f"{jobs}.journal")) as journal:
        sent = [PROGRESS_KEY.format(job_id=entry.job_id) for entry in journal.entries("sent")]
    return [key for key in sent if fleet.redis.client().exists(key)]


def test_results_that_were_fetched_are_not_fetched_again(fleet: BatchFleet, tmp_path: Path, out: Path) -> None:
    jobs = tmp_path / "jobs.csv"
    jobs.write_text("sound\nrain\nwind\n")
    options = ("--task", "generate.t2a", "--text", "{sound}", "--seconds", "0.5", "--steps", "1")
    run_batch(fleet, "run", jobs, *options, "--out", out)

    first = run_batch(fleet, "fetch", jobs, "--json")
    (out / "000003.wav").unlink()
    second = run_batch(fleet, "fetch", jobs, "--json")

    assert json.loads(first.stdout)["saved"] == 2
    assert (json.loads(second.stdout)["saved"], json.loads(second.stdout)["there"]) == (1, 1)
    assert {path.name for path in out.iterdir()} == {"manifest.jsonl", "000002.wav", "000003.wav"}
