"""One client in many processes, threads and greenlets: forked servers, forked workers, bursts."""

from __future__ import annotations

import asyncio
import io
import json
import multiprocessing
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from omnifleet import AsyncClient, Client, FleetSettings, batch
from omnifleet_shared.per_process import PerProcess
from omnifleet_shared.redis_client import KEPT_CONNECTIONS
from omnifleet_shared.storage import open_storage
from support import services
from support.scripted_fleet import WAIT, ScriptedFleet

FORK = multiprocessing.get_context("fork")
CHILDREN = 3
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture
def fleet(scripted: ScriptedFleet) -> ScriptedFleet:
    scripted.start()
    return scripted


def in_child(work: Callable[[], object]) -> Any:
    """Run something in a process that is forked now, as servers fork theirs, and give what it returns."""
    ours, theirs = FORK.Pipe(duplex=False)
    pid = os.fork()
    if pid == 0:
        try:
            theirs.send(work())
        except BaseException as error:
            theirs.send(repr(error))
        finally:
            os._exit(0)
    theirs.close()
    try:
        assert ours.poll(WAIT), "the child hangs"
        return ours.recv()
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def ask(omni: Client, number: int) -> bool:
    question = f"Who is number {number} of {os.getpid()}?"
    return omni.understand(question=question, max_new_tokens=1).result(WAIT).text.startswith(question)


class TestForks:
    def test_a_client_that_was_used_before_the_fork_works_on_both_sides_of_it(self, fleet: ScriptedFleet) -> None:
        assert ask(fleet.omni, 0)

        with ThreadPoolExecutor(CHILDREN) as threads:
            children = [
                threads.submit(in_child, lambda: [ask(fleet.omni, number) for number in range(5)])
                for _ in range(CHILDREN)
            ]
            parents = [ask(fleet.omni, number) for number in range(5)]

        assert parents == [True] * 5
        assert [child.result() for child in children] == [[True] * 5] * CHILDREN

    def test_a_child_of_multiprocessing_does_a_batch(self, fleet: ScriptedFleet) -> None:
        assert ask(fleet.omni, 0)
        with FORK.Pool(CHILDREN, initializer=_keep, initargs=(fleet.omni,)) as pool:
            answers = pool.map_async(_ask_batch, range(CHILDREN)).get(WAIT)

        assert answers == [4] * CHILDREN

    def test_a_child_has_a_subscription_of_its_own(self, fleet: ScriptedFleet) -> None:
        assert ask(fleet.omni, 0)

        def addresses() -> set[str]:
            ask(fleet.omni, 1)
            control = fleet.redis.client()
            return {one["addr"] for one in control.client_list() if one["sub"] != "0"}  # type: ignore[union-attr]

        before = addresses()
        in_the_child = in_child(addresses)

        assert len(in_the_child - before) == 1

    def test_an_async_client_that_was_used_before_the_fork(self, fleet: ScriptedFleet) -> None:
        omni = AsyncClient(fleet.settings)

        async def ask_async() -> str:
            job = await omni.understand(question="Who is it?", max_new_tokens=1)
            return (await job.result(WAIT)).text[:10]

        async def in_parent() -> tuple[str, Any, str]:
            before = await ask_async()
            child = await asyncio.to_thread(in_child, lambda: asyncio.run(ask_async()))
            after = await ask_async()
            await omni.close()
            return before, child, after

        assert asyncio.run(in_parent()) == ("Who is it?",) * 3

    def test_storage_in_a_child_reads_its_own_answers(self, bucket: str, s3_server: services.S3Server) -> None:
        storage = open_storage(FleetSettings(storage=f"s3://{bucket}/forks", s3_endpoint=s3_server.endpoint))
        storage.put("before", io.BytesIO(b"before"), content_type="text/plain")

        def work() -> bool:
            for number in range(10):
                data = f"{number} of {os.getpid()} ".encode() * 5000
                stored = storage.put(f"{os.getpid()}/{number}", io.BytesIO(data), content_type="text/plain")
                if storage.get(stored.uri, max_bytes=len(data)) != data:
                    return False
            return True

        with ThreadPoolExecutor(CHILDREN) as threads:
            children = [threads.submit(in_child, work) for _ in range(CHILDREN)]
            assert work()
        assert [child.result() for child in children] == [True] * CHILDREN

    def test_a_lock_that_another_thread_held_at_the_fork_holds_nobody_up(self) -> None:
        making, go = threading.Event(), threading.Event()

        def make() -> int:
            making.set()
            go.wait(WAIT if os.getpid() == parent else 0)
            return os.getpid()

        parent, own = os.getpid(), PerProcess(make)
        thread = threading.Thread(target=own.get)
        thread.start()
        making.wait(WAIT)

        child = in_child(lambda: own.get() == os.getpid())
        go.set()
        thread.join()

        assert child is True
        assert own.get() == parent


