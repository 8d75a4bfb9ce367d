"""What the commands of a worker say of themselves."""

from __future__ import annotations

import pytest
from omnifleet_worker.cli import app
from typer.testing import CliRunner


@pytest.mark.parametrize("command", ["run", "compile"])
def test_the_help_names_the_setting_that_an_option_stands_for(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"])

    assert "[env: OMNIFLEET_CHECKPOINT]" in " ".join(shown.stdout.split())
