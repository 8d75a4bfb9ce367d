"""What people write when they want words changed, as clauses with all that each may mean."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omnifleet_shared.errors import InvalidJob
from omnifleet_worker.jobs.speech_edit.changes import (
    Change,
    Clause,
    Delete,
    Insert,
    NewTranscript,
    Position,
    Replace,
    Spoken,
)
from omnifleet_worker.jobs.speech_edit.instruction import asks_for_change, read_instruction, told_count
from omnifleet_worker.jobs.speech_edit.languages import LANGUAGES
from omnifleet_worker.jobs.speech_edit.thinker import read_answer
from omnifleet_worker.jobs.speech_edit.word_edits import Ambiguous, find_edits
from omnifleet_worker.jobs.speech_edit.words import split_words

QUOTED: dict[str, list[Change]] = {
    "replace 'hello' with 'goodbye'": [Replace(Spoken("hello"), "goodbye")],
    "CHANGE “don’t go” TO “stay”": [Replace(Spoken("don’t go"), "stay")],
    "replace 'don't' with 'do'": [Replace(Spoken("don't"), "do")],
    "swap 「你好」 for 「再见」": [Replace(Spoken("你好"), "再见")],
    'delete the word "very"': [Delete(Spoken("very"))],
    "remove the second 'very'": [Delete(Spoken("very", 2))],
    "remove the second to last 'very'": [Delete(Spoken("very", -2))],
    "cut out the last `um`": [Delete(Spoken("um", -1))],
    "delete every 'um'": [Delete(Spoken("um", 0))],
    "replace all occurrences of 'um' with 'ah'": [Replace(Spoken("um", 0), "ah")],
    "insert 'not' after 'is'": [Insert("not", "after", Spoken("is"))],
    "add the words 'oh my' before the third 'god'": [Insert("oh my", "before", Spoken("god", 3))],
    "delete all 'a' and 'b', then 'c'": [Delete(Spoken("a", 0)), Delete(Spoken("b", 0)), Delete(Spoken("c", 0))],
    "replace 'a' with 'b' and 'c' with 'd'": [Replace(Spoken("a"), "b"), Replace(Spoken("c"), "d")],
    "Please replace 'a and b; c' by 'd', and please remove 'e'": [
        Replace(Spoken("a and b; c"), "d"),
        Delete(Spoken("e")),
    ],
    "say 'good evening to all'": [NewTranscript("good evening to all")],
    "new transcript: good evening, all": [NewTranscript("good evening, all")],
    "„Guten Abend“": [NewTranscript("Guten Abend")],
    "add 'thanks' at the end": [Insert("thanks", "after", Position(-1))],
}


@pytest.mark.parametrize("text", QUOTED)
def test_quoted_requests_mean_one_thing(text: str) -> None:
    clauses = read_instruction(text)

    assert clauses is not None
    assert [clause[0] for clause in clauses] == [((change,),) for change in QUOTED[text]]


MARKS = [
    "„a“",
    "„a”",
    "«a»",
    "»a«",
    "“a”",
    "‘a’",
    "’a’",
    "「a」",
    "『a』",
    "｢a｣",
    '"a"',
    "'a'",
    "‚a‘",
    "‚a’",
    "‹a›",
    "›a‹",
    "＂a＂",
    "＇a＇",
    "”a”",
    "〝a〟",
    "`a`",
]


@pytest.mark.parametrize("quoted", MARKS)
@pytest.mark.parametrize("request_text", ["delete {}", "把{}删掉", "{}を削除して", "supprime {}", "lösche {}"])
def test_quotation_marks_of_all_five_languages_are_read(quoted: str, request_text: str) -> None:
    clauses = read_instruction(request_text.format(quoted))

    assert clauses is not None
    assert [clause[0] for clause in clauses] == [((Delete(Spoken("a")),),)]


def readings(clause: Clause) -> list[Change]:
    return [change for rank in clause for reading in rank for change in reading]


def test_a_place_is_read_as_words_too() -> None:
    clauses = read_instruction("delete the last word")

    assert clauses is not None
    assert set(clauses[0][0]) >= {(Delete(Position(-1)),), (Delete(Spoken("last word")),)}


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("delete the last two words", Position(-1, 2)),
        ("supprime les deux derniers mots", Position(-1, 2)),
        ("lösche die letzten drei Wörter", Position(-1, 3)),
        ("删除最后两个字", Position(-1, 2)),
        ("delete the first three words", Position(1, 3)),
    ],
)
def test_several_words_have_a_place_too(text: str, position: Position) -> None:
    clauses = read_instruction(text)

    assert clauses is not None
    assert Delete(position) in readings(clauses[0])


@pytest.mark.parametrize(
    "text",
    ["", "make him sound happier", "replace", "replace 'a'", "delete", "'a' and 'b'", "say hello", "insert 'a'", "and"],
)
def test_what_the_grammar_cannot_read_whole_is_left_to_others(text: str) -> None:
    assert read_instruction(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "it was 'good'",
        "Can you replace it",
        "il faut changer ça",
        "bitte lösche das",
        "请把它删掉",
        "それを削除して",
    ],
)
def test_a_request_is_known_by_its_quotes_or_its_verb(text: str) -> None:
    assert asks_for_change(text)


@pytest.mark.parametrize(
    "text", ["We meet on Friday.", "Wir gehen heim.", "明天我们去爬山", "明日行きます", "C'est l'été."]
)
def test_a_transcript_asks_for_nothing(text: str) -> None:
    assert not asks_for_change(text)


@pytest.mark.parametrize(
    ("text", "which"),
    [
        ("get rid of all of those", 0),
        ("he said it twice, mute the last one", -1),
        ("vire toutes les hésitations", 0),
        ("すべての言い淀みを", 0),
        ("所有的都不要", 0),
        ("the first and the last one", None),
        ("make it shorter", None),
        ("the ball", None),
    ],
)
def test_the_only_count_of_a_request_is_told(text: str, which: int | None) -> None:
    assert told_count(text) == which


TABLES = " ".join(str(vars(language)) for language in LANGUAGES)
PIECES = sorted(
    {
        *" ".join(QUOTED).split(),
        *MARKS,
        *["hello", "world", "a", "b", "c", "你", "好", "l'", "を", "に", "と", "。", "、", "，"],
    }
)
TEXTS = st.text(max_size=200) | st.lists(st.sampled_from(PIECES)).map(" ".join) | st.text(TABLES, max_size=100)
HEARD = st.lists(
    st.sampled_from(["hello", "world", "a", "b", "c", "你", "好", "l'arbre", "3.5", "Hello,", "very"]), min_size=1
)


@settings(deadline=None)
@given(TEXTS, HEARD)
def test_whatever_is_asked_for_every_edit_lies_in_what_was_heard(text: str, heard: list[str]) -> None:
    words = split_words(" ".join(heard))
    with suppress(InvalidJob):
        found = find_edits(read_instruction(text) or read_answer(text, text), words)

        for edits in found.readings if isinstance(found, Ambiguous) else [tuple(found)]:
            assert all(0 <= edit.first <= edit.last <= len(words) for edit in edits)
            assert all(edit.new or edit.first < edit.last for edit in edits)
        if not isinstance(found, Ambiguous):
            # In order, with a word that stays between any two, so that all other words are as they were.
            assert all(one.last < other.first for one, other in pairwise(found))


@pytest.mark.parametrize(
    "text",
    [
        *("and " * 2500, "'" * 10_000, "replace a with " * 600, "delete " + "a " * 4900, "{" * 10_000, ", " * 5000),
        *("sorry " * 1600, "please " * 1400, "を" * 10_000, "把a改成b，" * 1400, "insert a after a before " * 400),
    ],
)
def test_a_long_text_is_read_in_no_more_than_its_square(text: str) -> None:
    read_instruction(text)
    with suppress(InvalidJob):
        read_answer(text, text)
