"""Signing callbacks, and telling a signed one from any other."""

from __future__ import annotations

import hashlib
import hmac
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omnifleet import InvalidMessage, JobStatus, MediaTooLong, SignatureInvalid, verify_callback
from omnifleet_shared.schema.callback import failed
from omnifleet_shared.webhooks.signatures import SIGNATURE, TIMESTAMP, sign_callback

SECRET = "a secret of the fleet"
BODY = failed("job-1", MediaTooLong("it is 400 s long", "audio", "Cut it", {"seconds": 400}), "d-1").model_dump_json()
NOW = 1_763_956_800.0


def signed(body: bytes = BODY.encode(), secret: str = SECRET, now: float = NOW) -> dict[str, str]:
    return sign_callback(body, "d-1", secret, now)


def test_what_was_signed_is_read() -> None:
    outcome = verify_callback(BODY.encode(), signed(now=time.time()), SECRET)

    assert (outcome.delivery_id, outcome.job_id, outcome.status) == ("d-1", "job-1", JobStatus.FAILED)
    error = outcome.exception
    assert type(error) is MediaTooLong
    assert error.args == ("it is 400 s long", "audio", "Cut it", {"seconds": 400})


def test_headers_are_found_in_any_case() -> None:
    assert verify_callback(BODY.encode(), {name.upper(): value for name, value in signed().items()}, SECRET, now=NOW)


def test_the_signature_is_as_the_readme_says() -> None:
    expected = hmac.new(SECRET.encode(), b"1763956800." + BODY.encode(), hashlib.sha256).hexdigest()

    assert signed()[SIGNATURE] == f"v1={expected}"


@pytest.mark.parametrize(
    "changes",
    [
        {"secret": "another secret"},
        {"headers": {}},
        {"headers": signed() | {SIGNATURE: ""}},
        {"headers": signed() | {SIGNATURE: "v1="}},
        {"headers": signed() | {SIGNATURE: signed()[SIGNATURE].removeprefix("v1=")}},
        {"headers": signed() | {TIMESTAMP: "1763956801"}},
        {"headers": signed() | {TIMESTAMP: "soon"}},
        {"headers": signed() | {SIGNATURE: "v1=\udc80é"}},
        {"body": BODY.encode() + b" "},
        {"body": b""},
    ],
)
def test_anything_that_was_not_signed_so_is_refused(changes: dict[str, Any]) -> None:
    given = {"body": BODY.encode(), "headers": signed(), "secret": SECRET} | changes

    with pytest.raises(SignatureInvalid, match="not signed"):
        verify_callback(**given, now=NOW)


@pytest.mark.parametrize("seconds", [-301, 301, 86_400])
def test_a_replay_out_of_its_window_is_refused(seconds: int) -> None:
    with pytest.raises(SignatureInvalid, match="300 s away"):
        verify_callback(BODY.encode(), signed(), SECRET, now=NOW + seconds)

    assert verify_callback(BODY.encode(), signed(), SECRET, now=NOW + seconds, max_age=100_000)


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"schema_version": 1, "job_id": "x"}', b'{"schema_version": 99}'])
def test_a_signed_body_of_another_form_is_an_invalid_message(body: bytes) -> None:
    with pytest.raises(InvalidMessage):
        verify_callback(body, signed(body), SECRET, now=NOW)


@given(body=st.binary(), timestamp=st.text(), signature=st.text())
def test_whatever_comes_is_an_outcome_or_a_typed_error(body: bytes, timestamp: str, signature: str) -> None:
    with pytest.raises(InvalidMessage):
        verify_callback(body, {TIMESTAMP: timestamp, SIGNATURE: signature}, SECRET)
