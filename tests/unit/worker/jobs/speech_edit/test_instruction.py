"""What people write when they want words changed, as changes; whatever else they write is no accident."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omnifleet_shared.errors import InvalidJob
from omnifleet_worker.jobs.speech_edit.instruction import (
    Change,
    Delete,
    Insert,
    NewTranscript,
    Replace,
    question,
    read_answer,
    read_instruction,
)
from omnifleet_worker.jobs.speech_edit.word_edits import WordEdit, find_edits, is_transcript_of
from omnifleet_worker.jobs.speech_edit.words import join_words, split_words

READ: dict[str, list[Change]] = {
    "replace 'hello' with 'goodbye'": [Replace("hello", "goodbye")],
    "Replace hello with goodbye.": [Replace("hello", "goodbye")],
    "CHANGE “don’t go” TO “stay”": [Replace("don’t go", "stay")],
    "swap 「你好」 for 「再见」": [Replace("你好", "再见")],
    "replace 'don't' with 'do'": [Replace("don't", "do")],
    "replace salt and pepper with sugar": [Replace("salt and pepper", "sugar")],
    "replace the cat with the dog": [Replace("the cat", "the dog")],
    "replace first with second": [Replace("first", "second")],
    "«un» → «deux»": [Replace("un", "deux")],
    'delete the word "very"': [Delete("very")],
    "remove the second 'very'": [Delete("very", 2)],
    "cut out the last `um`": [Delete("um", -1)],
    "delete every 'um'": [Delete("um", 0)],
    "replace all occurrences of 'um' with 'ah'": [Replace("um", "ah", 0)],
    "insert 'not' after 'is'": [Insert("not", "after", "is")],
    "add the words 'oh my' before the third 'god'": [Insert("oh my", "before", "god", 3)],
    "delete 'a' and 'b', then 'c'": [Delete("a"), Delete("b"), Delete("c")],
    "replace 'a' with 'b' and 'c' with 'd'": [Replace("a", "b"), Replace("c", "d")],
    "replace hello with goodbye; delete world, and then insert 'x' after y": [
        *(Replace("hello", "goodbye"), Delete("world")),
        Insert("x", "after", "y"),
    ],
    "Please replace 'a and b; c' by 'd', and please remove 'e'": [Replace("a and b; c", "d"), Delete("e")],
    "say 'good evening to all'": [NewTranscript("good evening to all")],
    "new transcript: good evening, all": [NewTranscript("good evening, all")],
    "„Guten Abend“": [NewTranscript("Guten Abend")],
}


@pytest.mark.parametrize("text", READ)
def test_plain_requests_are_read(text: str) -> None:
    assert read_instruction(text) == READ[text]


@pytest.mark.parametrize(
    "text",
    ["", "make him sound happier", "replace", "replace 'a'", "delete", "'a' and 'b'", "say hello", "insert 'a'", "and"],
)
def test_what_the_grammar_cannot_read_whole_is_left_to_others(text: str) -> None:
    assert read_instruction(text) is None


@given(st.text(max_size=300) | st.lists(st.sampled_from([*"'\"“”‘’«»;,{}: ", *" ".join(READ).split()])).map(" ".join))
def test_no_text_breaks_it(text: str) -> None:
    with suppress(InvalidJob):
        find_edits(read_instruction(text) or read_answer(text), ["hello", "world"])


@pytest.mark.parametrize(
    "text", ["and " * 2500, "'" * 10_000, "replace a with " * 600, "delete " + "a " * 4900, "{" * 10_000, ", " * 5000]
)
def test_a_long_text_is_read_in_no_more_than_its_square(text: str) -> None:
    read_instruction(text)
    with suppress(InvalidJob):
        read_answer(text)


class TestThinkersAnswer:
    def test_the_question_holds_the_request_and_what_was_heard(self) -> None:
        asked = question("be polite", "give me that")

        assert "be polite" in asked and "give me that" in asked

    def test_json_is_found_among_other_words(self) -> None:
        answer = """Sure! Here you are:
        ```json
        {"do": "replace", "old": "give", "new": "please give"},
        {"DO": "delete", "old": "now"}
        {"do": "insert", "new": "please", "after": "that"} {"do": "dance"} {broken} {"do": "delete", "old": 5}
        {"do": "insert", "new": "sir", "before": "me"}
        ```"""

        assert read_answer(answer) == [
            *(Replace("give", "please give"), Delete("now")),
            *(Insert("please", "after", "that"), Insert("sir", "before", "me")),
        ]

    def test_a_new_transcript_stands_for_all(self) -> None:
        assert read_answer('{"do": "delete", "old": "a"}\n{"do": "say", "new": "b c"}') == [NewTranscript("b c")]

    @pytest.mark.parametrize(
        "answer", ["", "I cannot do that", "[]", "{}", '{"do": "replace"}', '{"do": "say", "new": " "}']
    )
    def test_none_at_all_is_refused_with_examples(self, answer: str) -> None:
        with pytest.raises(InvalidJob, match="replace 'hello' with 'goodbye'") as caught:
            read_answer(answer)

        assert caught.value.field == "desc"


HEARD = split_words("Hello, world! Hello again, my dear world.")


class TestPlaces:
    @pytest.mark.parametrize(
        ("change", "edits"),
        [
            (Replace("HELLO", "Bye"), [WordEdit(0, 1, ("Bye",))]),
            (Replace("hello", "Bye", 2), [WordEdit(2, 3, ("Bye",))]),
            (Replace("hello", "Bye", -1), [WordEdit(2, 3, ("Bye",))]),
            (Delete("world", 0), [WordEdit(1, 2, ()), WordEdit(6, 7, ())]),
            (Delete("my dear"), [WordEdit(4, 6, ())]),
            (Insert("very", "before", "dear"), [WordEdit(5, 5, ("very",))]),
            (Insert("oh my", "after", "world", -1), [WordEdit(7, 7, ("oh", "my"))]),
            (NewTranscript("hello, World, hello my very dear"), [
                *(WordEdit(3, 4, ()), WordEdit(5, 5, ("very",)), WordEdit(6, 7, ())),
            ]),
        ],
    )  # fmt: skip
    def test_changes_find_their_words(self, change: Change, edits: list[WordEdit]) -> None:
        assert find_edits([change], HEARD) == edits

    def test_several_come_in_the_recordings_order(self) -> None:
        edits = find_edits([Delete("dear"), Replace("hello", "bye")], HEARD)

        assert edits == [WordEdit(0, 1, ("bye",)), WordEdit(5, 6, ())]

    def test_edits_side_by_side_become_one(self) -> None:
        edits = find_edits([Replace("my", "your"), Delete("dear"), Insert("big", "before", "world", 2)], HEARD)

        assert edits == [WordEdit(4, 6, ("your", "big"))]

    def test_a_word_that_is_not_said_is_named_with_what_was_heard(self) -> None:
        with pytest.raises(InvalidJob, match="'worlds' is not said; heard was: Hello, world! Hello") as caught:
            find_edits([Delete("worlds")], HEARD)

        assert caught.value.field == "desc"
        assert caught.value.details["heard"] == "Hello, world! Hello again, my dear world."
        assert "Did you mean 'world'?" in (caught.value.remedy or "")

    def test_an_occurrence_too_many_is_told(self) -> None:
        with pytest.raises(InvalidJob, match="'hello' is said 2 times only"):
            find_edits([Delete("hello", 3)], HEARD)

    def test_two_changes_of_one_word_are_refused(self) -> None:
        with pytest.raises(InvalidJob, match="two changes are of the same words"):
            find_edits([Delete("my dear"), Replace("dear", "old")], HEARD)

    def test_nothing_to_change_is_refused(self) -> None:
        with pytest.raises(InvalidJob, match="says that already"):
            find_edits([NewTranscript("HELLO world hello again my dear world")], HEARD)

    @pytest.mark.parametrize(
        "change", [Replace("world", "…"), Delete("!"), NewTranscript("?"), Insert("-", "after", "my")]
    )
    def test_what_nobody_can_say_is_refused(self, change: Change) -> None:
        with pytest.raises(InvalidJob, match="no word that could be said"):
            find_edits([change], HEARD)

    def test_a_text_much_like_what_was_heard_is_a_transcript(self) -> None:
        assert is_transcript_of("Goodbye, world! Hello again, my old friend.", HEARD)
        assert not is_transcript_of("make the speaker sound kinder", HEARD)


class TestWords:
    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("It's  “fine” — really…", ["It's", "“fine”", "really…"]),
            ("你好，世界！", ["你", "好，", "世", "界！"]),
            ("今日は good です", ["今", "日", "は", "good", "で", "す"]),
            (" ... ", []),
        ],
    )
    def test_a_text_falls_into_words(self, text: str, words: list[str]) -> None:
        assert split_words(text) == words

    @pytest.mark.parametrize("text", ["It's fine, really.", "你好，世界！", "今日は good です"])
    def test_words_make_their_text_again(self, text: str) -> None:
        assert join_words(split_words(text)) == text