_kept: list[Client] = []


def _keep(omni: Client) -> None:
    _kept.append(omni)


def _ask_batch(_: int) -> int:
    outcomes = _kept[0].batch([batch.understand(question=f"Is it {one}?", max_new_tokens=1) for one in range(4)])
    return sum(one.error is None for one in outcomes)


class TestServers:
    def test_tasks_of_celerys_prefork_pool_send_jobs(self, fleet: ScriptedFleet, tmp_path: Path) -> None:
        environment = _environment(fleet) | {"BACKEND_URL": fleet.redis.url[:-1] + "5", "IS_WORKER": "1"}
        command = [
            sys.executable,
            "-m",
            "celery",
            "-A",
            "support.servers.celery_app",
            "worker",
            "-c",
            "2",
            "-l",
            "INFO",
        ]
        with services.process(command, tmp_path / "celery.log", environment) as worker:
            worker.wait_until_ready()
            with Celery(broker=environment["BACKEND_URL"], set_as_current=False) as backend:
                questions = [f"Who is number {number}?" for number in range(8)]
                sent = [backend.send_task("ask", [question]).id for question in questions]
            answers = [_outcome(fleet, task) for task in sent]

        for question, (pid, answer) in zip(questions, answers, strict=True):
            assert answer.startswith(question)
            assert pid != worker.process.pid

    @pytest.mark.parametrize("kind", ["sync", "gthread", "gevent"])
    def test_gunicorn_with_preload(self, fleet: ScriptedFleet, tmp_path: Path, kind: str) -> None:
        _needs("gunicorn", *(["gevent"] if kind == "gevent" else []))
        port = services.free_port()
        options = ["--preload", "-w", "2", "-k", kind, "--threads", "4", "-b", f"127.0.0.1:{port}", "-t", "120"]
        command = [sys.executable, "-m", "gunicorn", *options, "support.servers.web_app:app"]
        with services.process(command, tmp_path / "gunicorn.log", _environment(fleet)) as server:
            server.wait_until_logged("Listening at")
            with ThreadPoolExecutor(8) as threads:
                answers = list(threads.map(lambda number: _get(port, number), range(16)))

        for number, text in answers:
            assert text.split(" ", 1)[1].startswith(f"Who is number {number}?")
        assert str(server.process.pid) not in {text.split()[0] for _, text in answers}

    def test_greenlets_of_gevent(self, fleet: ScriptedFleet) -> None:
        _needs("gevent")
        command = [sys.executable, "-m", "support.servers.gevent_client", "24"]
        done = subprocess.run(command, env=_environment(fleet), capture_output=True, text=True, timeout=2 * WAIT)
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)

        assert all(text.startswith(f"Who is number {number}?") for number, text in enumerate(said["answers"]))
        assert said["switches"] > 20  # others ran while they waited


def _outcome(fleet: ScriptedFleet, task: str) -> tuple[int, str]:
    with redis.Redis(port=fleet.redis.port, db=5) as results:
        services.wait_until(lambda: results.exists(f"celery-task-meta-{task}") == 1, WAIT, "the task's outcome")
        pid, answer = json.loads(str(results.get(f"celery-task-meta-{task}"), "utf-8"))["result"]  # type: ignore[arg-type]
    return pid, answer


def _environment(fleet: ScriptedFleet) -> dict[str, str]:
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    return os.environ | fleet.environment | {"PYTHONPATH": path}


def _get(port: int, number: int) -> tuple[int, str]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/?q=Who+is+number+{number}%3F", timeout=WAIT) as answer:
        return number, answer.read().decode()


def _needs(*names: str) -> None:
    for name in names:
        if find_spec(name) is None:
            services.missing(name, "pip install 'omnifleet[test]'")


class TestBursts:
    @pytest.fixture
    def omni(self, redis_url: str, folder: Path) -> Iterator[Client]:
        with Client(FleetSettings(redis_url=redis_url, storage=f"file://{folder}")) as client:
            yield client

    def test_connections_are_given_back(self, omni: Client, redis_server: services.RedisServer) -> None:
        job = omni.understand(question="Who is it?")
        waiting = threading.Barrier(121)

        def wait() -> None:
            waiting.wait(WAIT)
            with pytest.raises(TimeoutError):
                job.result(timeout=2)

        with closing(redis_server.client()) as control, ThreadPoolExecutor(120) as threads:
            results = [threads.submit(wait) for _ in range(120)]
            waiting.wait(WAIT)
            for one in results:
                one.result()
            kept = len(control.client_list())  # type: ignore[arg-type]

        assert kept <= 2 * KEPT_CONNECTIONS + 3
        assert job.status()
