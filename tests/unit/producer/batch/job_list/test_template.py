"""Templates: what lines have in common, with what the line says put in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omnifleet import InvalidJob
from omnifleet.batch.job_list.template import Template


def fill(text: str, line: dict[str, object]) -> object:
    return Template({"desc": text}).fill(line)["desc"]


def test_columns_are_put_in() -> None:
    assert fill("{sound} and {other}, {{quietly}}", {"sound": "rain", "other": 2}) == "rain and 2, {quietly}"


@given(text=st.text().filter(lambda text: "{" not in text and "}" not in text))
def test_a_text_without_braces_stays_as_it_is(text: str) -> None:
    assert fill(text, {}) == text


@given(value=st.text())
def test_a_value_is_put_in_as_it_is_braces_and_all(value: str) -> None:
    assert fill("<{sound}>", {"sound": value}) == f"<{value}>"


def test_a_line_s_own_value_wins() -> None:
    assert Template({"desc": "rain", "seed": "1"}).fill({"desc": "wind"}) == {"seed": "1"}


def test_a_field_may_be_made_of_its_own_column() -> None:
    assert fill("{desc}, far away", {"desc": "rain"}) == "rain, far away"


@pytest.mark.parametrize("text", ["{", "}", "{}", "{0.real}{", "{a[0]}", "{sound!r}", "{sound:>9}"])
def test_a_placeholder_that_is_no_column_is_refused(text: str) -> None:
    with pytest.raises(InvalidJob) as refused:
        Template({"desc": text})

    assert refused.value.field == "desc"


@pytest.mark.parametrize("value", [None, True, ["rain"], {"a": 1}])
def test_a_value_that_cannot_be_put_in_is_refused(value: object) -> None:
    with pytest.raises(InvalidJob, match="sound"):
        fill("{sound}", {"sound": value})
