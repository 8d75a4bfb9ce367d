"""Result, progress and status records."""

from __future__ import annotations

import copy
import json
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omnifleet_shared.errors import InvalidMessage, SchemaTooNew
from omnifleet_shared.keys import SCHEMA_VERSION
from omnifleet_shared.schema.results import JobResult, JobStatus, Progress, read_result
from omnifleet_shared.schema.transcript import ends_sentence
from pydantic import ValidationError

ARTIFACT = {
    "uri": "s3://media/results/j1.wav",
    "url": "https://s3.example/media/results/j1.wav?signature=x",
    "sha256": "a" * 64,
    "bytes": 1764044,
    "format": "wav",
    "sample_rate": 44100,
    "channels": 2,
    "seconds": 10.0,
}
AUDIO = {
    "schema_version": 1,
    "job_id": "j1",
    "namespace": "edit",
    "task": "add",
    "artifact": ARTIFACT,
    "model": {"name": "audio-omni", "revision": "published", "licence": "CC BY-NC 4.0"},
    "seed": 7,
    "attempts": 2,
    "timings": {"queued": 0.5, "sampled": 3.25},
}
TEXT = {key: value for key, value in AUDIO.items() if key != "artifact"} | {"text": "hello", "namespace": "understand"}
RESULTS = pytest.mark.parametrize("record", [AUDIO, TEXT, TEXT | {"text": ""}], ids=["audio", "text", "empty text"])


class TestRoundTrip:
    @RESULTS
    def test_a_result_comes_back_equal(self, record: dict[str, Any]) -> None:
        result = read_result(record)

        assert read_result(json.loads(json.dumps(result.model_dump(mode="json"), allow_nan=False))) == result

    @RESULTS
    def test_every_given_value_is_kept(self, record: dict[str, Any]) -> None:
        dumped = read_result(record).model_dump(mode="json", exclude_unset=True)

        assert dumped == record

    def test_a_result_is_frozen(self) -> None:
        result = read_result(TEXT)

        with pytest.raises(ValidationError, match="frozen"):
            result.text = "other"  # type: ignore[misc]

    @given(
        step=st.integers(0, 2**40),
        steps=st.integers(0, 2**40),
        eta=st.none() | st.floats(0, allow_nan=False, allow_infinity=False),
    )
    def test_progress_comes_back_equal(self, step: int, steps: int, eta: float | None) -> None:
        progress = Progress(step=step, steps=steps, eta=eta)

        assert Progress.model_validate_json(progress.model_dump_json()) == progress


PLAN = {
    "words": [{"text": "Hello", "start": 0.1, "end": 0.5}],
    "edits": [{"first": 0, "last": 1, "start": 0.1, "end": 0.5, "old": "Hello", "new": "Goodbye"}],
}


class TestPlan:
    def test_it_comes_beside_the_text_that_was_heard(self) -> None:
        result = read_result(TEXT | {"namespace": "edit", "task": "speech", "plan": PLAN})

        assert result.plan is not None
        assert result.plan.model_dump(mode="json") | {} == json.loads(json.dumps(PLAN))
        with pytest.raises(InvalidMessage, match="a plan comes beside the text"):
            read_result(AUDIO | {"plan": PLAN})

    def test_a_result_without_one_is_written_as_by_the_first_release(self) -> None:
        assert "plan" not in read_result(TEXT).model_dump(mode="json")


