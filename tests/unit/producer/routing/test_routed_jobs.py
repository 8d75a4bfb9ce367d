"""Routing through the front door: what a client with several models sends, and says of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from omnifleet import (
    IdempotencyConflict,
    InvalidJob,
    InvalidSetting,
    LicenceRefused,
    NoModelFor,
    TaskNotSupported,
    batch,
)
from omnifleet.cli import app
from omnifleet.testing import FakeAsyncClient, FakeClient, FakeFleet
from omnifleet_shared.broker.worker_registry import WorkerRecord
from omnifleet_shared.catalogue import SHIPPED, fleet_queues
from omnifleet_shared.schema.capabilities import TaskCapability
from omnifleet_shared.settings import FleetSettings, load_settings
from typer.testing import CliRunner

SEVERAL = FleetSettings(models="audio-omni, voxcpm2, omnivoice")
SOUND = b"RIFF and so on"


class PartlyStaffed(FakeFleet):
    """A fleet in memory that has workers of some models alone."""

    def __init__(self, *queues: str, **reported: Any) -> None:
        super().__init__()
        self._queues, self._reported, self.asked = queues, reported, 0

    def workers(self, queue: str) -> Sequence[WorkerRecord]:
        self.asked += 1
        now = datetime.now(UTC)
        times = {"started_at": now, "reported_at": now}
        staff = [WorkerRecord(name="w", version="1", state="ready", slots=1, **times, **self._reported)]
        return staff if queue in self._queues else []


def test_by_default_nothing_is_routed_and_nobody_asked() -> None:
    fleet = PartlyStaffed()
    omni = FakeClient(fleet=fleet, settings=FleetSettings())

    job = omni.generate("tts", "Hello", model="audio-omni")

    assert (omni.jobs[0].model, omni.jobs[0].schema_version) == ("audio-omni", 1)
    assert (job.route(), job.result().record.route, fleet.asked) == (None, None, 0)


def test_each_job_goes_where_its_language_and_its_use_are_allowed() -> None:
    omni = FakeClient(settings=SEVERAL)

    said = [
        omni.generate("tts", "Hello"),
        omni.generate("tts", "Привет, мир"),
        omni.generate("tts", "Hello", commercial=True),
        omni.generate("tts", "ሰላም", language="am"),
        omni.understand("transcribe", SOUND),
    ]

    assert [job.model for job in omni.jobs] == ["audio-omni", "voxcpm2", "voxcpm2", "omnivoice", "audio-omni"]
    assert [job.schema_version for job in omni.jobs] == [1, 8, 8, 8, 1]
    route, record = said[1].route(), said[1].result().record
    assert route is not None and (route.queue, route.licence) == ("audio-omni.voxcpm2", "Apache-2.0")
    assert "Cyrillic" in route.reason
    assert (record.route, record.model.name, record.model.licence) == (route, "voxcpm2", "Apache-2.0")


def test_what_workers_report_comes_before_what_ships() -> None:
    slim = SHIPPED["voxcpm2"].model_copy(update={"commercial_use": False})
    omni = FakeClient(fleet=PartlyStaffed("audio-omni.voxcpm2", capabilities=slim), settings=SEVERAL)

    with pytest.raises(LicenceRefused, match="voxcpm2 is under"):
        omni.generate("tts", "Hello", commercial=True)

    assert omni.jobs == []


def test_commercial_edits_of_words_and_voices_go_to_a_model_that_may() -> None:
    omni = FakeClient(settings=SEVERAL)

    omni.edit("Speech", SOUND, desc="delete 'um'", commercial=True)
    omni.generate("vc", audio=SOUND, ref=SOUND, commercial=True)
    omni.edit("Speech", SOUND, desc="delete 'um'")

    assert [job.model for job in omni.jobs] == ["voxcpm2", "voxcpm2", "audio-omni"]


def test_a_commercial_edit_is_refused_where_the_workers_that_may_hear_nothing() -> None:
    deaf = SHIPPED["voxcpm2"].model_copy(update={"tasks": {"generate.tts": TaskCapability()}})
    omni = FakeClient(fleet=PartlyStaffed("audio-omni.voxcpm2", capabilities=deaf), settings=SEVERAL)

    with pytest.raises(LicenceRefused, match="voxcpm2 cannot do"):
        omni.edit("Speech", SOUND, desc="delete 'um'", commercial=True)
    with pytest.raises(TaskNotSupported):
        omni.edit("Speech", SOUND, desc="delete 'um'", commercial=True, model="voxcpm2")


def test_without_waiting_a_missing_worker_is_told_at_once() -> None:
    omni = FakeClient(fleet=PartlyStaffed("audio-omni"), settings=SEVERAL)

    with pytest.raises(NoModelFor, match="voxcpm2 or omnivoice"):
        omni.generate("tts", "Привет", wait=False)
    waiting = omni.generate("tts", "Привет").route()

    assert waiting is not None and (waiting.model, waiting.live) == ("voxcpm2", False)
    assert [job.model for job in omni.jobs] == ["voxcpm2"]


def test_a_repeat_that_would_be_routed_elsewhere_is_the_same_job() -> None:
    fleet = PartlyStaffed("audio-omni.voxcpm2")
    first = FakeClient(fleet=fleet, settings=SEVERAL).generate("tts", "Hello", idempotency_key="order-7")

    fleet._queues = ("audio-omni",)
    again = FakeClient(fleet=fleet, settings=SEVERAL)
    repeat = again.generate("tts", "Hello", idempotency_key="order-7")

    assert (repeat.id, len(fleet.jobs), fleet.jobs[0].model) == (first.id, 1, "voxcpm2")
    with pytest.raises(IdempotencyConflict) as conflict:
        again.generate("tts", "Hello", idempotency_key="order-7", model="audio-omni")
    assert conflict.value.details["differs"] == ["model"]


@pytest.mark.parametrize("settings", [FleetSettings(), SEVERAL])
def test_keys_made_of_the_content_are_those_of_one_model(settings: FleetSettings) -> None:
    alone = FakeClient(settings=FleetSettings())
    alone.generate("tts", "Hello", idempotency_key="auto")
    other = FakeClient(fleet=alone.fleet, settings=settings)

    other.generate("tts", "Hello", idempotency_key="auto")

    assert len(alone.jobs) == 1


def test_batches_and_asyncio_route_alike() -> None:
    omni = FakeClient(settings=SEVERAL)
    jobs = [batch.generate("tts", text) for text in ("Hello", "Привет")]

    outcomes = list(omni.batch([*jobs, {"task": "generate.tts", "text": "Hello", "model": "voxcpm2"}]))

    assert [one.error for one in outcomes] == [None] * 3
    assert sorted(job.model for job in omni.jobs) == ["audio-omni", "voxcpm2", "voxcpm2"]
    assert asyncio.run(_model_of_one(FakeAsyncClient(settings=SEVERAL))) == ("voxcpm2", "voxcpm2")


async def _model_of_one(omni: FakeAsyncClient) -> tuple[str, str]:
    async with omni:
        job = await omni.generate("tts", "Привет")
        route = await job.route()
        names = [one.name for one in await omni.models()]
    assert route is not None and names[:3] == ["audio-omni", "voxcpm2", "omnivoice"]
    return route.model, omni.jobs[0].model


def test_the_command_line_names_models_and_shows_the_choice(tmp_path: Any) -> None:
    omni = FakeClient(settings=SEVERAL)

    done = CliRunner().invoke(app, ["generate", "tts", "Hello", "--model", "voxcpm2", "--no-wait"], obj=omni)
    shown = CliRunner().invoke(app, ["status", done.stdout.strip()], obj=omni)
    listed = CliRunner().invoke(app, ["models"], obj=omni)

    assert (done.exit_code, omni.jobs[0].model) == (0, "voxcpm2")
    assert "by voxcpm2 (Apache-2.0): asked for by name" in shown.stdout
    assert "voxcpm2  ready  Apache-2.0 (commercial use)  generate.tts" in listed.stdout


def test_a_model_that_nobody_knows_is_refused_by_its_name() -> None:
    with pytest.raises(InvalidJob, match="no model 'parrot' is known") as refused:
        FakeClient(fleet=PartlyStaffed(), settings=SEVERAL).generate("tts", "Hello", model="parrot")

    assert refused.value.field == "model"


def test_queues_are_the_fleets_own_with_the_models_names_or_as_they_are_given() -> None:
    settings = FleetSettings(queue="staging", models="voxcpm2, audio-omni, mms=speech")

    assert settings.model_queues == {"voxcpm2": "staging.voxcpm2", "audio-omni": "staging", "mms": "speech"}
    assert settings.queue_of("omnivoice") == "staging.omnivoice"
    assert fleet_queues(settings)[:4] == ("staging.voxcpm2", "staging", "speech", "staging.omnivoice")


@pytest.mark.parametrize("models", ["", "audio-omni,", "two words", "a,a", "a=b c"])
def test_a_table_of_models_that_is_none_is_refused(models: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidSetting) as refused:
        load_settings(FleetSettings, models=models)

    assert refused.value.field == "OMNIFLEET_MODELS"
