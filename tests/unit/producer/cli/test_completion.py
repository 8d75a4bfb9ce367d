"""Completion of both programs in a shell: installed as typer does it, and it completes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = {"omnifleet": "omnifleet.cli", "omnifleet-worker": "omnifleet_worker.cli"}


def run(program: str, *arguments: str, **environment: str) -> str:
    """Run a program by its name, as its script does."""
    code = f"import sys; sys.argv[0] = {program!r}; from {PROGRAMS[program]} import main; main()"
    command = [sys.executable, "-c", code, *arguments]
    paths = {"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, env=paths | environment, capture_output=True, text=True, timeout=60)
    return done.stdout


@pytest.mark.parametrize(
    ("program", "begun", "whole"), [("omnifleet", "und", "understand"), ("omnifleet-worker", "conv", "convert")]
)
def test_it_is_installed_and_completes(tmp_path: Path, program: str, begun: str, whole: str) -> None:
    named = {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}

    run(program, "--install-completion", "bash", **named)
    script = (tmp_path / ".bash_completions" / f"{program}.sh").read_text()
    variable = f"_{program.replace('-', '_').upper()}_COMPLETE"
    words = {"COMP_WORDS": f"{program} {begun}", "COMP_CWORD": "1", variable: "complete_bash"}

    assert variable in script
    assert run(program, **named, **words).split() == [whole]