class TestRefusals:
    @pytest.mark.parametrize("payload", [None, "done", 1, [], True])
    def test_what_is_no_object(self, payload: object) -> None:
        with pytest.raises(InvalidMessage, match="no result record") as caught:
            read_result(payload)

        assert caught.value.details == {"payload": json.dumps(payload)}

    @pytest.mark.parametrize("version", [None, 0, "1", True])
    def test_no_schema_version(self, version: object) -> None:
        with pytest.raises(InvalidMessage) as caught:
            read_result(TEXT | {"schema_version": version})

        assert caught.value.field == "schema_version"

    def test_a_newer_schema(self) -> None:
        with pytest.raises(SchemaTooNew, match="result is of schema version"):
            read_result(TEXT | {"schema_version": SCHEMA_VERSION + 1})

    @pytest.mark.parametrize(
        ("changes", "named"),
        [
            ({"job_id": "../x"}, "job_id"),
            ({"attempts": 0}, "attempts"),
            ({"timings": {"queued": -1}}, "timings.queued"),
            ({"timings": {"sampled": float("nan")}}, "timings.sampled"),
            ({"namespace": "render"}, "namespace"),
            ({"artifact": ARTIFACT | {"bytes": 0}, "text": None}, "artifact.bytes"),
            ({"artifact": ARTIFACT | {"sha256": "x"}, "text": None}, "artifact.sha256"),
            ({"artifact": ARTIFACT | {"format": "aac"}, "text": None}, "artifact.format"),
            ({"model": None}, "model"),
            ({"colour": "red"}, "colour"),
        ],
    )
    def test_a_bad_field_is_named(self, changes: dict[str, Any], named: str) -> None:
        with pytest.raises(InvalidMessage) as caught:
            read_result(TEXT | changes)

        assert f" {named}: " in caught.value.problem
        assert "hello" in caught.value.details["payload"] or "j1.wav" in caught.value.details["payload"]

    @pytest.mark.parametrize("changes", [{"text": None}, {"artifact": ARTIFACT}], ids=["neither", "both"])
    def test_a_result_is_either_an_artifact_or_a_text(self, changes: dict[str, Any]) -> None:
        with pytest.raises(InvalidMessage, match="either an artifact or a text"):
            read_result(TEXT | changes)

    @given(
        payload=st.sampled_from([AUDIO, TEXT]),
        key=st.sampled_from([*AUDIO, "text"]) | st.text(st.characters(), max_size=5),
        value=st.recursive(
            st.none() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        ),
    )
    def test_a_damaged_result_is_a_result_or_refused(self, payload: dict[str, Any], key: str, value: object) -> None:
        damaged = copy.deepcopy(payload) | {key: value}

        try:
            result = read_result(damaged)
        except InvalidMessage as error:
            assert str(error)
        else:
            assert isinstance(result, JobResult)


class TestStatus:
    @pytest.mark.parametrize(
        ("status", "final"),
        [
            (JobStatus.QUEUED, False),
            (JobStatus.RUNNING, False),
            (JobStatus.RETRYING, False),
            (JobStatus.SUCCEEDED, True),
            (JobStatus.FAILED, True),
            (JobStatus.CANCELLED, True),
        ],
    )
    def test_what_is_final(self, status: JobStatus, final: bool) -> None:
        assert status.is_final is final

    def test_a_status_is_its_word(self) -> None:
        assert [str(status) for status in JobStatus] == [
            *("queued", "running", "retrying"),
            *("succeeded", "failed", "cancelled"),
        ]

    def test_progress_before_the_first_step_is_nothing(self) -> None:
        assert Progress() == Progress(step=0, steps=0, eta=None)


class TestTimes:
    WORDS: ClassVar = ({"text": "hello,", "start": 0.5, "end": 1.0}, {"text": "you", "start": 1.0, "end": 1.5})
    SEGMENT: ClassVar = {"text": "hello, you", "start": 0.5, "end": 1.5}

    def timed(self, words: Any = WORDS, segments: Any = (SEGMENT,), **record: Any) -> dict[str, Any]:
        times = {"seconds": 2.0, "words": list(words), "segments": list(segments)}
        return TEXT | {"text": "hello, you!", "transcript": times, **record}

    def test_they_are_left_out_where_there_are_none(self) -> None:
        assert "transcript" not in read_result(TEXT).model_dump(mode="json")

    def test_they_come_back_equal(self) -> None:
        result = read_result(self.timed())

        assert read_result(json.loads(result.model_dump_json())) == result
        assert result.transcript is not None and result.transcript.words is not None
        assert [word.text for word in result.transcript.words] == ["hello,", "you"]

    def test_words_that_the_text_does_not_hold_in_that_order_are_refused(self) -> None:
        with pytest.raises(InvalidMessage, match="substring not found"):
            read_result(self.timed(text="you, hello"))

    @pytest.mark.parametrize(
        "change", [{"start": 0.9}, {"end": 2.1}, {"start": 1.6}], ids=["overlaps", "too late", "backwards"]
    )
    def test_times_out_of_order_are_refused(self, change: dict[str, float]) -> None:
        with pytest.raises(InvalidMessage, match="words"):
            read_result(self.timed(words=[self.WORDS[0], self.WORDS[1] | change]))

    def test_they_come_beside_a_text(self) -> None:
        with pytest.raises(InvalidMessage, match="beside their text"):
            read_result(AUDIO | {"transcript": self.timed()["transcript"]})


@pytest.mark.parametrize("text", ["Yes.", "Is it?", "他说：「好。」", 'He said "no." ', "Wait…", "It ended in 1990."])
def test_sentences_end(text: str) -> None:
    assert ends_sentence(text)


@pytest.mark.parametrize("text", ["Mr.", "said Dr.", "e.g.", "J.", "z. B.", "3.5", "yes,", "", "hello"])
def test_abbreviations_and_all_else_end_no_sentence(text: str) -> None:
    assert not ends_sentence(text)
