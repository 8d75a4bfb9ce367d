"""The asyncio fake that users test with."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

import pytest
from omnifleet import AsyncClient, InvalidJob, JobCancelled, JobStatus, MediaTooLong, Progress, ResultTimeout, batch
from omnifleet.batch import Outcome, Request
from omnifleet.testing import FakeAsyncClient, FakeClient

SOUND = b"RIFF and so on"


def test_it_is_an_asyncio_client_that_keeps_what_was_submitted() -> None:
    async def scenario() -> None:
        async with FakeAsyncClient(lambda job: "hello" if job.task.name == "transcribe" else None) as omni:
            assert isinstance(omni, AsyncClient)
            heard, made = await asyncio.gather(omni.understand("transcribe", SOUND), omni.generate("t2a", "rain"))
            assert (await heard.result()).text == "hello"
            assert (await made.result()).audio.read()
            assert {job.job_id for job in omni.jobs} == {heard.id, made.id}

    asyncio.run(scenario())


def test_requests_are_refused_and_jobs_fail_as_with_a_real_client() -> None:
    async def scenario() -> None:
        async with FakeAsyncClient(lambda job: MediaTooLong("it is 400 s long", "audio")) as omni:
            with pytest.raises(InvalidJob, match="at most 300 s"):
                await omni.generate("t2a", "rain", seconds=301)
            with pytest.raises(MediaTooLong, match="400 s"):
                await (await omni.understand("transcribe", SOUND)).result()

    asyncio.run(scenario())


def test_held_jobs_are_watched_by_many_and_released_from_another_thread() -> None:
    async def scenario() -> None:
        async with FakeAsyncClient() as omni:
            omni.fleet.hold()
            jobs = [await omni.understand("caption", SOUND) for _ in range(300)]
            with pytest.raises(ResultTimeout):
                await jobs[0].result(0.01)
            waiting = asyncio.gather(*(job.result() for job in jobs))
            omni.fleet.advance(jobs[0].id, 37, 100)
            assert await jobs[0].progress() == Progress(step=37, steps=100)
            threading.Timer(0.05, omni.fleet.release).start()
            assert [one.job_id for one in await waiting] == [job.id for job in jobs]

    asyncio.run(scenario())


def test_progress_is_streamed_until_the_outcome() -> None:
    async def scenario() -> list[int]:
        steps = []
        async with FakeAsyncClient() as omni:
            omni.fleet.hold()
            job = await omni.understand("caption", SOUND)
            async for progress in job.progress():
                steps.append(progress.step)
                if progress.step < 20:
                    omni.fleet.advance(job.id, progress.step + 10)
                else:
                    omni.fleet.release()
        return steps

    assert asyncio.run(scenario()) == [0, 10, 20]


def test_a_cancelled_task_cancels_the_job_where_that_is_asked_for() -> None:
    async def scenario() -> None:
        async with FakeAsyncClient() as omni:
            omni.fleet.hold()
            kept, dropped = await omni.understand("caption", SOUND), await omni.understand("caption", SOUND)
            tasks = [asyncio.create_task(kept.result()), asyncio.create_task(dropped.result(cancel_job=True))]
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            assert (await kept.status(), await dropped.status()) == (JobStatus.QUEUED, JobStatus.CANCELLED)
            with pytest.raises(JobCancelled):
                await dropped.result()

    asyncio.run(scenario())


def test_a_callback_counts_as_delivered_when_the_job_is_done() -> None:
    async def scenario() -> None:
        async with FakeAsyncClient() as omni:
            omni.fleet.hold()
            job = await omni.understand("caption", SOUND, callback="https://hooks.example.com/x")
            silent = await omni.understand("caption", SOUND)
            assert await job.callback() is None
            omni.fleet.release()
            delivery = await job.callback()
            assert delivery is not None and delivery.status == "delivered"
            assert await silent.callback() is None

    asyncio.run(scenario())


def test_both_fakes_may_share_a_fleet() -> None:
    async def scenario() -> None:
        blocking = FakeClient()
        async with FakeAsyncClient(fleet=blocking.fleet) as omni:
            job = await omni.understand("caption", SOUND)
            assert blocking.job(job.id).result().text == (await job.result()).text

    asyncio.run(scenario())


def test_a_batch_is_iterated_in_the_event_loop_and_pulled_no_further_than_asked() -> None:
    pulled: list[int] = []

    def jobs() -> Iterator[Request]:
        for number in range(1000):
            pulled.append(number)
            yield batch.understand(question=f"What is {number}?")

    async def scenario() -> list[str]:
        texts: list[str] = []
        async with (
            FakeAsyncClient(lambda job: job.task.text) as omni,  # type: ignore[union-attr]
            aclosing(omni.batch(jobs(), in_flight=4, in_order=True)) as outcomes,
        ):
            async for outcome in outcomes:
                texts.append(outcome.result.text)
                if len(texts) == 10:
                    break
        return texts

    assert asyncio.run(scenario()) == [f"What is {number}?" for number in range(10)]
    assert len(pulled) <= 10 + 2 * 4


def test_a_batch_that_cannot_begin_raises_in_the_event_loop() -> None:
    async def scenario() -> None:
        async with FakeAsyncClient() as omni:
            async for _ in omni.batch([], in_flight=0):
                pytest.fail("nothing was submitted")

    with pytest.raises(InvalidJob, match="in_flight"):
        asyncio.run(scenario())


def test_every_job_of_a_batch_has_an_outcome_and_a_bad_one_leaves_the_others_alone() -> None:
    async def scenario() -> dict[int, Outcome]:
        async with FakeAsyncClient() as omni:
            jobs: list[Request | dict[str, Any]] = [batch.generate("t2a", "rain"), {"task": "edit.add"}]
            return {outcome.index: outcome async for outcome in omni.batch(jobs)}

    outcomes = asyncio.run(scenario())

    assert outcomes[0].error is None
    assert isinstance(outcomes[1].error, InvalidJob)
