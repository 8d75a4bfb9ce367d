"""The short examples, each run as its reader would run it, against a real fleet."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
import soundfile
from omnifleet import Client, FleetSettings
from support import processes, services
from support.data import media_files

from demo.training.listener import Listener
from demo.training.trained import write_trained_checkpoint

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
MOST_LINES = 39
WAIT = 300.0
SECRET = "a secret of this very test"
# The first test of a process waits for the checkpoint and the worker of all.


def run(script: str, *arguments: str | Path, cwd: Path) -> str:
    """What the script prints; the settings are those of the environment. Its warnings are errors."""
    command = [sys.executable, "-W", "error", EXAMPLES / script, *arguments]
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, timeout=WAIT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def demo_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one that was trained: what the examples ask for by themselves is what it makes."""
    folder = tmp_path_factory.mktemp("demo-checkpoint")
    write_trained_checkpoint(folder)
    return folder


@pytest.fixture(scope="module")
def fleet_environment(
    fleet_environment: dict[str, str], demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """A fleet of its own, on that checkpoint."""
    redis = services.RedisServer(services.free_port(), tmp_path_factory.mktemp("redis"))
    with redis.running():
        yield fleet_environment | {"OMNIFLEET_REDIS_URL": redis.url, "OMNIFLEET_CHECKPOINT": str(demo_checkpoint)}


@pytest.fixture(scope="module")
def fleet_worker(
    fleet_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[processes.Process]:
    with processes.worker(fleet_environment, tmp_path_factory.mktemp("logs") / "worker.log") as worker:
        worker.wait_until_ready()
        yield worker


def heard(path: Path, count: int = 1) -> set[str]:
    """So many of the demo's sounds that are most likely in it."""
    samples, _ = soundfile.read(path, always_2d=True)
    return listener().hear(samples.mean(axis=1), count)


@cache
def listener() -> Listener:
    return Listener(examples=20)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "one.wav"
    path.write_bytes(media_files.wav(1.0, 16_000))
    return path


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_an_example_is_short_and_says_what_it_shows(script: Path) -> None:
    text = script.read_text()

    assert len(text.splitlines()) <= MOST_LINES
    assert text.startswith('"""')
    assert f"`{script.name}`" in (EXAMPLES / "README.md").read_text()


@pytest.mark.usefixtures("settings", "fleet_worker")
class TestOnAFleet:
    def test_a_sound_is_made_and_then_changed(self, tmp_path: Path) -> None:
        printed = run("generate_and_edit.py", cwd=tmp_path)

        assert "made by audio-omni-demo, licence Apache-2.0" in printed
        assert soundfile.info(tmp_path / "made.wav").duration == 5.0
        assert heard(tmp_path / "made.wav", 2) == {"siren", "rain"}
        assert soundfile.info(tmp_path / "kept.flac").format == "FLAC"
        assert heard(tmp_path / "kept.flac") == {"siren"}

    def test_a_recording_is_understood(self, tmp_path: Path, recording: Path) -> None:
        printed = run("understand_audio.py", recording, cwd=tmp_path)

        # A thinker whose weights are random says nothing in the form of a record: then the text is printed as it is.
        assert all(re.search(rf"^{name}.*: ", printed, re.MULTILINE) for name in ("transcript", "answer", "speakers"))

    def test_a_recording_gets_its_subtitles(self, tmp_path: Path, recording: Path) -> None:
        printed = run("subtitles.py", recording, cwd=tmp_path)

        assert re.findall(r"^saved (.*)", printed, re.MULTILINE) == ["one.srt", "one.vtt", "one.json"]
        assert (tmp_path / "one.vtt").read_text().startswith("WEBVTT")

    def test_a_voice_speaks_under_its_name_and_is_removed(self, tmp_path: Path, recording: Path) -> None:
        printed = run("named_voice.py", recording, cwd=tmp_path)

        assert all(soundfile.info(tmp_path / name).duration > 0 for name in ("hello.wav", "goodbye.wav"))
        assert printed.splitlines()[-1].startswith("ref: there is no voice 'guide'.")

    def test_a_folder_is_edited_around_a_file_that_is_none(self, tmp_path: Path) -> None:
        folder = tmp_path / "recordings"
        folder.mkdir()
        (folder / "street.wav").write_bytes(media_files.wav(0.5))
        (folder / "torn.wav").write_bytes(b"no sound at all")

        printed = run("batch_edit.py", folder, cwd=tmp_path)

        assert "torn.wav: MediaUnreadable" in printed
        assert soundfile.info(tmp_path / "kept" / "street.wav").duration == 0.5

    def test_recordings_are_transcribed_on_one_event_loop(self, tmp_path: Path, recording: Path) -> None:
        printed = run("asyncio_transcribe.py", recording, recording, cwd=tmp_path)

        assert printed.count(f"{recording}: ") == 2

    def test_a_job_is_watched_and_stopped(self, tmp_path: Path) -> None:
        printed = run("progress_and_cancel.py", cwd=tmp_path)

        assert printed.splitlines()[-1] == "cancelled"

    def test_a_request_that_is_sent_twice_runs_once(self, tmp_path: Path) -> None:
        printed = run("idempotent_retry.py", cwd=tmp_path)

        assert "one job: True" in printed
        assert soundfile.info(tmp_path / "order-4711.wav").duration > 0

    def test_an_error_says_what_to_mend(self, tmp_path: Path) -> None:
        (tmp_path / "torn.wav").write_bytes(b"no sound at all")

        assert "MediaUnreadable in audio" in run("handle_errors.py", "torn.wav", cwd=tmp_path)
        assert "MediaNotFound in audio" in run("handle_errors.py", "nowhere.wav", cwd=tmp_path)


def test_a_model_of_this_machine_takes_the_same_calls(tmp_path: Path, demo_checkpoint: Path) -> None:
    run("local_model.py", demo_checkpoint, cwd=tmp_path)

    names = {"rain.wav": "rain", "surf.wav": "surf", "a siren.wav": "siren"}
    assert {path.name: heard(path) for path in tmp_path.glob("*.wav")} == {file: {names[file]} for file in names}


def test_the_tests_of_a_user_need_no_fleet(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", EXAMPLES / "test_with_fake_client.py"]
    done = subprocess.run([str(part) for part in command], cwd=tmp_path, capture_output=True, text=True, timeout=WAIT)

    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


class TestCallbackReceiver:
    @contextmanager
    def receiver(self, port: int) -> Iterator[subprocess.Popen[str]]:
        child = subprocess.Popen(
            [sys.executable, str(EXAMPLES / "callback_receiver.py"), str(port)],
            env=os.environ | {"OMNIFLEET_CALLBACK_SECRET": SECRET},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            yield child
        finally:
            child.terminate()
            child.communicate(timeout=WAIT)

    def test_it_prints_what_became_of_a_job(self, tmp_path: Path, fleet_environment: dict[str, str]) -> None:
        port = services.free_port()
        redis = services.RedisServer(services.free_port(), tmp_path)
        settings = FleetSettings(redis_url=redis.url, storage=f"file://{tmp_path}/storage")
        environment = fleet_environment | {
            "OMNIFLEET_REDIS_URL": redis.url,
            "OMNIFLEET_STORAGE": settings.storage,
            "OMNIFLEET_CALLBACK_HOSTS": f"http://127.0.0.1:{port}=127.0.0.0/8",
            "OMNIFLEET_CALLBACK_SECRET": SECRET,
        }
        (tmp_path / "storage").mkdir()
        with (
            redis.running(),
            processes.worker(environment, tmp_path / "worker.log"),
            self.receiver(port) as receiving,
            Client(settings) as omni,
        ):
            url = f"http://127.0.0.1:{port}/audio"
            job = omni.understand("What is a fugue?", max_new_tokens=3, callback=url)
            assert receiving.stdout is not None
            line = receiving.stdout.readline()

        assert line.startswith(f"{job.id} ")
        assert "understand" in line
