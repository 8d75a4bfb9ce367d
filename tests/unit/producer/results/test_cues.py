"""Subtitles as people make them: short lines that end where sentences, clauses and pauses do, long enough to read."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omnifleet.results.cues import LINE_COLUMNS, LONGEST, SHORTEST, Cue, columns, make_cues
from omnifleet_shared.schema.transcript import HeardSegment, HeardWord, Transcript

ENGLISH = (
    "Good evening, everybody. Today we talk about Dr. Smith's new book, which has sold 3,500 copies since Monday; "
    "that is a lot! Is it? The publishers think otherwise, and they have told us so."
)
CHINESE = (
    "大家晚上好。今天我们来谈谈一本新书，它从星期一开始已经卖了三千五百本；"
    "作者说：「这是很多的！」不过出版社不这么认为。"
)


def by_words(words: list[str], pause: float = 0.15, after: float = 1.0) -> Transcript:
    """Words of 0.25 s each, one after the other."""
    step = 0.25 + pause
    timed = [HeardWord(text=word, start=n * step, end=n * step + 0.25) for n, word in enumerate(words)]
    return Transcript(seconds=len(words) * step + after, words=tuple(timed), segments=())


def joined(cues: list[Cue]) -> str:
    return " ".join(" ".join(cue.lines) for cue in cues)


def lines(cues: list[Cue]) -> list[tuple[str, ...]]:
    return [cue.lines for cue in cues]


def test_cues_end_with_sentences_and_clauses() -> None:
    cues = make_cues(ENGLISH, by_words(ENGLISH.split()))

    assert joined(cues) == ENGLISH
    ends = [cue.lines[-1].split()[-1] for cue in cues]
    assert all(end[-1] in ".,;!?" for end in ends)
    assert "Dr." not in ends
    assert "everybody." in ends


def test_chinese_breaks_between_signs_and_never_before_a_mark() -> None:
    words = re.findall(r"\w[^\w]*", CHINESE)

    cues = make_cues(CHINESE, by_words(words))

    assert "".join("".join(cue.lines) for cue in cues) == CHINESE
    assert max(len(line) for cue in cues for line in cue.lines) <= LINE_COLUMNS // 2
    firsts = {line[0] for cue in cues for line in cue.lines}
    assert not firsts & set("，。；：！」")
    assert not any(line.endswith("「") for cue in cues for line in cue.lines)


def test_a_long_pause_ends_a_cue_whatever_is_said() -> None:
    words = tuple(
        HeardWord(text=text, start=at, end=at + 0.5) for text, at in (("so", 0.0), ("well", 3.0), ("yes", 3.6))
    )

    cues = make_cues("so well yes", Transcript(seconds=5.0, words=words, segments=()))

    assert cues == [Cue(0.0, 1.0, ("so",)), Cue(3.0, 4.1, ("well yes",))]


def test_a_word_at_the_very_end_is_shown_for_a_second_all_the_same() -> None:
    words = (HeardWord(text="Go.", start=0.0, end=0.5), HeardWord(text="Stop.", start=3.8, end=4.0))

    cues = make_cues("Go. Stop.", Transcript(seconds=4.0, words=words, segments=()))

    assert [(cue.start, cue.end) for cue in cues] == [(0.0, 1.0), (3.0, 4.0)]


def test_what_is_said_very_slowly_is_not_shown_for_longer_than_it_may() -> None:
    words = (HeardWord(text="Ommm", start=0.0, end=30.0),)

    (cue,) = make_cues("Ommm", Transcript(seconds=30.0, words=words, segments=()))

    assert (cue.start, cue.end) == (0.0, LONGEST)


@pytest.mark.parametrize(
    ("text", "words", "whole"),
    [
        (
            "L'arbre qu'il a planté « hier » s'est couché !",
            ["L'", "arbre", "qu'", "il", "a", "planté", "hier", "s'", "est", "couché"],
            "« hier »",
        ),
        ("Er sagte: „Donau­dampfschifffahrt“.", ["Er", "sagte:", "„Donau­dampfschifffahrt“."], "„Donau"),
    ],
)
def test_what_belongs_together_stays_on_its_line(text: str, words: list[str], whole: str) -> None:
    cues = make_cues(text, by_words(words))

    assert joined(cues) == text
    assert any(whole in line for cue in cues for line in cue.lines)
    assert not any(line.startswith(("arbre", "!", "»", "est")) for cue in cues for line in cue.lines)


def test_a_word_wider_than_a_line_is_cut() -> None:
    address = "https://example.com/" + "a" * 80

    cues = make_cues(address, by_words([address], pause=3.0))

    assert "".join("".join(cue.lines) for cue in cues) == address


def test_segments_without_words_are_divided_by_their_length() -> None:
    segments = (HeardSegment(text=ENGLISH, start=2.0, end=18.0),)

    cues = make_cues(ENGLISH, Transcript(seconds=20.0, segments=segments))

    assert joined(cues) == ENGLISH
    assert (cues[0].start, cues[-1].end) == (2.0, 18.0)
    assert len(cues) > 3


def test_nothing_said_is_no_cue() -> None:
    assert make_cues("", Transcript(seconds=5.0, words=(), segments=())) == []


def test_two_hours_are_laid_out_in_a_few_seconds() -> None:
    text = " ".join(["Nobody knows, but everybody says so all the time."] * 2_000)

    cues = make_cues(text, by_words(text.split(), pause=0.15))

    assert joined(cues) == text
    assert cues[-1].end > 7_000


WORDS = st.one_of(
    st.text("abc.,!?", min_size=1, max_size=12).filter(lambda word: any(c.isalnum() for c in word)),
    st.text("天地人。，", min_size=1, max_size=4).filter(lambda word: word[0].isalnum()),
    st.just("w" * 60),
)
TIMES = st.tuples(st.floats(0.0, 4.0), st.floats(0.01, 9.0))


@given(st.lists(st.tuples(WORDS, TIMES, st.sampled_from(["", " ", "\n", " — ", "\u00a0"])), max_size=40), st.booleans())
def test_whatever_is_said_fits_and_is_in_order(
    said: list[tuple[str, tuple[float, float], str]], with_words: bool
) -> None:
    text, at, parts = "", 0.0, []
    for word, (pause, length), space in said:
        text, start = text + word + space, at + pause
        at = start + length
        parts.append({"text": word, "start": start, "end": at})
    words = tuple(HeardWord(**part) for part in parts) if with_words else None
    segments = tuple(HeardSegment(**part) for part in parts)
    transcript = Transcript(seconds=at, words=words, segments=segments)

    cues = make_cues(text, transcript)

    assert letters(cues) == letters(text)
    for cue in cues:
        assert 1 <= len(cue.lines) <= 2
        assert all(0 < len(line) <= columns(line) <= LINE_COLUMNS for line in cue.lines)
        assert 0 <= cue.start <= cue.end <= at
        assert cue.end - cue.start <= LONGEST + 1e-9
    assert all(one.end <= after.start + 1e-9 for one, after in pairwise(cues))


def letters(said: str | list[Cue]) -> str:
    text = said if isinstance(said, str) else "".join("".join(cue.lines) for cue in said)
    return "".join(text.split())


@given(st.lists(st.floats(0.0, 0.2), min_size=8, max_size=60))
def test_speech_without_an_end_is_shown_for_a_second_at_least(pauses: list[float]) -> None:
    at, words = 0.0, []
    for pause in pauses:
        words.append(HeardWord(text="word", start=at + pause, end=at + pause + 0.3))
        at = words[-1].end
    text = " ".join("word" for _ in words)

    cues = make_cues(text, Transcript(seconds=at + 1, words=tuple(words), segments=()))

    assert all(SHORTEST - 1e-9 <= cue.end - cue.start <= LONGEST + 1e-9 for cue in cues)
