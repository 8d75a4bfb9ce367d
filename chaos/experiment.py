"""One run: load and faults side by side, then a quiet time, then the report."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import FIRST_EXCEPTION, Executor, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from omnifleet import Client
from support.fork_server import ForkServer

from .faults import PROCESS_FAULTS, SERVER_FAULTS, FaultInjector, plan
from .load_generator import LoadGenerator, Outcomes
from .recorder import Recorder
from .report import Report, create_report
from .servers import Servers
from .workers import Workers

QUIET = 0.2
"""Part of the time, at its end, in which nothing goes wrong any more."""
GRACE = 60.0
"""Seconds that the last jobs have beyond the time."""
GENERATORS_PER_WORKER = 6
"""Load generators for each worker, which has slots for eight jobs."""
REPLACE_INTERVAL = 0.25
"""Seconds between two looks for workers that have exited."""


@dataclass(frozen=True)
class Experiment:
    """A run of so many seconds on so many workers; the seed decides what goes wrong when."""

    seconds: float
    workers: int
    seed: int

    def run(self, folder: Path) -> Report:
        """Run it, with files and logs in the folder. All processes are gone when this returns or raises."""
        with ExitStack() as stack:
            servers = stack.enter_context(Servers(folder).running())
            recorder = stack.enter_context(Recorder(servers.redis.client()))
            fork_server = stack.enter_context(ForkServer())
            workers = Workers(self.workers, servers.worker_settings, folder, fork_server)
            omni = stack.enter_context(Client(servers.client_settings))
            workers.start()
            return self._run(servers, workers, recorder, omni)

    def _run(self, servers: Servers, workers: Workers, recorder: Recorder, omni: Client) -> Report:
        outcomes, over = Outcomes(), threading.Event()
        injector = FaultInjector(servers, workers, recorder, over)
        start = time.monotonic()
        with ThreadPoolExecutor(2 + GENERATORS_PER_WORKER * self.workers) as pool:
            try:
                faults = self._start_faults(injector, pool, start)
                load = self._start_load(omni, outcomes, pool, start, over)
                self._wait([*faults, *load], workers, start)
            finally:
                over.set()
        return create_report(
            seed=self.seed,
            seconds=time.monotonic() - start,
            outcomes=outcomes,
            recorded={job_id: recorder.recorded(job_id) for job_id in outcomes.jobs},
            faults=injector.done,
            exits=workers.exits,
            recoveries=recorder.recoveries,
        )

    def _start_faults(self, injector: FaultInjector, pool: Executor, start: float) -> list[Future[None]]:
        troubled = self.seconds * (1 - QUIET)
        threads: list[Future[None]] = []
        for name, kinds in (("processes", PROCESS_FAULTS), ("servers", SERVER_FAULTS)):
            rng = random.Random(f"{self.seed} {name}")
            planned = plan(kinds, rng, troubled)
            threads.append(pool.submit(injector.run, planned, rng, start, start + troubled))
        return threads

    def _start_load(
        self, omni: Client, outcomes: Outcomes, pool: Executor, start: float, over: threading.Event
    ) -> list[Future[None]]:
        names = [f"customer {number}" for number in range(GENERATORS_PER_WORKER * self.workers)]
        generators = [LoadGenerator(name, omni, outcomes, random.Random(f"{self.seed} {name}"), over) for name in names]
        until = start + self.seconds * (1 - QUIET / 2)
        return [pool.submit(generator.run, until) for generator in generators]

    def _wait(self, threads: list[Future[None]], workers: Workers, start: float) -> None:
        """Wait until all threads have ended, or the time is over. Raises what one of them raised."""
        until = start + self.seconds + GRACE
        while threads and time.monotonic() < until:
            workers.replace_exited()
            done, _ = wait(threads, timeout=REPLACE_INTERVAL, return_when=FIRST_EXCEPTION)
            for thread in done:
                thread.result()
            threads = [thread for thread in threads if thread not in done]
