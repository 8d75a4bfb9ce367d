"""The asyncio client on a real Redis: thousands of jobs on a handful of connections, restarts, cancelled tasks."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from omnifleet import (
    AsyncClient,
    AsyncJobHandle,
    BrokerRefused,
    BrokerUnavailable,
    Client,
    InvalidJob,
    InvalidMessage,
    JobCancelled,
    JobStatus,
    MediaTooLong,
    Progress,
    ResultTimeout,
    UnknownJob,
)
from omnifleet_shared.broker.attempts import Attempts
from omnifleet_shared.broker.leases import Leases
from omnifleet_shared.broker.submit import all_lists
from omnifleet_shared.errors import OmnifleetError
from omnifleet_shared.job_state.store import JobStates
from omnifleet_shared.keys import CANCEL_KEY
from omnifleet_shared.schema.job_state import STATE_KEY
from omnifleet_shared.schema.results import JobResult, ModelInfo, Timings
from omnifleet_shared.settings import FleetSettings
from redis import Redis
from support import services

QUEUE = "audio-omni"
OURS = "the-test-itself"
MANY = 2_000
A_HANDFUL = 7
WAIT = 240.0


@pytest.fixture
def settings(redis_url: str, folder: Path) -> FleetSettings:
    return FleetSettings(redis_url=redis_url, storage=f"file://{folder}", redis_timeout=5)


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url, client_name=OURS) as client:
        yield client


class Worker:
    """Takes messages and records their outcomes, as a worker does; answers with the question."""

    def __init__(self, redis: Redis) -> None:
        self._leases = Leases(redis, QUEUE, seconds=60)
        self._attempts = Attempts(redis, QUEUE, lifetime=3600, worker="worker-1")

    def do_next(self, error: OmnifleetError | None = None) -> str | None:
        taken = self._leases.take(all_lists(QUEUE))
        if taken is None:
            return None
        message = json.loads(taken.message)
        job_id = message["headers"]["id"]
        self._attempts.begin(job_id, taken.tag)
        if error is None:
            self._attempts.succeed(result(job_id), taken.tag)
        else:
            self._attempts.fail(job_id, error, taken.tag)
        self._leases.ack(taken.tag)
        return job_id

    def do_all(self, stopping: threading.Event) -> None:
        while not stopping.is_set():
            if self.do_next() is None:
                stopping.wait(0.01)


def result(job_id: str) -> JobResult:
    model = ModelInfo(name="m", revision="r", licence="l")
    fields: dict[str, Any] = {"namespace": "understand", "task": "question", "seed": 1, "attempts": 1}
    return JobResult(job_id=job_id, text=f"answer to {job_id}", model=model, timings=Timings(), **fields)


@pytest.fixture
def worker(redis: Redis) -> Worker:
    return Worker(redis)


@pytest.fixture
def working(worker: Worker) -> Iterator[None]:
    """A worker that is at work."""
    stopping = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(worker.do_all, stopping)
        yield
        stopping.set()
        work.result()


def run(settings: FleetSettings, scenario: Callable[[AsyncClient], Any]) -> Any:
    """Run a scenario on a client of its own, and find nothing left of it: no task, no connection, no warning."""

    async def play() -> Any:
        async with AsyncClient(settings) as omni:
            outcome = await scenario(omni)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert left == set()
        return outcome

    outcome = asyncio.run(play(), debug=False)
    gc.collect()
    return outcome


def ask(omni: AsyncClient, what: str = "Who speaks?") -> Any:
    return omni.understand(question=what)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(WAIT):
        while not condition():
            await asyncio.sleep(0.01)


def subscribed(redis: Redis, job_id: str) -> bool:
    return dict(redis.pubsub_numsub(STATE_KEY.format(job_id=job_id))).popitem()[1] > 0  # type: ignore[arg-type]


def own_connections(redis: Redis) -> int:
    """Connections to this Redis but those of the test itself and its worker."""
    return len([one for one in redis.client_list() if one["name"] != OURS])


class TestManyJobs:
    @pytest.mark.usefixtures("working")
    def test_thousands_are_sent_and_waited_for_on_a_handful_of_connections(
        self, settings: FleetSettings, redis: Redis
    ) -> None:
        most = 0

        async def scenario(omni: AsyncClient) -> list[str]:
            async def one(number: int) -> str:
                job = await ask(omni, f"question {number}")
                answer = await job.result(WAIT)
                assert answer.job_id == job.id
                return answer.text == f"answer to {job.id}"

            async def count() -> None:
                nonlocal most
                while True:
                    most = max(most, await asyncio.to_thread(own_connections, redis))
                    await asyncio.sleep(0.05)

            counting = asyncio.create_task(count())
            answers = await asyncio.gather(*(one(number) for number in range(MANY)))
            counting.cancel()
            await asyncio.wait({counting})
            return answers

        answers = run(settings, scenario)

        assert answers == [True] * MANY
        assert 2 <= most <= A_HANDFUL
        services.wait_until(lambda: own_connections(redis) == 0, what="all connections closed")

    def test_all_wait_at_once_until_the_last_outcome(self, settings: FleetSettings, redis: Redis) -> None:
        job_ids = [f"job-{number}" for number in range(MANY)]
        states = JobStates(redis, 3600)
        for job_id in job_ids:
            services.mark_queued(states, job_id)

        async def scenario(omni: AsyncClient) -> None:
            waiting = [asyncio.create_task(omni.job(job_id).result(WAIT)) for job_id in job_ids]
            await until(lambda: len(redis.pubsub_channels()) == MANY)
            assert [one for one in waiting if one.done()] == []
            for job_id in job_ids:
                await asyncio.to_thread(services.mark_failed, states, job_id, MediaTooLong("it is long", "audio"))
            outcomes = await asyncio.gather(*waiting, return_exceptions=True)
            assert {type(outcome) for outcome in outcomes} == {MediaTooLong}
            assert len({id(outcome) for outcome in outcomes}) == MANY

        run(settings, scenario)

    def test_a_look_at_thousands_takes_no_more_connections(self, settings: FleetSettings, redis: Redis) -> None:
        services.mark_queued(JobStates(redis, 3600), "job")

        async def scenario(omni: AsyncClient) -> int:
            job = omni.job("job")
            looks = asyncio.gather(*(job.status() for _ in range(MANY)), *(job.progress() for _ in range(MANY)))
            statuses = await looks
            assert set(statuses) == {JobStatus.QUEUED, Progress()}
            return own_connections(redis)

        assert 0 < run(settings, scenario) <= A_HANDFUL


class TestOutcomes:
    @pytest.mark.usefixtures("working")
    def test_a_job_is_sent_and_answered(self, settings: FleetSettings) -> None:
        async def scenario(omni: AsyncClient) -> None:
            job = await ask(omni)
            assert isinstance(job, AsyncJobHandle)
            assert (await job.result(WAIT)).text == f"answer to {job.id}"
            assert await job.status() is JobStatus.SUCCEEDED
            # Those who come later, and those who wait together.
            again = await asyncio.gather(*(omni.job(job.id).result(WAIT) for _ in range(3)))
            assert {one.job_id for one in again} == {job.id}

        run(settings, scenario)

    def test_an_outcome_is_told_at_once_and_not_found_by_looking(
        self, settings: FleetSettings, worker: Worker, redis: Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("omnifleet_shared.job_state.watched_jobs.POLL_INTERVAL", 3600)

        async def scenario(omni: AsyncClient) -> None:
            job = await ask(omni)
            waiting = asyncio.create_task(job.result(WAIT))
            await until(lambda: subscribed(redis, job.id))
            await asyncio.to_thread(worker.do_next)
            assert (await waiting).job_id == job.id

        run(settings, scenario)

    def test_an_outcome_that_nobody_published_is_found_by_looking(self, settings: FleetSettings, redis: Redis) -> None:
        async def scenario(omni: AsyncClient) -> None:
            job = await ask(omni)
            waiting = asyncio.create_task(job.result(WAIT))
            await until(lambda: subscribed(redis, job.id))
            record = {"status": "SUCCESS", "result": result(job.id).model_dump(mode="json"), "task_id": job.id}
            redis.set(STATE_KEY.format(job_id=job.id), json.dumps(record))
            assert (await waiting).job_id == job.id

        run(settings, scenario)

    def test_it_is_found_even_where_there_is_news_of_others_all_the_time(
        self, settings: FleetSettings, redis: Redis
    ) -> None:
        async def scenario(omni: AsyncClient) -> None:
            unheard = await ask(omni)
            waiting = asyncio.create_task(unheard.result(WAIT))
            await until(lambda: subscribed(redis, unheard.id))
            record = {"status": "SUCCESS", "result": result(unheard.id).model_dump(mode="json")}
            redis.set(STATE_KEY.format(job_id=unheard.id), json.dumps(record))
            async with asyncio.timeout(WAIT):
                while not waiting.done():
                    with pytest.raises(UnknownJob):
                        await omni.job("nobody").result()
            assert (await waiting).job_id == unheard.id

        run(settings, scenario)

    def test_errors_come_as_their_own_class_and_as_an_instance_for_each(
        self, settings: FleetSettings, worker: Worker
    ) -> None:
        async def scenario(omni: AsyncClient) -> None:
            job = await ask(omni)
            worker.do_next(MediaTooLong("it is 400 s long", "audio"))
            outcomes = await asyncio.gather(*(job.result(WAIT) for _ in range(3)), return_exceptions=True)
            assert {type(one) for one in outcomes} == {MediaTooLong}
            assert len({id(one) for one in outcomes}) == 3

        run(settings, scenario)

    def test_a_job_that_nobody_knows(self, settings: FleetSettings) -> None:
        async def scenario(omni: AsyncClient) -> None:
            job = omni.job("nobody")
            for look in (job.result(WAIT), job.status(), job.callback(), job.cancel(), anext(aiter(job.progress()))):
                with pytest.raises(UnknownJob, match="'nobody'"):
                    await look

        run(settings, scenario)

    def test_a_record_that_cannot_be_read(self, settings: FleetSettings, redis: Redis) -> None:
        redis.set(STATE_KEY.format(job_id="odd"), b"\xff")

        async def scenario(omni: AsyncClient) -> None:
            with pytest.raises(InvalidMessage):
                await omni.job("odd").result(WAIT)

        run(settings, scenario)

    @pytest.mark.parametrize("timeout", [0, 0.2])
    def test_time_runs_out_and_the_job_goes_on(self, settings: FleetSettings, worker: Worker, timeout: float) -> None:
        async def scenario(omni: AsyncClient) -> None:
            job = await ask(omni)
            with pytest.raises(ResultTimeout, match="queued"):
                await job.result(timeout)
            worker.do_next()
            assert (await job.result(timeout + WAIT)).job_id == job.id
            assert (await job.result(0)).job_id == job.id

        run(settings, scenario)

    def test_a_bad_request_is_refused_when_it_is_awaited(self, settings: FleetSettings, redis: Redis) -> None:
        async def scenario(omni: AsyncClient) -> None:
            calls = [omni.generate("t2a", "rain", seconds=301), omni.generate("t2a", "rain")]
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert isinstance(outcomes[0], InvalidJob)
            assert isinstance(outcomes[1], AsyncJobHandle)

        run(settings, scenario)

        assert redis.llen(QUEUE) == 1

    @pytest.mark.usefixtures("working")
    def test_a_result_is_saved_off_the_event_loop(self, settings: FleetSettings, tmp_path: Path) -> None:
        async def scenario(omni: AsyncClient) -> str:
            job = await ask(omni)
            return (await job.save(tmp_path / "answer.txt", WAIT)).read_text()

        assert run(settings, scenario).startswith("answer to")


class TestProgress:
    def test_it_is_streamed_until_the_outcome(self, settings: FleetSettings, worker: Worker, redis: Redis) -> None:
        states = JobStates(redis, 3600)

        async def scenario(omni: AsyncClient) -> list[int]:
            job = await ask(omni)
            steps = []
            async for progress in job.progress():
                assert progress == await job.progress() or progress.step == 0
                steps.append(progress.step)
                if len(steps) < 4:
                    states.write_progress({job.id: Progress(step=10 * len(steps), steps=30)})
                else:
                    worker.do_next(JobCancelled("enough"))
            assert await job.status() is JobStatus.CANCELLED
            return steps

        assert run(settings, scenario) == [0, 10, 20, 30]

    def test_a_stream_that_is_left_leaves_nothing(self, settings: FleetSettings) -> None:
        async def scenario(omni: AsyncClient) -> None:
            job = await ask(omni)
            async for _ in job.progress():
                break
            await asyncio.sleep(0.05)  # the event loop closes the generator

        run(settings, scenario)


class TestCancellation:
    def test_a_cancelled_task_ends_the_wait_and_not_the_job(self, settings: FleetSettings, redis: Redis) -> None:
        async def scenario(omni: AsyncClient) -> None:
            job = await ask(omni)
            waiting = asyncio.create_task(job.result())
            await until(lambda: subscribed(redis, job.id))
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert not redis.exists(CANCEL_KEY.format(job_id=job.id))
            await until(lambda: not subscribed(redis, job.id))

        run(settings, scenario)

    def test_it_ends_the_job_too_where_that_is_asked_for(self, settings: FleetSettings, redis: Redis) -> None:
        async def scenario(omni: AsyncClient) -> None:
            jobs = await asyncio.gather(*(ask(omni) for _ in range(20)))
            waiting = asyncio.gather(*(job.result(cancel_job=True) for job in jobs))
            await until(lambda: all(subscribed(redis, job.id) for job in jobs))
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await until(lambda: all(redis.exists(CANCEL_KEY.format(job_id=job.id)) for job in jobs))

        run(settings, scenario)

    def test_even_where_the_task_is_cancelled_once_more(self, settings: FleetSettings, redis: Redis) -> None:
        async def scenario(omni: AsyncClient) -> str:
            job = await ask(omni)
            waiting = asyncio.create_task(job.result(cancel_job=True))
            await until(lambda: subscribed(redis, job.id))
            waiting.cancel()
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait({waiting})
            return job.id  # closing the client waits for the cancel request

        job_id = run(settings, scenario)

        assert redis.exists(CANCEL_KEY.format(job_id=job_id))


class TestOutages:
    @pytest.fixture
    def server(self, tmp_path: Path) -> services.RedisServer:
        folder = tmp_path / "redis"
        folder.mkdir()
        return services.RedisServer(services.free_port(), folder)

    @pytest.fixture
    def own(self, server: services.RedisServer, folder: Path) -> FleetSettings:
        return FleetSettings(redis_url=server.url, storage=f"file://{folder}", redis_timeout=2)

    def test_waiting_survives_a_restart_of_redis(self, own: FleetSettings, server: services.RedisServer) -> None:
        async def scenario(omni: AsyncClient) -> None:
            with ExitStack() as first:
                first.enter_context(server.running())
                with server.client() as redis:
                    jobs = await asyncio.gather(*(ask(omni) for _ in range(50)))
                    waiting = [asyncio.create_task(job.result(WAIT)) for job in jobs]
                    streaming = asyncio.create_task(last_of(jobs[0]))
                    await until(lambda: subscribed(redis, jobs[-1].id))
            await asyncio.sleep(0.5)
            assert [one for one in waiting if one.done()] == []
            with server.running(), server.client() as redis:
                worker = Worker(redis)
                await asyncio.to_thread(lambda: [worker.do_next() for _ in range(25)])
                await until(lambda: subscribed(redis, jobs[-1].id) or waiting[-1].done())
                await asyncio.to_thread(lambda: [worker.do_next() for _ in range(25)])
                results = await asyncio.gather(*waiting)
                await streaming
                assert [one.job_id for one in results] == [job.id for job in jobs]
                await omni.close()

        run(own, scenario)

    def test_a_redis_that_is_away_is_said_when_the_time_is_over(
        self, own: FleetSettings, server: services.RedisServer
    ) -> None:
        async def scenario(omni: AsyncClient) -> None:
            with pytest.raises(BrokerUnavailable):
                await omni.job("job").result(0.5)
            with pytest.raises(BrokerUnavailable):
                await ask(omni)

        run(own, scenario)

    def test_a_refused_password_is_said_at_once(self, own: FleetSettings, server: services.RedisServer) -> None:
        url = own.redis_url.replace("redis://", "redis://:wrong@")

        async def scenario(omni: AsyncClient) -> None:
            jobs = [omni.job(f"job-{number}") for number in range(3)]
            outcomes = await asyncio.gather(*(job.result(WAIT) for job in jobs), return_exceptions=True)
            assert {type(one) for one in outcomes} == {BrokerRefused}

        with server.running(), server.client() as redis:
            redis.config_set("requirepass", "right")
            run(own.model_copy(update={"redis_url": url}), scenario)


async def last_of(job: AsyncJobHandle) -> Progress | None:
    last = None
    async for progress in job.progress():
        last = progress
    return last


class TestLoopsAndThreads:
    def test_another_event_loop_needs_another_client(self, settings: FleetSettings) -> None:
        omni = AsyncClient(settings)

        async def use() -> None:
            await ask(omni)

        async def use_and_close() -> None:
            await ask(omni)
            with pytest.raises(RuntimeError, match="one AsyncClient for each loop"):
                await asyncio.to_thread(asyncio.run, use())
            await omni.close()

        asyncio.run(use_and_close())

    @pytest.mark.usefixtures("working")
    def test_each_thread_may_have_a_loop_and_a_client_of_its_own(self, settings: FleetSettings) -> None:
        async def scenario(omni: AsyncClient) -> int:
            jobs = await asyncio.gather(*(ask(omni) for _ in range(20)))
            return len(await asyncio.gather(*(job.result(WAIT) for job in jobs)))

        with ThreadPoolExecutor(3) as threads:
            assert list(threads.map(lambda _: run(settings, scenario), range(3))) == [20] * 3

    @pytest.mark.usefixtures("working")
    def test_both_clients_know_each_other_s_jobs(self, settings: FleetSettings) -> None:
        async def scenario(omni: AsyncClient) -> None:
            with Client(settings) as other:
                job = await ask(omni)
                theirs = await asyncio.to_thread(other.understand, question="Who?")
                assert (await asyncio.to_thread(other.job(job.id).result, WAIT)).job_id == job.id
                assert (await omni.job(theirs.id).result(WAIT)).job_id == theirs.id

        run(settings, scenario)

    def test_a_transport_that_was_given_is_not_closed(self, settings: FleetSettings) -> None:
        closed: list[bool] = []

        class Given:
            async def close(self) -> None:
                closed.append(True)

        @asynccontextmanager
        async def client() -> AsyncIterator[AsyncClient]:
            async with AsyncClient(settings, transport=Given()) as omni:  # type: ignore[arg-type]
                yield omni

        async def open_and_close() -> None:
            async with client():
                pass

        asyncio.run(open_and_close())

        assert closed == []
