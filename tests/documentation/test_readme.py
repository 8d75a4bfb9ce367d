"""What the README promises and a test can hold it to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.data import settings_table

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("row", settings_table.rows(), ids=lambda row: row.split("`")[1])
def test_every_setting_is_in_the_table_as_it_is(row: str) -> None:
    assert row in README, "run python tests/support/data/settings_table.py and put its table into the README"


def test_the_files_of_the_main_path_are_there() -> None:
    named = re.findall(r"`((?:shared|producer|worker|tests|benchmarks|demo|chaos)/[\w/]+(?:\.py)?/?)`", README)

    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_commands_that_it_names_are_the_makefile_s() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert set(re.findall(r"\bmake (\w+)", README)) <= targets
