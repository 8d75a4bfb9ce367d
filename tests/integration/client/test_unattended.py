"""A job that waits while no worker lives: whoever waits for it is told so, once."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from omnifleet import AsyncClient, BrokerUnavailable, Client, ResultTimeout
from omnifleet.batch.concurrency import InFlightLimit
from omnifleet.batch.journal.journal import Counts
from omnifleet.batch.progress import RateMeter
from omnifleet.cli import app, session
from omnifleet.transport import unattended
from omnifleet_shared.broker.worker_registry import Capacity, WorkerRecord, WorkerRegistry
from omnifleet_shared.settings import FleetSettings
from support import services
from typer.testing import CliRunner

PATIENCE = 0.2
ASK = ("understand", "What is heard?")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unattended, "PATIENCE", PATIENCE)
    monkeypatch.setattr(session, "PATIENCE", PATIENCE)


@pytest.fixture
def settings(redis_url: str, folder: Path) -> FleetSettings:
    return FleetSettings(redis_url=redis_url, storage=f"file://{folder}", redis_timeout=1)


@pytest.fixture
def client(settings: FleetSettings) -> Iterator[Client]:
    with Client(settings) as client:
        yield client


@pytest.fixture
def loading(settings: FleetSettings) -> None:
    """A worker that lives, and is not ready yet."""
    with closing(WorkerRegistry.connect(settings)) as workers:
        times = {"started_at": datetime.now(UTC), "reported_at": datetime.now(UTC)}
        workers.report(WorkerRecord(name="omnifleet@gpu:1", version="1", state="loading", slots=16, **times))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if getattr(record, "action", "") == "job_unattended"]


class TestResult:
    def test_warns_once_and_says_so_when_time_is_up(self, client: Client, caplog: pytest.LogCaptureFixture) -> None:
        job = client.understand(question="What is heard?")

        with caplog.at_level(logging.WARNING), pytest.raises(ResultTimeout, match="no worker lives") as caught:
            job.result(4 * PATIENCE + 1)

        assert (caught.value.details["workers"], caught.value.details["status"]) == (0, "queued")
        (warning,) = warnings(caplog)
        assert job.id in warning
        assert "omnifleet doctor" in warning
        assert job.is_unattended()

    @pytest.mark.usefixtures("loading")
    def test_waits_for_a_worker_that_loads(self, client: Client, caplog: pytest.LogCaptureFixture) -> None:
        job = client.understand(question="What is heard?")

        with caplog.at_level(logging.WARNING), pytest.raises(ResultTimeout, match="is queued") as caught:
            job.result(4 * PATIENCE + 1)

        assert "no worker" not in str(caught.value)
        assert warnings(caplog) == []
        assert not job.is_unattended()

    async def _ask(self, settings: FleetSettings) -> bool:
        async with AsyncClient(settings) as client:
            job = await client.understand(question="What is heard?")
            with pytest.raises(ResultTimeout, match="no worker lives"):
                await job.result(4 * PATIENCE + 1)
            return await job.is_unattended()

    def test_does_in_asyncio_too(self, settings: FleetSettings, caplog: pytest.LogCaptureFixture) -> None:
        import asyncio

        with caplog.at_level(logging.WARNING):
            assert asyncio.run(self._ask(settings))

        assert len(warnings(caplog)) == 1


class TestCommandLine:
    @pytest.fixture
    def environment(self, settings: FleetSettings) -> dict[str, str]:
        return {"OMNIFLEET_REDIS_URL": settings.redis_url, "OMNIFLEET_STORAGE": settings.storage}

    def test_says_so_once_while_it_waits(self, environment: dict[str, str]) -> None:
        done = CliRunner().invoke(app, [*ASK, "--timeout", "2"], env=environment)

        assert (done.exit_code, done.stdout) == (4, "")
        assert done.stderr.count("No worker lives: the job waits") == 1

    def test_says_so_where_it_does_not_wait(self, environment: dict[str, str]) -> None:
        done = CliRunner().invoke(app, [*ASK, "--no-wait"], env=environment)

        assert (done.exit_code, len(done.stdout.split())) == (0, 1)
        assert "No worker lives" in done.stderr

    @pytest.mark.usefixtures("loading")
    def test_does_not_where_a_worker_lives(self, environment: dict[str, str]) -> None:
        done = CliRunner().invoke(app, [*ASK, "--timeout", "1"], env=environment)

        assert (done.exit_code, "orker lives" in done.stderr) == (4, False)


def test_a_batch_waits_for_a_worker() -> None:
    meter = RateMeter(10, Counts(), InFlightLimit(lambda: Capacity()))
    assert meter.status().waits_for is None

    meter.in_flight = 3
    waits_for = meter.status().waits_for

    assert waits_for is not None and waits_for.startswith("no worker lives")


def test_nothing_is_uploaded_while_redis_is_away(folder: Path) -> None:
    nowhere = f"redis://127.0.0.1:{services.free_port()}/0"

    with (
        Client(FleetSettings(redis_url=nowhere, storage=f"file://{folder}", redis_timeout=0.5)) as omni,
        pytest.raises(BrokerUnavailable),
    ):
        omni.edit("add", b"RIFF and so on", desc="rain")

    assert [path for path in folder.rglob("*") if path.is_file()] == []
