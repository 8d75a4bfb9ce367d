"""What the thinker is asked and answers about requests in free words."""

from __future__ import annotations

import pytest
from omnifleet_shared.errors import InvalidJob
from omnifleet_worker.jobs.speech_edit.changes import Change, Delete, Insert, NewTranscript, Replace, Spoken
from omnifleet_worker.jobs.speech_edit.thinker import question, read_answer


def changes(answer: str, request: str = "") -> list[Change]:
    return [clause[0][0][0] for clause in read_answer(answer, request)]


def test_the_question_holds_the_request_and_what_was_heard() -> None:
    asked = question("be polite", "give me that")

    assert "be polite" in asked and "give me that" in asked


def test_json_is_found_among_other_words() -> None:
    answer = """Sure! Here you are:
    ```json
    {"do": "replace", "old": "give", "new": "please give"},
    {"DO": "delete", "old": "now"}
    {"do": "insert", "new": "please", "after": "that"} {"do": "dance"} {broken} {"do": "delete", "old": 5}
    {"do": "insert", "new": "sir", "before": "me"}
    ```"""

    assert changes(answer) == [
        *(Replace(Spoken("give"), "please give"), Delete(Spoken("now"))),
        *(Insert("please", "after", Spoken("that")), Insert("sir", "before", Spoken("me"))),
    ]


def test_a_new_transcript_stands_for_all() -> None:
    assert changes('{"do": "delete", "old": "a"}\n{"do": "say", "new": "b c"}') == [NewTranscript("b c")]


@pytest.mark.parametrize(("told", "which"), [("2", 2), ('"last"', -1), ('"all"', 0), ('"every"', 0), ("null", None)])
def test_it_may_say_which_place_is_meant(told: str, which: int | None) -> None:
    assert changes(f'{{"do": "delete", "old": "um", "which": {told}}}') == [Delete(Spoken("um", which))]


def test_the_count_of_the_request_holds_where_it_says_none() -> None:
    (clause,) = read_answer('{"do": "delete", "old": "um"}', "spare us all of those noises")

    assert clause == (((Delete(Spoken("um", 0)),),), ((Delete(Spoken("um")),),))


@pytest.mark.parametrize(
    "answer", ["", "I cannot do that", "[]", "{}", '{"do": "replace"}', '{"do": "say", "new": " "}']
)
def test_none_at_all_is_refused_with_examples(answer: str) -> None:
    with pytest.raises(InvalidJob, match="replace 'hello' with 'goodbye'") as caught:
        read_answer(answer, "")

    assert caught.value.field == "desc"
