"""Answers of the fake fleet: texts, and for the structured tasks records too."""

from __future__ import annotations

from typing import Any

from omnifleet_shared.errors import AnswerUnreadable
from omnifleet_shared.schema.answers import (
    ANSWERS,
    Answer,
    Classification,
    Feedback,
    Gender,
    Label,
    Sarcasm,
    Scene,
    Source,
    Sources,
    Speaker,
    Speakers,
    VoiceGender,
    WordFeedback,
)
from omnifleet_shared.schema.jobs import UnderstandJob
from omnifleet_shared.schema.results import EditPlan, PlannedEdit
from omnifleet_shared.schema.tasks import NamedUnderstanding
from omnifleet_shared.schema.transcript import HeardSegment, HeardWord, Transcript
from pydantic import ValidationError

SAMPLES: dict[str, Answer] = {
    "classify": Classification(labels=(Label(name="a fake sound", category="fake", confidence=0.5),)),
    "sources": Sources(sources=(Source(name="a fake source", start=0.0, end=1.0),)),
    "speakers": Speakers(count=1, speakers=(Speaker(name="Speaker 1", description="a fake voice"),)),
    "gender": Gender(speakers=(VoiceGender(name="Speaker 1", gender="unclear"),)),
    "sarcasm": Sarcasm(sarcastic=False, evidence="a fake reason"),
    "scene": Scene(place="a fake place", evidence="a fake reason"),
    "feedback": Feedback(
        words=(WordFeedback(word="fake", said="feɪk", expected="feɪk", advice="fake advice"),), overall="fake"
    ),
}
"""The usual answer of each structured task."""

PLAN = EditPlan(
    words=(HeardWord(text="Hello", start=0.0, end=0.4), HeardWord(text="world", start=0.5, end=1.0)),
    edits=(PlannedEdit(first=0, last=1, start=0.0, end=0.4, old="Hello", new="Goodbye"),),
)
"""The usual plan of a dry run."""


def make_plan(answer: object) -> dict[str, Any]:
    """Return text and plan of a dry run's result. Raises TypeError for an answer that is no plan."""
    if answer is not None and not isinstance(answer, EditPlan):
        raise TypeError(f"the fake's answer to a dry run is {type(answer).__name__}; it makes a plan: use EditPlan")
    plan = PLAN if answer is None else answer
    return {"text": " ".join(word.text for word in plan.words), "plan": plan}


def make_answer(job: UnderstandJob, answer: str | bytes | Answer | EditPlan | None) -> dict[str, Any]:
    """Return text and record of a result, from the answer that a test gave for the job.

    Raises:
        AnswerUnreadable: a text for a structured task that is not the JSON of its record.
        TypeError: bytes, or the record of another task.
    """
    task = job.task.name
    if isinstance(answer, bytes | EditPlan):
        raise TypeError(f"the fake's answer to understand.{task} is {type(answer).__name__}; it makes text: use str")
    if task in ANSWERS:
        record = SAMPLES[task] if answer is None else _read(task, answer)
        return {"text": answer if isinstance(answer, str) else record.model_dump_json(), "answer": record}
    if answer is not None and not isinstance(answer, str):
        raise TypeError(f"the fake's answer to understand.{task} is a record; it makes text alone: use str")
    text = f"A fake answer to {task}." if answer is None else answer
    timed = isinstance(job.task, NamedUnderstanding) and job.task.timestamps is not None
    return {"text": text, "transcript": make_transcript(text, job) if timed else None}


def make_transcript(text: str, job: UnderstandJob) -> Transcript:
    """Return times for a text: one word after the other, half a second each."""
    assert isinstance(job.task, NamedUnderstanding)
    words = text.split()
    heard = [HeardWord(text=word, start=at / 2, end=(at + 1) / 2) for at, word in enumerate(words)]
    seconds = len(words) / 2
    segments = (HeardSegment(text=text.strip(), start=0, end=seconds),) if words else ()
    by_word = job.task.timestamps == "word"
    return Transcript(seconds=seconds, words=tuple(heard) if by_word else None, segments=segments)


def _read(task: str, answer: str | Answer) -> Answer:
    if not isinstance(answer, str):
        if answer.kind != task:
            raise TypeError(f"the fake's answer to understand.{task} is the record of {answer.kind}")
        return answer
    try:
        return ANSWERS[task].model_validate_json(answer)
    except ValidationError as error:
        problem = f"the model's answer is not what {task} promises"
        raise AnswerUnreadable(problem, "task", "Let the fake answer with a record", {"text": answer}) from error
