"""Words of a transcript: splitting, comparing, finding and joining them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omnifleet_worker.jobs.speech_edit.words import find_phrase, join_words, split_words, spoken_form

TEXTS = {
    "It's  “fine” — really…": ["It's", "“fine”", "really…"],
    "你好，世界！": ["你", "好，", "世", "界！"],
    "今日は good です": ["今", "日", "は", "good", "で", "す"],
    " ... ": [],
    "L'arbre qu'il aime, d'accord": ["L'", "arbre", "qu'", "il", "aime,", "d'", "accord"],
    "aujourd’hui lorsqu’on n’a rien": ["aujourd’hui", "lorsqu’", "on", "n’", "a", "rien"],
    "50 % of C++ & 2 + 2": ["50", "%", "of", "C++", "&", "2", "+", "2"],
}


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_falls_into_words(text: str) -> None:
    assert split_words(text) == TEXTS[text]


@pytest.mark.parametrize(
    "text", ["It's fine, really.", "你好，世界！", "今日は good です", "L'arbre qu'il aime, d’accord"]
)
def test_words_make_their_text_again(text: str) -> None:
    assert join_words(split_words(text)) == text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *(
            ("we're", "were"),
            ("We'll", "well"),
            ("3.5", "35"),
            ("10:30", "1030"),
            ("1/2", "12"),
            ("555-0199", "5550199"),
        ),
        *(
            ("3,5", "35"),
            ("C++", "C"),
            ("C#", "C"),
            ("5%", "5"),
            ("$5", "5"),
            ("U.S.", "us"),
            ("l'", "l"),
            ("が", "か"),
        ),
        *(("schon", "schön"), ("ou", "où"), ("10:30", "10.30")),
    ],
)
def test_what_counts_is_kept(one: str, other: str) -> None:
    assert spoken_form(one) != spoken_form(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *(("we’re", "We're,"), ("“Fine!”", "fine"), ("Straße", "STRASSE"), ("1,000", "1000"), ("１０：３０", "10:30")),
        *(
            ("E-Mail", "email"),
            ("5–3", "5-3"),
            ("Müller", "Mu\u0308ller"),
            ("ｶﾞ", "ガ"),
            ("U.S.", "u.s"),
            ("C'est", "c’est"),
        ),
    ],
)
def test_what_does_not_count_is_dropped(one: str, other: str) -> None:
    assert spoken_form(one) == spoken_form(other)


@pytest.mark.parametrize(
    ("phrase", "heard", "places"),
    [
        ("well", "We'll see, well, soon", [(2, 3)]),
        ("very very", "very very very very", [(0, 2), (2, 4)]),
        ("arbre", "l'arbre est un arbre", [(1, 2), (4, 5)]),
        ("Email", "die E-Mail da", [(1, 2)]),
        ("e mail", "die E-Mail da", [(1, 2)]),
        ("well-known", "a well known man", [(1, 3)]),
        ("schoen", "das ist schön", [(2, 3)]),
        ("schön", "schön und schoen", [(0, 1)]),
        ("away", "a way out", []),
        ("we're", "they were here", []),
        ("天气", "今天天气很好", [(2, 4)]),
    ],
)
def test_a_phrase_is_found_where_it_is_said(phrase: str, heard: str, places: list[tuple[int, int]]) -> None:
    assert find_phrase(split_words(phrase), split_words(heard)) == places


@given(st.text())
def test_every_word_has_a_spoken_form_that_is_its_own(text: str) -> None:
    for word in split_words(text):
        assert spoken_form(word)
        assert find_phrase([word], [word]) == [(0, 1)]
