"""What was made of some content is made once, and no more of it is kept than allowed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from omnifleet_worker.models.audio_omni.chat import Chat
from omnifleet_worker.models.content_cache import CacheFigures, ContentCache, digest

WAVE = np.arange(4, dtype=np.float32)
CHAT = Chat("system", "user", audio=(WAVE,), earlier=(("a", "b"),))


def text_cache(most: int) -> ContentCache[str]:
    return ContentCache(most, len)


def test_equal_content_is_made_once() -> None:
    cache, made = text_cache(100), []

    for chat in (CHAT, replace(CHAT, audio=(WAVE.copy(),))):
        assert cache.get("prompt", chat, lambda: made.append(1) or "made") == "made"

    assert made == [1]
    assert cache.figures == CacheFigures(hits=1, misses=1, bytes=4)


def test_another_kind_of_the_same_content_is_something_else() -> None:
    cache = text_cache(100)

    assert cache.get("prompt", "a", lambda: "one") == "one"
    assert cache.get("speech", "a", lambda: "two") == "two"


def test_what_was_not_used_for_longest_goes_first() -> None:
    cache = text_cache(2)
    for content in ("a", "b", "a", "c"):
        cache.get("", content, lambda content=content: content)

    assert cache.get("", "a", pytest.fail) == "a"
    assert cache.get("", "b", lambda: "B") == "B"
    assert cache.figures.bytes == 2


@pytest.mark.parametrize("most", [0, 3])
def test_what_is_larger_than_the_cache_is_not_kept(most: int) -> None:
    cache = text_cache(most)

    assert cache.get("", "a", lambda: "large") == "large"
    assert cache.figures == CacheFigures(hits=0, misses=1, bytes=0)


def test_what_is_larger_than_the_cache_drives_nothing_out() -> None:
    cache = text_cache(3)
    cache.get("", "a", lambda: "abc")

    cache.get("", "b", lambda: "large")

    assert cache.get("", "a", pytest.fail) == "abc"


def test_what_could_not_be_made_is_tried_again() -> None:
    cache = text_cache(10)

    with pytest.raises(ZeroDivisionError):
        cache.get("", "a", lambda: 1 / 0)  # type: ignore[arg-type, return-value]

    assert cache.get("", "a", lambda: "made") == "made"


OTHERS = [
    replace(CHAT, system="other"),
    replace(CHAT, user="other"),
    replace(CHAT, audio=(WAVE + 1,)),
    replace(CHAT, audio=(WAVE.astype(np.float64),)),
    replace(CHAT, audio=(WAVE.reshape(2, 2),)),
    replace(CHAT, audio=(WAVE[:2], WAVE[2:])),
    replace(CHAT, audio=(), video=(WAVE,)),
    replace(CHAT, earlier=()),
    replace(CHAT, earlier=(("ab", ""),)),
    None,
    "",
]


@pytest.mark.parametrize("other", OTHERS, ids=range(len(OTHERS)))
def test_other_content_has_another_hash(other: Any) -> None:
    assert digest(other) != digest(CHAT)


PARTS = st.recursive(
    st.none() | st.text(max_size=3) | st.integers(0, 3),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=6,
)


@given(PARTS, PARTS)
def test_only_equal_contents_share_a_hash(one: Any, other: Any) -> None:
    assert (digest(one) == digest(other)) == (one == other)


@given(st.binary(max_size=8), st.integers(0, 8))
def test_arrays_do_not_run_into_each_other(data: bytes, at: int) -> None:
    whole = np.frombuffer(data, np.uint8)
    parts = (whole[:at], whole[at:])

    assert digest((whole,)) != digest(parts)
    assert digest(parts) == digest(tuple(np.array(part) for part in parts))
