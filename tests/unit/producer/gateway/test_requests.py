"""What callers send, parsed: whatever it is, it is read as it is meant or refused with a typed error."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omnifleet.gateway import http_errors
from omnifleet.gateway.access.api_key import hash_secret, make_key, read_key
from omnifleet.gateway.jobs.files import byte_range
from omnifleet.gateway.jobs.job_request import job_request, parse_object
from omnifleet.request.request import Request
from omnifleet_shared.errors import KeyRefused, OmnifleetError, error_classes

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
TASKS = st.sampled_from(["generate.t2a", "edit.add", "understand", "understand.qa", "generate.tts"])
FIELDS = st.sampled_from(["audio", "video", "ref", "text", "desc", "history", "seed", "deadline", "task"])


NEARLY_ID = st.text("0123456789abcdefg", min_size=11, max_size=13)
NEARLY_SECRET = st.text("AZaz09_-+\n", min_size=42, max_size=44)


class TestKeys:
    @given(st.sampled_from(["acme", "a", "A.b-c_1"]))
    def test_a_key_is_read_as_it_was_made(self, tenant: str) -> None:
        key, text = make_key(tenant)

        assert read_key(text) == (key.id, key.sha256)
        assert text.split("_", 2)[2] not in key.model_dump_json()
        assert key.sha256 == hash_secret(text.split("_", 2)[2])

    @given(st.text(max_size=70) | st.builds("of_{}_{}".format, NEARLY_ID, NEARLY_SECRET))
    def test_anything_else_is_refused_or_of_the_form(self, text: str) -> None:
        try:
            key_id, sha256 = read_key(text)
        except KeyRefused:
            return
        assert text.isascii() and len(text) == 59
        assert (len(key_id), len(sha256)) == (12, 64)


class TestRange:
    @given(st.integers(1, 1000), st.integers(0, 1200), st.integers(0, 1200))
    def test_a_part_is_what_python_cuts(self, size: int, first: int, last: int) -> None:
        data = range(size)

        for header, wanted in [
            (f"bytes={first}-{last}", data[first : last + 1]),
            (f"bytes={first}-", data[first:]),
            (f"bytes=-{last}", data[max(size - last, 0) :]),
        ]:
            part = byte_range(header, size)
            if part is None:
                assert last < first
            else:
                assert data[slice(*part)] == wanted or (part[0] >= part[1] and not wanted)

    @given(st.text(), st.integers(1, 1000))
    def test_whatever_is_sent_is_a_part_or_none(self, header: str, size: int) -> None:
        part = byte_range(header, size)

        assert part is None or (part[0] >= 0 and part[1] <= size)


class TestJobs:
    @given(st.dictionaries(FIELDS, JSON, max_size=5), TASKS | JSON)
    def test_any_json_is_a_request_or_a_typed_error(self, fields: dict[str, Any], task: Any) -> None:
        try:
            request = job_request({**fields, "task": task})
        except OmnifleetError as error:
            assert 400 <= http_errors.status_of(error) < 500
            return
        assert isinstance(request, Request)
        paths = [value for name, value in request.arguments.items() if name in ("audio", "video", "ref")]
        assert not any(isinstance(value, str) and "://" not in value for value in paths)

    @given(st.binary() | st.text())
    def test_any_body_is_an_object_or_a_typed_error(self, body: bytes | str) -> None:
        try:
            assert isinstance(parse_object(body), dict)
        except OmnifleetError as error:
            assert http_errors.status_of(error) == 400


class TestErrors:
    @pytest.mark.parametrize("name", sorted(error_classes()))
    def test_every_error_has_a_status_and_openais_shape(self, name: str) -> None:
        error = error_classes()[name]("the problem", "the_field", "The remedy")

        answer = http_errors.answer(error)

        record = http_errors.error_record(error)
        assert 400 <= answer.status_code < 600
        assert record["code"] == name
        assert {"message", "type", "param", "code"} <= record.keys()
        assert ("retry-after" in answer.headers) == (answer.status_code in (409, 429, 503))

    def test_no_status_stands_behind_one_that_hides_it(self) -> None:
        classes = list(http_errors.STATUS)

        hidden = [
            (one, earlier) for at, one in enumerate(classes) for earlier in classes[:at] if issubclass(one, earlier)
        ]

        assert hidden == []

    def test_words_for_operators_are_kept_from_callers(self) -> None:
        for cls in http_errors.OF_THE_FLEET:
            record = http_errors.error_record(cls("redis-7.internal:6379 refuses hunter2", "redis_url", "hunter2"))

            assert "hunter2" not in str(record) and "internal" not in str(record)
