"""What is missing is said in one line, at once: before torch is loaded, and without a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from omnifleet_worker.installation import LIBRARIES

MODULE = {"omnifleet-worker": "omnifleet_worker.cli", "omnifleet": "omnifleet.cli"}
SEES_TORCH = "import sys, atexit; atexit.register(lambda: print('torch' in sys.modules, end=''))\n"
HIDES_LIBRARIES = f"import sys; sys.modules.update(dict.fromkeys({LIBRARIES!r}))\n"


def run(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SEES_TORCH + code, *arguments]
    env = {"PYTHONPATH": ":".join(sys.path), "PATH": os.environ["PATH"], "COLUMNS": "300", **environment}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


def assert_refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode != 0
    assert done.stdout == "False", "torch was loaded"
    (line,) = done.stderr.splitlines()
    assert all(word in line for word in words), line


def main(program: str) -> str:
    return f"from {MODULE[program]} import main; main()"


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, ["OMNIFLEET_CHECKPOINT: no checkpoint is set", "tiny-checkpoint"]),
        ({"OMNIFLEET_CHECKPOINT": "/nowhere"}, ["there is no folder /nowhere"]),
        ({"OMNIFLEET_CHECKPOINT": "/usr"}, ["/usr holds no checkpoint", "model_index.json"]),
        ({"OMNIFLEET_CHEKPOINT": "/usr"}, ["OMNIFLEET_CHEKPOINT: there is no such setting", "OMNIFLEET_CHECKPOINT"]),
        ({"OMNIFLEET_MAX_BATCH": "many"}, ["OMNIFLEET_MAX_BATCH: 'many' will not do"]),
    ],
)
def test_a_worker_says_which_setting_is_wrong(environment: dict[str, str], words: list[str]) -> None:
    assert_refused(run(main("omnifleet-worker"), "run", **environment), *words)


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["tiny-checkpoint", "/nowhere"],
        ["convert", "/nowhere", "--weights", "/usr", "--code", "/usr"],
        ["train", "/nowhere"],
    ],
)
def test_a_worker_without_its_libraries_names_the_extra(arguments: list[str]) -> None:
    done = run(HIDES_LIBRARIES + "sys.modules.pop('torch')\n" + main("omnifleet-worker"), *arguments)

    assert_refused(done, "not installed:", "diffusers", "pip install 'omnifleet[worker]'")


@pytest.mark.parametrize("arguments", [["train", "/nowhere"], ["train", "merge", "/usr", "/usr", "/nowhere"]])
def test_training_without_its_libraries_names_the_extra(arguments: list[str]) -> None:
    done = run("import sys; sys.modules['peft'] = None\n" + main("omnifleet-worker"), *arguments)

    assert_refused(done, "not installed: peft.", "pip install 'omnifleet[train]'")


def test_celery_without_the_workers_libraries_names_the_extra() -> None:
    code = HIDES_LIBRARIES + "sys.modules.pop('torch')\nfrom celery.__main__ import main; main()"

    assert_refused(run(code, "-A", "omnifleet_worker", "worker"), "not installed:", "pip install 'omnifleet[worker]'")


def test_a_local_model_without_the_libraries_names_the_extra() -> None:
    code = HIDES_LIBRARIES + (
        "sys.modules.pop('torch')\nfrom omnifleet.local import LocalModel\nfrom omnifleet import InvalidSetting\n"
        "try:\n    LocalModel('/nowhere')\nexcept InvalidSetting as error:\n    sys.exit(str(error))"
    )

    assert_refused(run(code), "not installed:", "pip install 'omnifleet[worker]'")


def test_a_client_names_a_mistyped_variable() -> None:
    done = run(main("omnifleet"), "status", "some-job", OMNIFLEET_REDIS_ULR="redis://localhost")

    assert_refused(done, "OMNIFLEET_REDIS_ULR: there is no such setting. The nearest one is OMNIFLEET_REDIS_URL")


def test_celery_says_in_one_line_that_no_checkpoint_is_set(redis_url: str, tmp_path: Path) -> None:
    settings = {"OMNIFLEET_REDIS_URL": redis_url, "OMNIFLEET_STORAGE": f"file://{tmp_path}"}
    settings |= {"OMNIFLEET_LOG_FORMAT": "text", "OMP_NUM_THREADS": "1"}

    done = run("from celery.__main__ import main; main()", "-A", "omnifleet_worker", "worker", **settings)

    assert done.returncode != 0
    assert "OMNIFLEET_CHECKPOINT: no checkpoint is set" in done.stderr
    assert "Traceback" not in done.stderr
