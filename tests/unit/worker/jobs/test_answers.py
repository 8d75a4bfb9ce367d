"""Answers that are records: what is read leniently, asked for once more, and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omnifleet import AnswerUnreadable, Classification, Sarcasm, Scene
from omnifleet.testing import FakeClient
from omnifleet_shared.errors import InvalidMessage
from omnifleet_shared.schema.answers import ANSWERS, Feedback, Gender, Sources, Speakers
from omnifleet_shared.schema.results import read_result
from omnifleet_worker.jobs.answers import read_answer
from omnifleet_worker.jobs.prompts import QUESTIONS, SHAPES
from support.data import media_files
from support.scripted_thinker import ScriptedThinker, stored

SOUND = media_files.wav(0.2, 16_000)
RECORDS: dict[str, dict[str, Any]] = {
    "classify": {"labels": [{"name": "dog", "category": "animal", "confidence": 0.5}]},
    "sources": {"sources": [{"name": "car", "start": 0, "end": 2.5}, {"name": "rain"}]},
    "speakers": {"count": 2, "speakers": [{"name": "Ann", "description": "calm", "turns": [{"start": 0, "end": 1}]}]},
    "gender": {"speakers": [{"name": "Speaker 1", "gender": "female"}]},
    "sarcasm": {"sarcastic": True, "evidence": "a drawn-out vowel"},
    "scene": {"place": "kitchen", "evidence": "a boiling kettle"},
    "feedback": {
        "words": [{"word": "think", "said": "sɪŋk", "expected": "θɪŋk", "advice": "tongue between the teeth"}],
        "overall": "clear",
    },
}
MADE: dict[str, Any] = {
    "schema_version": 1,
    "job_id": "j1",
    "namespace": "understand",
    "task": "scene",
    "text": "a kitchen",
    "answer": {"kind": "scene", "place": "kitchen", "evidence": "a kettle"},
    "model": {"name": "m", "revision": "r", "licence": "l"},
    "seed": 1,
    "attempts": 1,
    "timings": {},
}
TASKS = pytest.mark.parametrize("task", RECORDS)
CLASSIFIED = ANSWERS["classify"].model_validate(RECORDS["classify"])


def read(text: str) -> Any:
    return read_answer("classify", text)


class TestReading:
    def test_every_structured_task_has_a_record_and_a_shape(self) -> None:
        assert set(RECORDS) == set(ANSWERS) == set(SHAPES)
        assert set(ANSWERS) <= set(QUESTIONS)

    @TASKS
    def test_the_shape_that_is_asked_for_is_the_record(self, task: str) -> None:
        shown = ANSWERS[task].model_validate(json.loads(SHAPES[task]))

        assert shown.model_dump(exclude={"kind"}, mode="json") == json.loads(SHAPES[task])

    @TASKS
    def test_plain_json_is_read(self, task: str) -> None:
        answer = read_answer(task, json.dumps(RECORDS[task]))

        assert answer is not None
        assert answer.kind == task
        assert answer.model_dump(exclude={"kind"}, exclude_unset=True, mode="json") == RECORDS[task]

    @pytest.mark.parametrize(
        "text",
        [
            '```json\n{"labels": [{"name": "dog", "category": "animal", "confidence": 0.5}]}\n```',
            'Of course! {"labels": [{"name": "dog", "category": "animal", "confidence": 0.5}]} I hope that helps.',
            "{'labels': [{'name': 'dog', 'category': 'animal', 'confidence': 0.5,},],}",
            '{labels: [{name: "dog", category: "animal", confidence: "0.5"}]}',
            '[dog] first: {"labels": [{"name": "dog", "category": "animal", "confidence": 0.5}]}',
            '[{"name": "dog", "category": "animal", "confidence": 0.5}]',
            '{"labels": [{"name": "dog", "category": "animal", "confidence": 0.5}]',
            '{"labels": [{"name": "dog", "category": ["animal"], "confidence": 0.5, "loud": true}], "notes": "none"}',
        ],
        ids=["fence", "prose", "single quotes", "bare keys", "brackets", "bare list", "cut off", "more than asked"],
    )
    def test_nearly_json_is_read(self, text: str) -> None:
        assert read(text) == CLASSIFIED

    def test_python_literals_are_read(self) -> None:
        answer = read_answer("sarcasm", "{'sarcastic': False, 'evidence': 'none', 'other': None}")

        assert answer == Sarcasm(sarcastic=False, evidence="none")

    @pytest.mark.parametrize(("word", "truth"), [("yes", True), ("No", False), ("true", True)])
    def test_yes_and_no_are_truth_values(self, word: str, truth: bool) -> None:
        answer = read_answer("sarcasm", json.dumps({"sarcastic": word, "evidence": "tone"}))

        assert isinstance(answer, Sarcasm)
        assert answer.sarcastic is truth

    def test_the_case_of_a_gender_does_not_matter(self) -> None:
        answer = read_answer("gender", '{"speakers": [{"name": "A", "gender": " Male"}]}')

        assert isinstance(answer, Gender)
        assert answer.speakers[0].gender == "male"

    def test_the_last_of_several_records_counts(self) -> None:
        answer = read_answer("scene", '{"place": "x", "evidence": "y"} No: {"place": "street", "evidence": "cars"}')

        assert answer == Scene(place="street", evidence="cars")

    @pytest.mark.parametrize(
        ("task", "text"),
        [
            ("classify", ""),
            ("classify", "a dog barks"),
            ("classify", "{}"),
            ("classify", '{"labels": "dog"}'),
            ("classify", '{"labels": [{"name": "", "category": "animal"}]}'),
            ("classify", '{"labels": [{"name": "dog", "category": "animal", "confidence": 90}]}'),
            ("sources", '{"sources": [{"name": "car", "start": -1}]}'),
            (
                "speakers",
                '{"count": 1, "speakers": [{"name": "A", "description": "b"}, {"name": "C", "description": "d"}]}',
            ),
            (
                "speakers",
                '{"count": 1, "speakers": [{"name": "A", "description": "b", "turns": [{"start": 2, "end": 1}]}]}',
            ),
            ("gender", '{"speakers": [{"name": "A", "gender": "loud"}]}'),
            ("scene", '[{"place": "street"}]'),
            ("scene", "[" * 4000),
            ("scene", "{" * 4000),
        ],
    )
    def test_what_is_not_the_record_is_not_read(self, task: str, text: str) -> None:
        assert read_answer(task, text) is None

    @given(task=st.sampled_from(sorted(ANSWERS)), text=st.text() | st.text("{}[]\"':, atruenl0.9\\\n`", max_size=60))
    def test_any_text_is_a_record_or_none(self, task: str, text: str) -> None:
        answer = read_answer(task, text)

        assert answer is None or answer.kind == task

    @TASKS
    def test_a_record_cut_anywhere_is_a_record_or_none(self, task: str) -> None:
        whole = json.dumps(RECORDS[task])

        for end in range(len(whole)):
            answer = read_answer(task, whole[:end])
            assert answer is None or answer.kind == task


class TestAsking:
    @TASKS
    def test_the_record_comes_beside_the_text(self, tmp_path: Path, task: str) -> None:
        said = f"Here: {json.dumps(RECORDS[task])}"
        thinker = ScriptedThinker([said])

        result = thinker.answer(tmp_path, {"name": task, "audio": [stored(tmp_path, SOUND)]})

        assert (result.text, result.answer and result.answer.kind) == (said, task)
        assert read_result(json.loads(result.model_dump_json())) == result
        assert SHAPES[task] in thinker.asked[0].user

    def test_an_answer_that_cannot_be_read_is_asked_for_once_more(self, tmp_path: Path) -> None:
        thinker = ScriptedThinker(["A dog, I think.", json.dumps(RECORDS["classify"])])

        result = thinker.answer(tmp_path, {"name": "classify", "audio": [stored(tmp_path, SOUND)]})

        first, second = thinker.asked
        assert (result.text, result.answer) == (json.dumps(RECORDS["classify"]), CLASSIFIED)
        assert second.earlier == ((first.user, "A dog, I think."),)
        assert second.text.startswith(first.text + "A dog, I think.<|im_end|>\n<|im_start|>user\n")
        assert second.audio == first.audio
        assert SHAPES["classify"] in second.user

    def test_after_that_the_error_holds_what_was_said(self, tmp_path: Path) -> None:
        thinker = ScriptedThinker(["qWxz", ""])

        with pytest.raises(AnswerUnreadable, match="not what scene promises") as caught:
            thinker.answer(tmp_path, {"name": "scene", "audio": [stored(tmp_path, SOUND)]})

        assert caught.value.details == {"text": "qWxz", "repair": ""}
        assert len(thinker.asked) == 2

    @pytest.mark.parametrize(
        "task",
        [{"name": "caption"}, {"name": "transcribe"}, {"name": "qa", "text": "Who?"}],
        ids=lambda task: task["name"],
    )
    def test_other_tasks_answer_with_text_alone(self, tmp_path: Path, task: dict[str, Any]) -> None:
        thinker = ScriptedThinker(["{}"])

        result = thinker.answer(tmp_path, task | {"audio": [stored(tmp_path, SOUND)]})

        assert (result.text, result.answer) == ("{}", None)


class TestResult:
    @pytest.mark.parametrize(
        "changes",
        [
            {"task": "caption"},
            {"answer": {"kind": "sarcasm", "sarcastic": True, "evidence": "x"}},
            {"answer": {"kind": "poem"}},
            {"answer": {"place": "kitchen", "evidence": "a kettle"}},
        ],
    )
    def test_an_answer_of_another_task_is_refused(self, changes: dict[str, Any]) -> None:
        read_result(MADE)

        with pytest.raises(InvalidMessage):
            read_result(MADE | changes)

    def test_what_a_newer_worker_adds_to_a_record_is_left_out(self) -> None:
        result = read_result(MADE | {"answer": {**MADE["answer"], "indoors": True}})

        assert result.answer == Scene(place="kitchen", evidence="a kettle")


class TestFake:
    @TASKS
    def test_it_answers_structured_tasks_with_their_records(self, task: str) -> None:
        result = FakeClient().understand(task, b"sound").result()

        assert result.answer is not None
        assert result.answer.kind == task
        assert read_answer(task, result.text) == result.answer

    def test_a_script_gives_a_record_or_its_json(self) -> None:
        for script in (CLASSIFIED, CLASSIFIED.model_dump_json()):
            result = FakeClient(lambda job, script=script: script).understand("classify", b"sound").result()
            assert isinstance(result.answer, Classification)
            assert result.answer.labels[0].name == "dog"

    def test_other_text_fails_as_a_models_would(self) -> None:
        job = FakeClient(lambda job: "a dog").understand("classify", b"sound")

        with pytest.raises(AnswerUnreadable) as caught:
            job.result()
        assert caught.value.details["text"] == "a dog"

    @pytest.mark.parametrize("task", ["scene", "caption"])
    def test_the_record_of_another_task_is_a_mistake_in_the_test(self, task: str) -> None:
        with pytest.raises(TypeError, match=r"record"):
            FakeClient(lambda job: CLASSIFIED).understand(task, b"sound")


def test_records_are_frozen_and_compare_by_value() -> None:
    assert {Sources(sources=()), Sources(sources=())} == {Sources(sources=())}
    assert Speakers(count=0, speakers=()) != Feedback(words=(), overall="fine")
