"""`omnifleet top` of a real fleet."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime

from omnifleet.cli import app
from omnifleet_shared.broker.worker_registry import GpuRecord, WorkerRecord, WorkerRegistry
from support import services
from support.scripted_fleet import WAIT, ScriptedFleet
from typer.testing import CliRunner

WIDE = {"COLUMNS": "200"}


def one_frame(environment: dict[str, str]) -> str:
    done = CliRunner().invoke(app, ["top", "--once"], env=environment | WIDE)
    assert done.exit_code == 0, done.stdout
    return done.stdout


def words_of(frame: str, first: str) -> list[str]:
    """Of the line that begins with that word."""
    (line,) = [line for line in frame.splitlines() if line.split()[:1] == [first]]
    return line.split()


def test_a_frame_shows_the_queue_by_priority_and_every_worker(scripted: ScriptedFleet) -> None:
    worker = scripted.start(OMNIFLEET_CONCURRENCY="3")
    running = [scripted.omni.understand(question="time", max_new_tokens=4000) for _ in range(3)]
    services.wait_until(lambda: all(job.progress().step > 0 for job in running), WAIT, "progress")
    waiting = [scripted.omni.understand(question="?", priority=one) for one in ("interactive", "batch", "batch")]
    workers = WorkerRegistry.connect(scripted.settings)
    # A batch shows in the heartbeat after next: the first one after three jobs ran may cover the time before.
    services.wait_until(lambda: [round(one.record.batch, 1) for one in workers.all()] == [3.0], WAIT, "a batch of 3")
    workers.close()

    frame = one_frame(scripted.environment)

    assert words_of(frame, "interactive")[:4] == ["interactive", "1", "3", "0"]
    assert words_of(frame, "batch")[:4] == ["batch", "2", "0", "0"]
    assert "audio-omni: 1 of 1 workers ready" in frame
    (row,) = [line for line in frame.splitlines() if f":{worker.pid}" in line]
    for shown in ("ready", "scripted 1", "cpu", "3/6", "3.0/8"):
        assert shown in row
    for job in [*running, *waiting]:
        job.cancel()


def test_a_frame_shows_the_busiest_tenants(scripted: ScriptedFleet) -> None:
    for number in range(12):
        for _ in range(number + 1):
            scripted.omni.of_tenant(f"tenant-{number}").understand(question="?")

    frame = one_frame(scripted.environment)

    assert words_of(frame, "tenant-11")[:3] == ["tenant-11", "12", "0"]
    assert "tenant-1 " not in frame
    assert "and 2 more" in frame


def test_without_workers_it_says_so(scripted: ScriptedFleet) -> None:
    assert "no worker lives" in one_frame(scripted.environment)


def test_a_worker_that_stepped_aside_says_why(scripted: ScriptedFleet) -> None:
    now, reason = datetime.now(UTC), "out of service: its storage refuses its own probe"
    with closing(WorkerRegistry.connect(scripted.settings)) as workers:
        times = {"started_at": now, "reported_at": now}
        workers.report(WorkerRecord(name="gpu-1:77", version="1", state="unwell", reason=reason, slots=16, **times))

    assert f"gpu-1:77: {reason}" in one_frame(scripted.environment)


def test_a_frame_fits_a_terminal_of_80_columns(scripted: ScriptedFleet) -> None:
    now, name = datetime.now(UTC), "omnifleet@omnifleet-worker-7d9f8b6c5-abcde:7"
    gpu = GpuRecord(name="NVIDIA H100 80GB HBM3", memory_used=70 * 2**30, memory_total=80 * 2**30)
    counts = {"slots": 16, "engine_slots": 8, "held": 16, "batch": 7.9, "busy": 1.0, "succeeded": 123_456, "failed": 12}
    with closing(WorkerRegistry.connect(scripted.settings)) as workers:
        about = {"checkpoint": "audio-omni", "revision": "0123456789abcdef", "device": gpu.name, "gpu": gpu}
        times = {"started_at": now, "reported_at": now}
        workers.report(WorkerRecord(name=name, version="0.1.0", state="draining", **about, **counts, **times))

    done = CliRunner().invoke(app, ["top", "--once"], env=scripted.environment | {"COLUMNS": "80"})
    lines = done.stdout.splitlines()

    assert max(map(len, lines)) <= 80
    (row,) = [line for line in lines if "draining" in line]
    assert all(shown in row.split() for shown in ("16/16", "7.9/8", "100%", "123456", "12"))
    assert {"NVIDIA", "0123456789abcdef", "70.0/80", "0.1.0"} <= set(done.stdout.split())
    # The name goes on below, and nothing of it is lost.
    starts = [line.split()[0] for line in lines if line.strip()]
    assert name in "".join(starts)


def test_without_redis_one_frame_is_an_error() -> None:
    nowhere = {"OMNIFLEET_REDIS_URL": f"redis://127.0.0.1:{services.free_port()}/0"}

    done = CliRunner().invoke(app, ["top", "--once"], env=nowhere)

    assert done.exit_code == 3


def test_it_goes_on_until_interrupted(scripted: ScriptedFleet) -> None:
    near, far = pty.openpty()
    command = [sys.executable, "-m", "omnifleet", "top", "--interval", "0.1"]
    environment = os.environ | scripted.environment | WIDE | {"TERM": "xterm", "LINES": "40"}
    with ExitStack() as stack:
        live = stack.enter_context(subprocess.Popen(command, stdout=far, stderr=far, env=environment))
        stack.callback(live.kill)
        os.close(far)
        shown = b""
        while shown.count(b"no worker lives") < 3:
            shown += os.read(near, 65536)
        live.send_signal(signal.SIGINT)
        # Its last words need a reader: a terminal holds 4 KB. Their end is an error of the reader's.
        with suppress(OSError):
            while os.read(near, 65536):
                pass
        live.wait(WAIT)
        os.close(near)

    assert live.returncode == 0
