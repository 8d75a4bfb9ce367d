"""Idempotency keys: given, made of the content, refused."""

from __future__ import annotations

from typing import Any

import pytest
from omnifleet import Client, InvalidJob, JobFailed
from omnifleet.request.build import build_job
from omnifleet.request.idempotency import LONGEST_KEY, idempotency_key
from omnifleet.testing import FakeClient
from omnifleet_shared.schema.model_card import AUDIO_OMNI


def key(text: str = "rain", **options: Any) -> str | None:
    options = {"idempotency_key": "auto"} | options
    made = idempotency_key(build_job("generate", {"name": "t2a", "text": text}, options), options)
    return None if made is None else made.key


def test_a_key_that_was_given_is_taken_as_it_is() -> None:
    assert key(idempotency_key="order 7: é") == "order 7: é"


def test_without_one_there_is_none() -> None:
    assert key(idempotency_key=None) is None


def test_the_same_content_has_the_same_key() -> None:
    assert key() == key() == key(priority="batch") == key(deadline=60) == key(seed=None)


@pytest.mark.parametrize("other", [{"text": "snow"}, {"seed": 7}, {"steps": 7}, {"format": "flac"}, {"guidance": 2.0}])
def test_other_content_has_another_key(other: dict[str, Any]) -> None:
    assert key(**other) != key()


def test_a_seed_that_is_given_counts() -> None:
    assert key(seed=7) == key(seed=7) != key(seed=8)


def test_another_revision_of_the_model_has_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key()
    monkeypatch.setattr(
        "omnifleet.request.idempotency.AUDIO_OMNI", AUDIO_OMNI.model_copy(update={"revision": "second"})
    )

    assert key() != before


@pytest.mark.parametrize("bad", ["", "x" * (LONGEST_KEY + 1), 7, b"order"])
def test_what_is_no_key_is_refused_and_nothing_is_sent(bad: Any) -> None:
    omni = FakeClient()

    with pytest.raises(InvalidJob, match="is no key") as refused:
        omni.generate("t2a", "rain", idempotency_key=bad)

    assert refused.value.field == "idempotency_key"
    assert omni.jobs == []


ASK: dict[str, Any] = {
    "understand": lambda omni: omni.understand("caption", b"RIFF", idempotency_key="k"),
    "generate": lambda omni: omni.generate("t2a", "rain", idempotency_key="k"),
    "edit": lambda omni: omni.edit("add", b"RIFF", desc="rain", idempotency_key="k"),
}


@pytest.mark.parametrize("ask", ASK.values(), ids=ASK)
def test_every_namespace_takes_one(ask: Any) -> None:
    omni: Client = FakeClient()

    assert ask(omni).id == ask(omni).id


def test_the_fake_replaces_what_failed() -> None:
    omni = FakeClient(lambda job: JobFailed("it broke"))
    failed = omni.generate("t2a", "rain", idempotency_key="k")
    omni.fleet.answer = None
    omni.fleet.hold()

    held = omni.generate("t2a", "rain", idempotency_key="k")
    held.cancel()
    done = omni.generate("t2a", "rain", idempotency_key="k")

    assert len({failed.id, held.id, done.id}) == len(omni.jobs) == 3
    assert omni.generate("t2a", "rain", idempotency_key="k").id == done.id
