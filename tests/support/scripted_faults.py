"""Faults of the machine that a scripted worker runs on: a device that broke, a full disk, a clock that is wrong.

A file `<pid>.broken-device` or `<pid>.full-disk` in the folder of SCRIPTED_FAULTS begins the fault in the worker of
that process id; a disk has space again once the file is gone. SCRIPTED_CLOCK_SKEW: seconds by which the clock is ahead.
SCRIPTED_MOST_JOB_THREADS: threads that the pool of jobs is given, none beyond. SCRIPTED_HANDLER_FAILS: messages, the
first ones, with which Celery's own handler fails.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any, Self

import torch
from omnifleet_shared.storage import folder
from omnifleet_shared.storage.base import StoredObject
from omnifleet_shared.storage.s3 import S3Storage
from omnifleet_worker.service.protocol.request import FleetRequest

BROKEN = "CUDA error: an illegal memory access was encountered\nIt may be reported late."


class Device:
    """The device of a scripted worker; once it broke it stays so, as after a real CUDA error."""

    def __init__(self) -> None:
        self._is_broken = False

    def use(self, asked: str = "") -> None:
        """Raise what torch raises where the device broke, or breaks of what is asked."""
        word = os.environ.get("SCRIPTED_DEVICE_BREAKS")
        breaks = word is not None and word in asked
        self._is_broken = self._is_broken or breaks or is_switched_on("broken-device")
        if self._is_broken:
            raise torch.AcceleratorError(BROKEN)


def is_switched_on(fault: str) -> bool:
    """Whether the fault is to be."""
    switches = os.environ.get("SCRIPTED_FAULTS")
    return bool(switches) and Path(str(switches), f"{os.getpid()}.{fault}").exists()


def let_disk_fill() -> None:
    """Let writes to S3 fail as those to a folder do whose disk is full, while that is switched on."""
    put: Callable[..., StoredObject] = S3Storage.put

    def put_unless_full(storage: S3Storage, *args: Any, **kwargs: Any) -> StoredObject:
        if is_switched_on("full-disk"):
            with folder._typed_errors():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return put(storage, *args, **kwargs)

    S3Storage.put = put_unless_full  # type: ignore[method-assign]


def skew_clock(seconds: float) -> None:
    """Set this process's clock ahead, for omnifleet's own modules and all that call `time.time`."""
    right_time = time.time
    time.time = lambda: right_time() + seconds

    class SkewedDatetime(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            skewed: Any = datetime.now(tz) + timedelta(seconds=seconds)
            return skewed

    for name, module in list(sys.modules.items()):
        if name.startswith("omnifleet") and getattr(module, "datetime", None) is datetime:
            module.datetime = SkewedDatetime  # type: ignore[attr-defined]


def let_threads_run_out(most: int) -> None:
    """Let the pool of jobs start no more threads than that, as where a container's limit of processes is reached."""
    adjust = ThreadPoolExecutor._adjust_thread_count

    def adjust_or_fail(pool: ThreadPoolExecutor) -> None:
        is_of_jobs = sys._getframe(2).f_globals["__name__"] == "celery.concurrency.thread"
        if is_of_jobs and len(pool._threads) >= most:
            raise RuntimeError("can't start new thread")
        adjust(pool)

    ThreadPoolExecutor._adjust_thread_count = adjust_or_fail  # type: ignore[method-assign]


def let_handler_fail(times: int) -> None:
    """Let Celery's handler fail with so many messages, once it has noted them as its own."""
    revoked, failures = FleetRequest.revoked, iter(range(times))

    def revoked_or_fail(request: FleetRequest) -> bool:
        if next(failures, None) is not None:
            raise RuntimeError("the worker cannot do this now")
        return revoked(request)

    FleetRequest.revoked = revoked_or_fail  # type: ignore[method-assign]
