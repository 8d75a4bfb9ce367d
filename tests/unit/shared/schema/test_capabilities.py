"""Capabilities: what refuses a job, whatever the model, and their form on the wire."""

from __future__ import annotations

from typing import Any

import pytest
from omnifleet_shared.errors import InvalidJob, LanguageNotSupported, OmnifleetError, TaskNotSupported
from omnifleet_shared.schema.capabilities import Capabilities, TaskCapability
from omnifleet_shared.schema.jobs import Job, language_of, read_job
from omnifleet_shared.schema.model_card import AUDIO_OMNI

RECORDING = {"uri": "s3://media/inputs/voice.wav"}
SPEAKER = Capabilities(
    name="speaker",
    engine="scripted",
    licence="Apache-2.0",
    commercial_use=True,
    tasks={"generate.tts": TaskCapability(languages=("ru", "hi"), max_text=20)},
    sample_rate=48_000,
)


def speech(
    text: str = "Привет",
    *,
    model: str = "speaker",
    language: str | None = None,
    stream: bool = False,
    version: int = 8,
    **task: Any,
) -> Job:
    fields = {"namespace": "generate", "task": {"name": "tts", "text": text, **task}, "language": language}
    return read_job({"schema_version": version, "model": model, "stream": stream, **fields})


def refusals(model: Capabilities, job: Job) -> list[OmnifleetError]:
    return list(model.refusals(job))


def test_a_job_that_it_can_do_passes() -> None:
    assert refusals(SPEAKER, speech()) == refusals(SPEAKER, speech("नमस्ते", language="hi")) == []


@pytest.mark.parametrize(
    ("job", "error", "field"),
    [
        (speech("Hello"), LanguageNotSupported, "text"),
        (speech(language="en"), LanguageNotSupported, "language"),
        (speech("Привет " * 4), InvalidJob, "text"),
        (speech(ref=RECORDING), TaskNotSupported, "ref"),
        (speech(stream=True), InvalidJob, "stream"),
    ],
)
def test_what_it_cannot_do_is_refused_with_the_field_and_a_remedy(
    job: Job, error: type[InvalidJob], field: str
) -> None:
    (refusal,) = refusals(SPEAKER, job)

    assert (type(refusal), refusal.field) == (error, field)
    assert refusal.remedy
    assert "speaker" in refusal.problem or field == "text"
    with pytest.raises(error):
        SPEAKER.validate_job(job)


def test_a_job_of_another_model_is_refused_by_the_worker() -> None:
    with pytest.raises(InvalidJob, match="for audio-omni, and this worker runs speaker") as refused:
        SPEAKER.validate_job(speech(model="audio-omni"))

    assert refused.value.field == "model"
    tiny = AUDIO_OMNI.model_copy(update={"name": "audio-omni-tiny"})
    tiny.validate_job(speech("Hello", model="audio-omni"))
    with pytest.raises(InvalidJob, match="for speaker"):
        tiny.validate_job(speech("Hello"))


def test_a_recording_may_need_its_transcript() -> None:
    cloner = SPEAKER.model_copy(update={"cloning": True, "needs_transcript": True})

    (refusal,) = refusals(cloner, speech(ref=RECORDING))

    assert refusal.field == "ref_text"
    assert refusals(cloner, speech(ref=RECORDING, ref_text="Доброе утро")) == []


@pytest.mark.parametrize(("pace", "flag"), [({"speed": 1.5}, "speed"), ({"seconds": 2.0}, "timed")])
def test_speech_is_paced_by_models_that_can_be_told(pace: dict[str, Any], flag: str) -> None:
    job = speech(version=9, **pace)

    (refusal,) = refusals(SPEAKER, job)

    assert (type(refusal), refusal.field) == (TaskNotSupported, next(iter(pace)))
    assert refusal.remedy == f"Leave {refusal.field} out, or use another model"
    assert refusals(SPEAKER.model_copy(update={flag: True}), job) == []
    assert refusals(SPEAKER, speech(speed=1.0)) == []


def test_speech_takes_no_longer_than_the_model_can_be_told() -> None:
    task = {"generate.tts": TaskCapability(max_seconds=30)}
    model = SPEAKER.model_copy(update={"timed": True, "tasks": task})

    (refusal,) = refusals(model, speech(version=9, seconds=30.5))

    assert (type(refusal), refusal.field) == (InvalidJob, "seconds")
    assert refusals(model, speech(version=9, seconds=30.0)) == []


def test_a_model_of_any_language_is_asked_for_none() -> None:
    polyglot = SPEAKER.model_copy(update={"tasks": {"generate.tts": TaskCapability()}})

    assert refusals(polyglot, speech("ሰላም", language="am")) == []


def test_a_script_is_not_judged_where_that_of_a_language_is_not_known() -> None:
    ethiopian = SPEAKER.model_copy(update={"tasks": {"generate.tts": TaskCapability(languages=("am", "ru"))}})

    assert refusals(ethiopian, speech("ሰላም")) == []


def test_all_refusals_of_a_job_are_told() -> None:
    named = [(type(one).__name__, one.field) for one in refusals(SPEAKER, speech("Hello " * 5, ref=RECORDING))]

    assert named == [("LanguageNotSupported", "text"), ("TaskNotSupported", "ref"), ("InvalidJob", "text")]


def test_they_come_back_from_the_wire_and_fields_of_later_releases_are_ignored() -> None:
    wire = AUDIO_OMNI.capabilities.model_dump(mode="json")

    assert Capabilities.model_validate(wire | {"dances": True}) == AUDIO_OMNI.capabilities


def test_those_of_audio_omni_are_its_cards() -> None:
    model = AUDIO_OMNI.capabilities

    assert tuple(model.tasks) == AUDIO_OMNI.tasks
    assert model.tasks["generate.v2a"] == TaskCapability(languages=AUDIO_OMNI.languages, max_seconds=10)
    assert (model.engine, model.licence, model.commercial, model.editing) == ("audio-omni", "CC BY-NC 4.0", False, True)
    assert not AUDIO_OMNI.without_tasks({"edit.speech"}).capabilities.tasks.keys() & {"edit.speech"}


@pytest.mark.parametrize(
    ("tag", "language"),
    [
        *[("en-US", "en"), ("DE_de", "de"), (" fr ", "fr"), ("zh-Hant-TW", "zh"), ("es-419", "es")],
        *[("zh-yue", "yue"), ("zh-yue-HK", "yue"), ("zh-cmn-Hans", "zh"), ("cmn", "zh"), ("yue", "yue")],
    ],
)
def test_a_tag_is_shortened_to_its_language(tag: str, language: str) -> None:
    assert language_of(tag) == language


def test_cantonese_is_not_taken_for_mandarin() -> None:
    with pytest.raises(LanguageNotSupported, match="'yue'"):
        AUDIO_OMNI.validate_job(speech("你好", model="audio-omni", language="zh-yue"))
