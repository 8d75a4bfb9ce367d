"""The error tree: drawn as it is, and the same on both sides of the wire."""

from __future__ import annotations

import copy
import json
import pickle
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omnifleet_shared import errors
from omnifleet_shared.errors import (
    JobFailed,
    MediaEmpty,
    OmnifleetError,
    PermanentError,
    ResultTimeout,
    TransientError,
    error_classes,
    error_from_wire,
)

CLASSES = pytest.mark.parametrize("name", sorted(error_classes()))
DETAILS = {"limit": 10, "given": [1.5, None], "deeper": {"é": "ü"}}


def drawn_tree() -> list[tuple[str, str | None]]:
    """Class and parent of each line of the tree in the module's docstring."""
    path: list[str] = []
    drawn: list[tuple[str, str | None]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^((?:│   |    |├── |└── )*)(\w+)(?:  |$)", line)
        if found and (found[1] or found[2] == "OmnifleetError"):
            depth = len(found[1]) // 4
            path = [*path[:depth], found[2]]
            drawn.append((found[2], path[depth - 1] if depth else None))
    return drawn


def across_the_wire(error: OmnifleetError) -> OmnifleetError:
    return error_from_wire(type(error).__name__, json.loads(json.dumps(error.args)))


def facts(error: OmnifleetError) -> tuple[Any, ...]:
    return type(error), str(error), error.problem, error.field, error.remedy, error.details, error.args


class TestTree:
    def test_the_drawn_tree_is_the_real_one(self) -> None:
        real = {
            (cls.__name__, None if cls is OmnifleetError else cls.__bases__[0].__name__)
            for cls in error_classes().values()
        }

        assert set(drawn_tree()) == real

    def test_no_class_is_drawn_twice(self) -> None:
        names = [name for name, _ in drawn_tree()]

        assert len(names) == len(set(names))

    @CLASSES
    def test_every_class_says_what_it_is_for(self, name: str) -> None:
        assert (error_classes()[name].__doc__ or "").strip()

    @pytest.mark.parametrize("name", sorted(set(error_classes()) - {"OmnifleetError"}))
    def test_every_class_is_permanent_or_transient(self, name: str) -> None:
        cls = error_classes()[name]

        assert issubclass(cls, PermanentError) is not issubclass(cls, TransientError)

    def test_a_timeout_is_pythons_own_too(self) -> None:
        assert issubclass(ResultTimeout, TimeoutError)

    def test_classes_of_users_are_not_of_the_tree(self) -> None:
        class Theirs(MediaEmpty):
            pass

        assert "Theirs" not in error_classes()
        assert type(error_from_wire("Theirs", ["no samples"])) is JobFailed


class TestText:
    @pytest.mark.parametrize(
        ("error", "text"),
        [
            (MediaEmpty("it has no samples"), "it has no samples."),
            (MediaEmpty("it has no samples", "audio"), "audio: it has no samples."),
            (MediaEmpty("it has no samples", "audio", "Send sound"), "audio: it has no samples. Send sound."),
            (MediaEmpty("it has no samples", remedy="Send sound"), "it has no samples. Send sound."),
        ],
    )
    def test_field_problem_and_remedy_make_sentences(self, error: OmnifleetError, text: str) -> None:
        assert str(error) == text


class TestWire:
    @CLASSES
    def test_every_class_crosses_whole(self, name: str) -> None:
        error = error_classes()[name]("it is too long", "audio", "Cut it", DETAILS)

        assert facts(across_the_wire(error)) == facts(error)

    @CLASSES
    def test_every_class_crosses_with_a_problem_alone(self, name: str) -> None:
        error = error_classes()[name]("it is too long")

        assert facts(across_the_wire(error)) == facts(error)

    @CLASSES
    def test_every_class_pickles(self, name: str) -> None:
        error = error_classes()[name]("it is too long", "audio", "Cut it", DETAILS)

        assert facts(pickle.loads(pickle.dumps(error))) == facts(error)

    @CLASSES
    def test_every_class_copies(self, name: str) -> None:
        error = error_classes()[name]("it is too long", "audio", "Cut it", DETAILS)

        assert facts(copy.copy(error)) == facts(error)

    def test_an_unknown_class_comes_back_as_a_failure_that_names_it(self) -> None:
        error = error_from_wire("ZeroDivisionError", ["division by zero"])

        assert type(error) is JobFailed
        assert error.details == {"type": "ZeroDivisionError"}
        assert str(error) == "the worker failed with ZeroDivisionError: division by zero."

    @pytest.mark.parametrize("name", ["", "object", "Exception", "OmnifleetError.__init__", "errors.MediaEmpty"])
    def test_odd_names_are_failures(self, name: str) -> None:
        assert type(error_from_wire(name, [])) is JobFailed

    @pytest.mark.parametrize(
        "args",
        [
            *([], (), "", "no samples", 5, None, {"a": 1}, [None], [""], [5], [["no samples"]]),
            *(["a", "b", "c", {}, "e"], ["a", None, None, "abc"], ["a", None, None, 5], ["a", 1, 2, None]),
        ],
    )
    def test_malformed_arguments_still_make_the_error(self, args: object) -> None:
        error = error_from_wire("MediaEmpty", args)

        assert type(error) is MediaEmpty
        assert re.search(r"\w", str(error))

    @given(
        name=st.sampled_from(sorted(error_classes())) | st.text(max_size=5),
        args=st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        ),
    )
    def test_anything_makes_an_error_with_a_text(self, name: str, args: object) -> None:
        error = error_from_wire(name, args)

        assert type(error) is error_classes().get(name, JobFailed)
        assert str(error)

    @given(
        name=st.sampled_from(sorted(error_classes())),
        problem=st.text(min_size=1, max_size=20),
        field=st.none() | st.text(max_size=10),
        remedy=st.none() | st.text(max_size=10),
        details=st.dictionaries(st.text(max_size=5), st.none() | st.booleans() | st.text(max_size=5), max_size=3),
    )
    def test_any_error_crosses(
        self, name: str, problem: str, field: str | None, remedy: str | None, details: dict[str, Any]
    ) -> None:
        error = error_classes()[name](problem, field, remedy, details)

        assert facts(across_the_wire(error)) == facts(error)
