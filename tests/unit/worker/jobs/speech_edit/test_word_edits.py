"""Where changes apply among the words that were heard, which decide between readings."""

from __future__ import annotations

import pytest
from omnifleet_shared.errors import InvalidJob
from omnifleet_worker.jobs.speech_edit.changes import (
    EVERY,
    Change,
    Delete,
    Insert,
    NewTranscript,
    Position,
    Replace,
    Spoken,
    certain,
)
from omnifleet_worker.jobs.speech_edit.instruction import read_instruction
from omnifleet_worker.jobs.speech_edit.word_edits import (
    Ambiguous,
    WordEdit,
    find_edit_between,
    find_edits,
    is_transcript_of,
)
from omnifleet_worker.jobs.speech_edit.words import Word, split_words

HEARD = split_words("Hello, world! Hello again, my dear world.")


def edits_of(*changes: Change) -> list[WordEdit] | Ambiguous:
    return find_edits([certain(change) for change in changes], HEARD)


@pytest.mark.parametrize(
    ("change", "edits"),
    [
        (Replace(Spoken("HELLO", 1), "Bye"), [WordEdit(0, 1, ("Bye",))]),
        (Replace(Spoken("hello", 2), "Bye"), [WordEdit(2, 3, ("Bye",))]),
        (Replace(Spoken("hello", -1), "Bye"), [WordEdit(2, 3, ("Bye",))]),
        (Replace(Spoken("again"), "now"), [WordEdit(3, 4, ("now",))]),
        (Delete(Spoken("world", EVERY)), [WordEdit(1, 2, ()), WordEdit(6, 7, ())]),
        (Delete(Spoken("my dear")), [WordEdit(4, 6, ())]),
        (Delete(Position(-1, 2)), [WordEdit(5, 7, ())]),
        (Delete(Position(-2)), [WordEdit(5, 6, ())]),
        (Delete(Position(1)), [WordEdit(0, 1, ())]),
        (Insert("very", "before", Spoken("dear")), [WordEdit(5, 5, ("very",))]),
        (Insert("oh my", "after", Spoken("world", -1)), [WordEdit(7, 7, ("oh", "my"))]),
        (NewTranscript("hello, World, hello my very dear"), [
            *(WordEdit(3, 4, ()), WordEdit(5, 5, ("very",)), WordEdit(6, 7, ())),
        ]),
    ],
)  # fmt: skip
def test_changes_find_their_words(change: Change, edits: list[WordEdit]) -> None:
    assert edits_of(change) == edits


def test_words_at_several_places_are_not_guessed() -> None:
    found = edits_of(Delete(Spoken("again")), Replace(Spoken("hello"), "bye"))

    readings = ((WordEdit(0, 1, ("bye",)),), (WordEdit(2, 3, ("bye",)),))
    assert found == Ambiguous(readings, counted=True)


def test_a_place_and_words_that_name_it_are_not_guessed_either() -> None:
    request, heard = read_instruction("delete the last word"), split_words("that is the last word on it")

    assert request is not None
    found = find_edits(request, heard)

    assert found == Ambiguous(((WordEdit(3, 5, ()),), (WordEdit(6, 7, ()),)), counted=False)


def test_a_count_that_carries_on_does_not_hold_where_it_cannot() -> None:
    request = read_instruction("delete the second 'hello' and 'dear'")

    assert request is not None
    assert find_edits(request, HEARD) == [WordEdit(2, 3, ()), WordEdit(5, 6, ())]


def test_of_an_unquoted_request_the_longest_words_that_are_said_count() -> None:
    request = read_instruction("change the red car to the car to the blue one")

    assert request is not None
    assert find_edits(request, ["I", "saw", "the", "red", "car", "today"]) == [
        WordEdit(2, 5, ("the", "car", "to", "the", "blue", "one"))
    ]
    assert find_edits(request, ["move", "the", "red", "car", "to", "the", "car", "park"]) == [
        WordEdit(1, 7, ("the", "blue", "one"))
    ]


def test_several_come_in_the_recordings_order() -> None:
    assert edits_of(Delete(Spoken("dear")), Replace(Spoken("hello", 1), "bye")) == [
        *(WordEdit(0, 1, ("bye",)), WordEdit(5, 6, ())),
    ]


def test_edits_side_by_side_become_one() -> None:
    changes = Replace(Spoken("my"), "your"), Delete(Spoken("dear")), Insert("big", "before", Spoken("world", 2))

    assert edits_of(*changes) == [WordEdit(4, 6, ("your", "big"))]


