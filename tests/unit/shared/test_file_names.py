"""Names of files that a person would choose, and that everything takes."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omnifleet_shared.file_names import MOST_CHARACTERS, file_name


@pytest.mark.parametrize(
    ("about", "name"),
    [
        ("rain sounds", "add-rain-sounds.wav"),
        ("Straße & Café, die Nachbarin's", "add-Strae-Cafe-die-Nachbarins.wav"),
        ("../../etc/passwd", "add-etc-passwd.wav"),
        ("雨", "add.wav"),
        ("one two " * 20, "add-one-two-one-two-one-two-one-two-one-two-one-two-one-two.wav"),
    ],
)
def test_words_become_a_name(about: str, name: str) -> None:
    assert file_name("add", about, "wav") == name


@given(about=st.text())
def test_any_text_gives_a_name_that_everything_takes(about: str) -> None:
    name = file_name("t2a", about, "flac")

    assert re.fullmatch(r"t2a[A-Za-z0-9-]*\.flac", name)
    assert len(name) <= MOST_CHARACTERS + len(".flac")
