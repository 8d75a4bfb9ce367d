"""The host's memory, shared by jobs that fetch, decode and run at once."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omnifleet_shared.errors import JobCancelled
from omnifleet_shared.schema.jobs import Job, read_job
from omnifleet_shared.schema.model_card import ModelCard
from omnifleet_shared.storage import FolderStorage
from omnifleet_worker.engine.engine import Engine
from omnifleet_worker.jobs.host_memory import FREE_SHARE, HostMemory, host_memory
from omnifleet_worker.jobs.inputs import JobMedia, decode, decoded_bytes, fetch, fetched_bytes
from omnifleet_worker.jobs.job_context import JobContext
from omnifleet_worker.jobs.runner import JobRunner
from omnifleet_worker.jobs.tasks import JobModel
from omnifleet_worker.media.isolation.processes import shared_processes
from omnifleet_worker.media.limits import MediaLimits
from omnifleet_worker.settings import WorkerSettings
from support.data import media_files
from support.processes import wait_until

LIMIT = 100
CARD = ModelCard(revision="1", licence="none", languages=("en",))


def nothing() -> None:
    """What a job looks for that nobody cancels."""


def run_job(memory: HostMemory, fetched: int, decoded: int, held: int, work: Callable[[], None] = nothing) -> None:
    with memory.room("a job", nothing) as room:
        room.await_fetching(fetched)
        room.await_decoding(fetched + decoded)
        work()
        room.settle(held)
        work()


jobs = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=12)


@settings(max_examples=20, deadline=None)
@given(jobs=jobs)
def test_whatever_comes_at_once_never_more_is_held_than_there_is_and_everybody_has_its_turn(
    jobs: list[tuple[int, int, int]],
) -> None:
    memory = HostMemory(LIMIT)
    seen: list[int] = []

    with ThreadPoolExecutor(len(jobs)) as pool:
        running = [
            pool.submit(run_job, memory, fetched, decoded, min(held, decoded), lambda: seen.append(memory.reserved))
            for fetched, decoded, held in jobs
        ]
        for job in running:
            job.result(timeout=60)

    assert len(seen) == 2 * len(jobs)
    assert max(seen) <= LIMIT
    assert (memory.reserved, memory.waiting) == (0, 0)


def test_a_job_larger_than_all_memory_has_it_alone() -> None:
    memory = HostMemory(LIMIT)
    with memory.room("large", nothing) as large:
        large.await_fetching(300)
        large.await_decoding(900)

        with ThreadPoolExecutor(1) as pool:
            small = pool.submit(run_job, memory, 1, 1, 1)
            wait_until(lambda: memory.waiting == 1)
            assert not small.done()
            large.settle(10)
            small.result(timeout=60)


def test_jobs_that_have_fetched_and_have_no_room_to_decode_do_not_wait_for_each_other() -> None:
    memory = HostMemory(LIMIT)

    with ThreadPoolExecutor(2) as pool, memory.room("one", nothing) as one, memory.room("other", nothing) as other:
        one.await_fetching(25)
        other.await_fetching(25)
        waiting = pool.submit(one.await_decoding, 90)
        wait_until(lambda: memory.waiting == 1)
        decoded = pool.submit(other.await_decoding, 80)

        waiting.result(timeout=60)
        wait_until(lambda: memory.waiting == 1)
        assert not decoded.done()
        one.settle(20)
        decoded.result(timeout=60)


def test_a_job_that_waits_can_be_cancelled_and_holds_nobody_up() -> None:
    memory = HostMemory(LIMIT)

    def cancelled() -> None:
        raise JobCancelled("the job was cancelled")

    with memory.room("holder", nothing) as holder, memory.room("cancelled", cancelled) as room:
        holder.await_decoding(60)
        with pytest.raises(JobCancelled):
            room.await_decoding(60)
        run_job(memory, 1, 30, 30)

    assert memory.waiting == 0


def question(storage: FolderStorage) -> Job:
    data = media_files.wav(2.0)
    media = storage.put_input(storage.describe_input(io.BytesIO(data)), io.BytesIO(data))
    task = {"name": "caption", "audio": [media.model_dump()]}
    return read_job({"schema_version": 1, "namespace": "understand", "task": task})


def test_a_job_fetches_nothing_before_there_is_room_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = FolderStorage(tmp_path)
    job = question(storage)
    begun, may_end = threading.Semaphore(0), threading.Semaphore(0)

    def work(context: JobContext, media: JobMedia) -> str:
        begun.release()
        assert may_end.acquire(timeout=60)
        return "an answer"

    about: dict[str, Any] = {"card": CARD, "precision": "cpu float32", "keeps_voices": False, "adapters": None}
    model = cast(JobModel, SimpleNamespace(**about, validate_job=CARD.validate_job, run=work))
    # Decoded, a file of 16-bit samples is twice as large.
    runner = JobRunner(model, storage, WorkerSettings(host_memory=int(2.5 * fetched_bytes(job, 2**30))))
    fetched: list[str] = []
    get = storage.get
    monkeypatch.setattr(storage, "get", lambda uri, **more: (fetched.append(uri), get(uri, **more))[1])
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(runner.run, JobContext(job, cast(Engine, None))) for _ in range(2)]
        assert begun.acquire(timeout=60)
        wait_until(lambda: runner.host_memory.waiting == 1)
        assert len(fetched) == 1

        may_end.release(2)

        assert [run.result(timeout=60).text for run in runs] == ["an answer"] * 2
    assert runner.host_memory.reserved == 0


def test_what_a_job_takes_is_told_before_it_is_fetched_and_before_it_is_decoded(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path)
    job = question(storage)
    fetched = fetch(job, storage, 2**30)
    media = decode(job, fetched, CARD, MediaLimits(), shared_processes())
    file = sum(len(data) for data in fetched["audio"])

    assert fetched_bytes(job, 2**30) == file
    assert fetched_bytes(job, 10) == 10
    assert decoded_bytes(job, fetched, CARD, MediaLimits(), shared_processes()) == 3 * file + 2 * media.nbytes


def files(root: Path, **contents: str) -> None:
    for name, text in contents.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


MEMINFO = "MemTotal:       9000 kB\nMemAvailable:   4000 kB\nHugePages_Total:       0\n"


@pytest.mark.parametrize(
    ("contents", "free"),
    [
        ({"proc__self__cgroup": "0::/\n"}, 4000 * 1024),
        (
            {
                "proc__self__cgroup": "0::/kubepods/pod\n",
                "sys__fs__cgroup__memory_dot_max": "2000000\n",
                "sys__fs__cgroup__memory_dot_current": "1500000\n",
                "sys__fs__cgroup__memory_dot_stat": "anon 1200000\ninactive_file 300000\n",
            },
            800_000,
        ),
        (
            {
                "proc__self__cgroup": "0::/\n",
                "sys__fs__cgroup__memory_dot_max": "max\n",
                "sys__fs__cgroup__memory_dot_current": "1500000\n",
            },
            4000 * 1024,
        ),
        (
            {
                "proc__self__cgroup": "4:memory:/docker/1\n3:cpuset:/docker/1\n0::/\n",
                "sys__fs__cgroup__memory__docker__1__memory_dot_limit_in_bytes": "3000000\n",
                "sys__fs__cgroup__memory__docker__1__memory_dot_usage_in_bytes": "1000000\n",
                "sys__fs__cgroup__memory__docker__1__memory_dot_stat": "cache 9\ntotal_inactive_file 500000\n",
            },
            2_500_000,
        ),
    ],
    ids=["no limit", "a pod's", "none of version 2", "version 1"],
)
def test_the_budget_is_most_of_what_the_container_or_the_machine_has_free(
    contents: dict[str, str], free: int, tmp_path: Path
) -> None:
    files(tmp_path, proc__meminfo=MEMINFO, **contents)

    assert host_memory(None, tmp_path).limit == int(FREE_SHARE * free)
    assert host_memory(123, tmp_path).limit == 123