@pytest.mark.parametrize(
    ("changes", "new"),
    [
        ((Insert("x", "after", Spoken("my")), Insert("a", "after", Spoken("my"))), "x a"),
        ((Insert("x", "before", Spoken("dear")), Insert("a", "before", Spoken("dear"))), "x a"),
        ((Insert("x", "after", Spoken("my")), Insert("a", "before", Spoken("dear"))), "x a"),
        ((Insert("x", "before", Spoken("dear")), Insert("a", "after", Spoken("my"))), "a x"),
    ],
)
def test_insertions_at_one_place_stand_as_they_were_asked_for_beside_their_own_words(
    changes: tuple[Change, ...], new: str
) -> None:
    assert edits_of(*changes) == [WordEdit(5, 5, tuple(new.split()))]


def test_a_word_that_is_not_said_is_named_with_what_was_heard() -> None:
    with pytest.raises(InvalidJob, match="'worlds' is not said; heard was: Hello, world! Hello") as caught:
        edits_of(Delete(Spoken("worlds")))

    assert caught.value.field == "desc"
    assert caught.value.details["heard"] == "Hello, world! Hello again, my dear world."
    assert "Did you mean 'world'?" in (caught.value.remedy or "")


@pytest.mark.parametrize(
    ("place", "said"), [(Spoken("hello", 3), "'hello' is said 2 times only"), (Position(1, 9), "has 7 words")]
)
def test_a_place_that_there_is_not_is_told(place: Spoken | Position, said: str) -> None:
    with pytest.raises(InvalidJob, match=said):
        edits_of(Delete(place))


def test_two_changes_of_one_word_are_refused() -> None:
    with pytest.raises(InvalidJob, match="two changes are of the same words"):
        edits_of(Delete(Spoken("my dear")), Replace(Spoken("dear"), "old"))


def test_nothing_to_change_is_refused() -> None:
    with pytest.raises(InvalidJob, match="says that already"):
        edits_of(NewTranscript("HELLO world hello again my dear world"))


@pytest.mark.parametrize(
    "change",
    [
        *(Replace(Spoken("again"), "…"), Delete(Spoken("!")), NewTranscript("?")),
        Insert("-", "after", Spoken("my")),
    ],
)
def test_what_nobody_can_say_is_refused(change: Change) -> None:
    with pytest.raises(InvalidJob, match="no word that could be said"):
        edits_of(change)


def test_a_text_much_like_what_was_heard_is_a_transcript() -> None:
    assert is_transcript_of("Goodbye, world! Hello again, my old friend.", HEARD)
    assert not is_transcript_of("make the speaker sound kinder", HEARD)


@pytest.mark.parametrize(
    ("text", "heard"),
    [
        ("Can you replace 'Hello big world' with 'Hi world'?", "Hello big world"),
        ("hello big \"small\" world", "Hello big world"),
        ("replace hello big world, hi world", "Hello big world"),
        ("把“今天天气很好”改成“今天天气不好”", "今天天气很好"),
        ("今天天气很好改成今天天气不好", "今天天气很好"),
        ("今日はいい天気ですを削除して", "今日はいい天気です"),
        ("Remplace bonjour tout le monde", "Bonjour tout le monde"),
        ("lösche guten Morgen zusammen", "Guten Morgen zusammen"),
    ],
)  # fmt: skip
def test_a_text_that_asks_is_never_a_transcript(text: str, heard: str) -> None:
    assert not is_transcript_of(text, split_words(heard))


class TestSpans:
    WORDS = tuple(Word(text, at, at + 0.5) for text, at in (("Hello,", 0.2), ("my", 1.0), ("dear", 2.0)))

    @pytest.mark.parametrize(
        ("span", "text", "edit"),
        [
            ((0.2, 0.7), "Bye", WordEdit(0, 1, ("Bye",))),
            ((0.4, 1.3), "Bye, oh", WordEdit(0, 2, ("Bye,", "oh"))),
            ((1.2, 2.2), None, WordEdit(1, 2, ())),
            ((0.0, 3.0), None, WordEdit(0, 3, ())),
            ((0.8, 0.9), "oh", WordEdit(1, 1, ("oh",))),
            ((0.5, 0.5), "oh", WordEdit(1, 1, ("oh",))),
            ((0.0, 0.0), "oh", WordEdit(0, 0, ("oh",))),
            ((2.6, 3.0), "你好", WordEdit(3, 3, ("你", "好"))),
        ],
    )
    def test_words_belong_to_it_whose_middle_does(
        self, span: tuple[float, float], text: str | None, edit: WordEdit
    ) -> None:
        assert find_edit_between(span, text, self.WORDS) == edit

    def test_silence_cannot_be_deleted(self) -> None:
        with pytest.raises(InvalidJob, match=r"no word is said between 0\.8 and 0\.9 s") as refused:
            find_edit_between((0.8, 0.9), None, self.WORDS)

        assert refused.value.field == "span"
        assert refused.value.details == {"heard": "Hello, my dear"}
