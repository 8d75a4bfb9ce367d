"""The speech tokeniser against the published one's tokens and ids, and against any text at all."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omnifleet_worker.models.audio_omni.speech_tokenizer import SpeechTokenizer

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "data" / "speech_tokens.json").read_text("utf-8"))
TEXTS = [case["text"] for case in CASES]


def known_vocab() -> list[str]:
    """As much of the published vocabulary as the cases show; the other lines hold tokens that no text gives."""
    ids = {place: token for case in CASES for token, place in zip(case["tokens"], case["ids"], strict=True)}
    return [ids.get(place, f"<{place}>") for place in range(max(ids) + 1)]


@pytest.fixture(scope="module")
def tokenizer() -> SpeechTokenizer:
    return SpeechTokenizer(known_vocab())


@pytest.mark.parametrize("case", CASES, ids=TEXTS)
def test_tokens_and_ids_match_the_published_ones(tokenizer: SpeechTokenizer, case: dict[str, Any]) -> None:
    assert tokenizer.split(case["text"]) == case["tokens"]
    assert tokenizer.encode(case["text"]) == case["ids"]


def test_unknown_tokens_become_id_zero(tokenizer: SpeechTokenizer) -> None:
    assert tokenizer.encode("o漢\U0001f600") == [known_vocab().index("o"), 0, 0, 0]


@pytest.mark.parametrize(
    ("text", "share"),
    [("", 0.0), ("   ", 0.0), ("Hello", 0.0), ("o\U0001f600", 0.5), ("안녕하세요", 1.0), ("Привет", 1.0)],
)
def test_unknown_share_counts_spoken_tokens_only(tokenizer: SpeechTokenizer, text: str, share: float) -> None:
    assert tokenizer.unknown_share(text) == share


def test_runs_without_a_reading_stay_in_step(tokenizer: SpeechTokenizer) -> None:
    assert tokenizer.split("……々ㄅ") == ["…", "…", "々", " ", "ㄅ"]


def test_threads_agree(tokenizer: SpeechTokenizer) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(tokenizer.split, TEXTS * 20)) == [case["tokens"] for case in CASES] * 20


@settings(deadline=None)
@given(
    text=st.text(st.characters(exclude_categories=()), max_size=40)
    | st.text(st.characters(min_codepoint=0x3000, max_codepoint=0x9FFF), max_size=40)
)
def test_any_text_gives_ids_of_the_vocabulary(tokenizer: SpeechTokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert len(ids) == len(tokenizer.split(text))
    assert all(0 <= place < len(known_vocab()) for place in ids)
    assert 0.0 <= tokenizer.unknown_share(text) <= 1.0
