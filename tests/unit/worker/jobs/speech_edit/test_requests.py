"""How many requests, as people write them in five languages, are read as they are meant. The rates may only rise."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.data.edit_requests import EditRequest, outcome, read_requests

FOLDER = Path(__file__).parent / "requests"
REQUESTS = {path.stem: read_requests(path) for path in sorted(FOLDER.glob("*.tsv"))}
EVERY_LANGUAGE = pytest.mark.parametrize("language", ["en", "zh", "ja", "fr", "de"])
RIGHT = {"en": 75, "zh": 61, "ja": 60, "fr": 59, "de": 60}
"""Requests of each language that are read as they are meant. Raise it with the grammar; never lower it."""
RIGHT_HELD_BACK = {"en": 24, "zh": 21, "ja": 26, "fr": 27, "de": 25}
"""The same of those that were held back."""


def right(language: str, *, held_back: bool) -> list[EditRequest]:
    requests = [request for request in REQUESTS[language] if request.held_back is held_back]
    return [request for request in requests if outcome(request) == request.meant]


def test_there_are_enough_of_them() -> None:
    assert sum(map(len, REQUESTS.values())) >= 300
    assert all(len(requests) >= 60 for requests in REQUESTS.values())
    assert all(sum(one.held_back for one in requests) >= len(requests) // 5 for requests in REQUESTS.values())


@EVERY_LANGUAGE
def test_the_rate_does_not_fall(language: str) -> None:
    wrong = [one.text for one in REQUESTS[language] if not one.held_back and outcome(one) != one.meant]

    assert len(right(language, held_back=False)) == RIGHT[language], wrong


@EVERY_LANGUAGE
def test_the_rate_of_those_held_back_does_not_fall(language: str) -> None:
    assert len(right(language, held_back=True)) == RIGHT_HELD_BACK[language]


def test_none_is_taken_for_another_edit() -> None:
    every = [one for requests in REQUESTS.values() for one in requests]

    assert [one.text for one in every if isinstance(found := outcome(one), tuple) and found != one.meant] == []
