"""Licences as data of the model: who may use it for what, and the errors of the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omnifleet import InvalidJob, LicenceRefused
from omnifleet.cli import app
from omnifleet.testing import FakeClient
from omnifleet_shared.schema.capabilities import COMMERCIAL_MODELS, LicensedPart
from omnifleet_shared.schema.jobs import read_job
from omnifleet_shared.schema.model_card import AUDIO_OMNI, ModelCard
from omnifleet_shared.schema.tasks import TASK_NAMES
from omnifleet_worker.models.audio_omni.tiny import _CARD
from support.data import media_files
from support.scripted_thinker import CARD, ScriptedThinker, stored
from typer.testing import CliRunner

SOUND = b"RIFF and so on"


def test_audio_omni_is_for_research_in_five_languages() -> None:
    assert (AUDIO_OMNI.licence, AUDIO_OMNI.commercial_use) == ("CC BY-NC 4.0", False)
    assert AUDIO_OMNI.languages == ("en", "zh", "ja", "fr", "de")


def test_a_card_that_does_not_say_so_forbids_commercial_use() -> None:
    assert not ModelCard(revision="1", licence="unknown", languages=("en",)).commercial_use


def job_of(**fields: Any) -> Any:
    return read_job({"schema_version": 1, "namespace": "generate", "task": {"name": "t2a", "text": "rain"}, **fields})


def test_every_part_must_allow_commercial_use_and_the_one_that_does_not_is_named() -> None:
    parts = (
        LicensedPart(name="vocoder", licence="MIT", commercial_use=True),
        LicensedPart(name="thinker (Qwen2.5-Omni-3B)", licence="Qwen's research licence"),
    )
    free = ModelCard(revision="1", licence="Apache-2.0", commercial_use=True, languages=("en",), parts=parts[:1])
    mixed = free.model_copy(update={"parts": parts})

    free.validate_job(job_of(commercial=True))
    mixed.validate_job(job_of())
    with pytest.raises(LicenceRefused, match=r"its thinker \(Qwen2\.5-Omni-3B\) is under Qwen's research") as refusal:
        mixed.validate_job(job_of(commercial=True))

    assert "vocoder" not in str(refusal.value)
    assert refusal.value.details["forbidding"] == {"its thinker (Qwen2.5-Omni-3B)": "Qwen's research licence"}


def test_audio_omni_names_all_that_forbids_it() -> None:
    with pytest.raises(LicenceRefused) as refusal:
        AUDIO_OMNI.validate_job(job_of(commercial=True))

    for words in ("CC BY-NC 4.0", "Qwen2.5-Omni-3B) is under Qwen's research licence", "Synchformer", "not known"):
        assert words in refusal.value.problem


@pytest.mark.parametrize(
    "more", [{}, {"parts": []}, {"parts": [{"name": "new", "licence": "MIT", "since": 2}], "of_later": 1}]
)
def test_cards_of_older_and_newer_conversions_are_read(more: dict[str, Any]) -> None:
    old = {"name": "audio-omni", "licence": "CC BY-NC 4.0", "commercial_use": False, "languages": ["en"]}

    card = ModelCard.model_validate(old | {"revision": "0123456789abcdef"} | more)

    with pytest.raises(LicenceRefused, match=r"audio-omni is under CC BY-NC 4\.0"):
        card.validate_job(job_of(commercial=True))


def test_the_tiny_checkpoint_may_be_used_for_anything() -> None:
    assert ModelCard.model_validate(_CARD | {"revision": "1"}).commercial_use


@pytest.mark.parametrize(
    ("call", "others"),
    [
        (lambda omni: omni.understand("transcribe", SOUND, commercial=True), ["Whisper (MIT)"]),
        (lambda omni: omni.understand("caption", SOUND, commercial=True), ["Qwen2.5-Omni-7B (Apache-2.0)"]),
        (lambda omni: omni.generate("tts", "Hello", commercial=True), ["VoxCPM2 (Apache-2.0)"]),
        (lambda omni: omni.generate("v2a", video=SOUND, commercial=True), []),
        (lambda omni: omni.edit("add", SOUND, desc="rain", commercial=True), []),
    ],
)
def test_a_commercial_job_is_refused_before_anything_is_sent(call: Any, others: list[str]) -> None:
    omni = FakeClient()

    with pytest.raises(LicenceRefused, match=r"CC BY-NC 4\.0, which allows no commercial use") as refusal:
        call(omni)

    assert (refusal.value.field, refusal.value.details["licence"]) == ("commercial", "CC BY-NC 4.0")
    assert refusal.value.details["models"][:1] == others
    assert all(name in str(refusal.value) for name in others)
    assert others or "We know of none" in str(refusal.value)
    assert isinstance(refusal.value, InvalidJob)
    assert omni.jobs == []
    assert omni.fleet.storage.objects == {}


def test_other_jobs_are_not_asked() -> None:
    omni = FakeClient()

    omni.understand("transcribe", SOUND)
    omni.understand("transcribe", SOUND, commercial=False)

    assert [job.commercial for job in omni.jobs] == [False, False]


def test_a_worker_goes_by_its_own_checkpoint(tmp_path: Path) -> None:
    task = {"name": "caption", "audio": [stored(tmp_path, media_files.wav(0.2, 16_000))]}
    thinker = ScriptedThinker(["rain"])

    with pytest.raises(LicenceRefused):
        thinker.answer(tmp_path, task, commercial=True)
    free = CARD.model_copy(update={"licence": "Apache-2.0", "commercial_use": True})

    assert thinker.answer(tmp_path, task, card=free, commercial=True).text == "rain"


def test_the_licence_is_looked_at_before_the_media(tmp_path: Path) -> None:
    with pytest.raises(LicenceRefused):
        ScriptedThinker([]).answer(tmp_path, {"name": "caption", "audio": [{"uri": "file:///gone"}]}, commercial=True)


def test_alternatives_are_named_for_tasks_that_there_are() -> None:
    tasks = {f"{namespace}.{name}" for namespace, names in TASK_NAMES.items() for name in names}

    assert set(COMMERCIAL_MODELS) <= tasks | set(TASK_NAMES)


@pytest.mark.parametrize("commercial", ["yes", 1, None, True, False])
def test_the_flag_is_a_truth_value_on_the_wire(commercial: object) -> None:
    payload = {"schema_version": 1, "namespace": "generate", "task": {"name": "t2a", "text": "rain"}}

    try:
        job = read_job(payload | {"commercial": commercial})
    except InvalidJob as error:
        assert (error.field, commercial) == ("commercial", None)
    else:
        assert job.commercial is (commercial is not False)


def test_the_command_line_asks_too(tmp_path: Path) -> None:
    (tmp_path / "call.mp3").write_bytes(SOUND)

    done = CliRunner().invoke(
        app, ["understand", "caption", str(tmp_path / "call.mp3"), "--commercial"], obj=FakeClient()
    )

    assert done.exit_code == 2
    assert "LicenceRefused" in done.stderr
    assert "Qwen2.5-Omni-7B" in done.stderr
