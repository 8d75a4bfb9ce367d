"""The front door as a newcomer finds it: the demo, the command line, and Celery's own way to start a worker."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import soundfile
from omnifleet import FleetSettings
from support import processes
from support.data import media_files

from demo.training.listener import Listener

ROOT = Path(__file__).parents[2]
WAIT = 300
DEMO_WAIT = 600
"""Seconds for a demo, whose four workers start together."""


def run(*command: str | Path, cwd: Path, timeout: float = WAIT, **environment: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"} | environment
    return subprocess.run(
        [sys.executable, "-m", *map(str, command)], cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout
    )


def test_the_demo_runs_every_namespace_and_leaves_files_that_play(tmp_path: Path) -> None:
    done = run("demo", cwd=tmp_path, timeout=DEMO_WAIT)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "eleven made sounds" in done.stdout
    for name, seconds in {"t2a.wav": 10.0, "tts.wav": None, "extract.flac": None}.items():
        info = soundfile.info(tmp_path / "demo-output" / name)
        assert info.duration > 0
        assert seconds is None or info.duration == seconds
    tone, rate = soundfile.read(tmp_path / "demo-output" / "t2a.wav", always_2d=True)
    halves = tone[: 5 * rate, 0], tone[6 * rate :, 0]
    assert [Listener().hear(half, 1) for half in halves] == [{"low"}, {"rain"}]
    for name, words in {"said.wav": "on Monday in front", "said-edited.wav": "on Friday in front"}.items():
        assert soundfile.info(tmp_path / "demo-output" / name).duration > 2
        assert re.search(rf"demo-output/{name}\. Heard in it: .*{words}", done.stdout)
    for language, place in {"nl": "Dutch", "ru": "Russian"}.items():
        assert f"In {place}: demo-output/said-{language}.wav" in done.stdout
        assert soundfile.info(tmp_path / "demo-output" / f"said-{language}.wav").duration > 2
    assert re.search(r"recogniser of English alone: .*Amsterdam.*Berlin", done.stdout)
    assert re.search(
        r"Said by espeak-ng 0\.2\.4 \(GPL-3\.0-or-later\): .*not trained on language 'nl'", done.stdout, re.S
    )
    assert "hibari 0.2.1 (Apache-2.0), heard by whisper-tiny-en (mit)" in done.stdout
    assert (tmp_path / "demo-output" / "edit.png").read_bytes().startswith(b"\x89PNG")


def test_the_demo_leaves_a_fleet_up_on_which_the_readme_s_commands_work(tmp_path: Path) -> None:
    commands = re.findall(r"^omnifleet (?:edit|batch) .*", (ROOT / "README.md").read_text(), re.MULTILINE)
    try:
        demo = run("demo", "--keep", cwd=tmp_path, timeout=DEMO_WAIT)
        assert demo.returncode == 0, demo.stdout + demo.stderr
        shown = [line for line in demo.stdout.splitlines() if line.startswith(("export ", "cd "))]
        script = "\n".join(["before=$(command -v redis-server)", *shown, "set -e", *commands])
        script += '\ntest "$(command -v redis-server)" = "$before"\nls'

        # As in the terminal of whoever copies the two lines: another folder, and no omnifleet there.
        done = subprocess.run(
            ["bash", "-c", script],
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": os.environ.get("PYTHONPATH", "")},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=WAIT,
        )
    finally:
        stopped = run("demo", "--stop", cwd=tmp_path)

    assert len(shown) == 2
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"out.flac", "night"} <= set(done.stdout.split())
    assert "2 of 2 jobs done, 0 failed" in done.stdout
    assert "stopped" in stopped.stdout
    assert "No fleet is up" in run("demo", "--stop", cwd=tmp_path).stdout


def test_the_command_line_edits_a_file(
    tmp_path: Path, settings: FleetSettings, fleet_worker: processes.Process
) -> None:
    (tmp_path / "street.wav").write_bytes(media_files.wav(1.0))

    done = run(
        "omnifleet", "edit", "Add", "street.wav", "--desc", "rain", "--steps", "2", "-o", "out.flac", cwd=tmp_path
    )

    assert done.returncode == 0, done.stderr
    assert soundfile.info(tmp_path / "out.flac").format == "FLAC"


def test_the_command_line_says_what_is_wrong_in_one_line(
    tmp_path: Path, settings: FleetSettings, fleet_worker: processes.Process
) -> None:
    (tmp_path / "empty.wav").write_bytes(b"")

    done = run("omnifleet", "edit", "Add", "empty.wav", "--desc", "rain", cwd=tmp_path)

    assert done.returncode == 2
    assert "MediaEmpty" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_line_is_readable_by_machines(
    tmp_path: Path, settings: FleetSettings, fleet_worker: processes.Process
) -> None:
    sent = run("omnifleet", "generate", "t2a", "rain", "--steps", "1", "--no-wait", "--json", cwd=tmp_path)
    job_id = json.loads(sent.stdout)["job_id"]

    done = run("omnifleet", "result", job_id, "--json", cwd=tmp_path)

    assert json.loads(done.stdout)["artifact"]["seconds"] == 10.0


def test_celery_starts_a_worker_as_its_users_expect(
    tmp_path: Path, fleet_environment: dict[str, str], settings: FleetSettings
) -> None:
    environment = fleet_environment | {"OMNIFLEET_QUEUE": "another-queue"}
    arguments = ("celery", "-A", "omnifleet_worker", "worker", "--loglevel", "INFO")
    with processes.worker(environment, tmp_path / "worker.log", *arguments) as worker:
        worker.wait_until_ready()

        done = run("omnifleet", "understand", "transcribe", "-", "--json", cwd=tmp_path, **environment)
        answered = run(
            *("omnifleet", "understand", "What is this?", "--max-new-tokens", "3"), cwd=tmp_path, **environment
        )

        assert f"omnifleet@{socket.gethostname()}:{worker.process.pid} ready" in worker.log.read_text()
        assert done.returncode == 2
        assert answered.returncode == 0, answered.stderr
        assert answered.stdout.strip()
        assert worker.terminate() == 0


def test_a_worker_without_a_checkpoint_says_so_and_ends(tmp_path: Path, settings: FleetSettings) -> None:
    with processes.worker({"OMNIFLEET_CHECKPOINT": ""}, tmp_path / "worker.log") as worker:
        assert worker.process.wait(timeout=WAIT) != 0

    assert "OMNIFLEET_CHECKPOINT" in worker.log.read_text()


def test_another_pool_is_refused(tmp_path: Path, fleet_environment: dict[str, str]) -> None:
    arguments = ("celery", "-A", "omnifleet_worker", "worker", "--pool", "solo")
    with processes.worker(fleet_environment, tmp_path / "worker.log", *arguments) as worker:
        assert worker.process.wait(timeout=WAIT) != 0

    assert "--pool threads" in worker.log.read_text()
