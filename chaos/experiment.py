"""One run: load and faults side by side until the goal is reached, then a quiet time, then the report."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import FIRST_EXCEPTION, Executor, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from omnifleet import Client
from omnifleet_shared.broker.dead_letters import DeadLetters
from redis import Redis
from support.fork_server import ForkServer

from . import evidence
from .faults import LANES, Kind, plan
from .goal import Goal
from .injector import FaultInjector
from .load_generator import LoadGenerator, Outcomes
from .recorder import Recorder
from .report import Report, create_report
from .servers import REDIS_TIMEOUT, Servers
from .workers import Workers

GRACE = 120.0
"""Seconds that the last jobs have once all is quiet."""
GENERATORS_PER_WORKER = 4
"""Load generators for each worker, which has slots for sixteen jobs."""
REPLACE_INTERVAL = 0.25
"""Seconds between two looks for workers that have exited."""


@dataclass(frozen=True)
class Experiment:
    """A run on so many workers; the seed decides what is asked, and in which order what goes wrong."""

    goal: Goal
    at_most: float
    """Seconds after which it becomes quiet, goal or not."""
    workers: int
    seed: int
    deliveries: int
    """Workers that a job may lose in a row before it is put aside. With few of them this run's other faults, and its
    short leases, put innocent jobs aside."""

    def run(self, folder: Path) -> Report:
        """Run it, with files and logs in the folder. All processes are gone when this returns or raises."""
        with ExitStack() as stack:
            fork_server = stack.enter_context(ForkServer())  # imports torch, beside all that follows
            servers = stack.enter_context(Servers(folder, self.workers, self.rng("losses")).running())
            redis = Redis(port=servers.redis.port, socket_timeout=REDIS_TIMEOUT)
            recorder = stack.enter_context(Recorder(redis))
            skews = self.rng("clocks") if Kind.CLOCK_SKEW in self.goal.kinds else None
            workers = Workers(servers, folder, fork_server, skews, self.deliveries)
            omni = stack.enter_context(Client(servers.clients.settings))
            workers.start()
            run = _Run(self, servers, workers, recorder, omni, folder)
            run.go()
            report = run.report(redis)
            evidence.write(report.faulty, recorder, redis, folder)
            return report

    def rng(self, purpose: str) -> random.Random:
        """Make the random numbers of one purpose."""
        return random.Random(f"{self.seed} {purpose}")


class _Run:
    def __init__(
        self,
        experiment: Experiment,
        servers: Servers,
        workers: Workers,
        recorder: Recorder,
        omni: Client,
        folder: Path,
    ) -> None:
        self._experiment = experiment
        self._settings = servers.clients.settings
        self._workers = workers
        self._recorder = recorder
        self._omni = omni
        self._outcomes, self._poisoned = Outcomes(), Outcomes()
        self._quiet, self._over = threading.Event(), threading.Event()
        poisoner = self._generator("poisoner", self._poisoned)
        self._injector = FaultInjector(servers, workers, recorder, poisoner, folder / evidence.FAULTS, self._quiet)
        self._started = time.monotonic()

    def go(self) -> None:
        """Send jobs and make faults until the goal is reached; returns once all jobs have outcomes, or too late."""
        if Kind.CLOCK_SKEW in self._experiment.goal.kinds:
            self._injector.done[Kind.CLOCK_SKEW] = 1
        size = GENERATORS_PER_WORKER * self._experiment.workers
        with ThreadPoolExecutor(size + len(LANES)) as pool:
            try:
                threads = [*self._start_faults(pool), *self._start_load(pool, size)]
                threads = self._watch(threads, self._experiment.at_most)
                self._quiet.set()
                self._watch(threads, self._seconds + GRACE)
            finally:
                self._quiet.set()
                self._over.set()

    def report(self, redis: Redis) -> Report:
        """Make the report."""
        jobs = [*self._outcomes.jobs, *self._poisoned.jobs]
        letters = DeadLetters(redis, self._settings.queue).all()
        return create_report(
            seed=self._experiment.seed,
            seconds=self._seconds,
            outcomes=self._outcomes,
            poisoned=self._poisoned,
            recorded={job_id: self._recorder.recorded(job_id) for job_id in jobs},
            dead={letter.job.job_id: letter.reason for letter in letters},
            faults=self._injector.done,
            workers=self._workers.started,
            exits=self._workers.exits,
            recoveries=self._recorder.recoveries,
            is_complete=self._goal_is_reached(),
        )

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._started

    def _goal_is_reached(self) -> bool:
        return self._experiment.goal.is_reached(self._seconds, self._outcomes.count, self._injector.done)

    def _generator(self, name: str, outcomes: Outcomes) -> LoadGenerator:
        rng = self._experiment.rng(name)
        return LoadGenerator(name, self._omni, outcomes, rng, self._quiet, self._over)

    def _start_faults(self, pool: Executor) -> list[Future[None]]:
        threads: list[Future[None]] = []
        for lane in LANES:
            rng = self._experiment.rng(lane.name)
            threads.append(pool.submit(self._injector.run, plan(lane, self._experiment.goal.kinds, rng), rng))
        return threads

    def _start_load(self, pool: Executor, size: int) -> list[Future[None]]:
        return [pool.submit(self._generator(f"customer {number}", self._outcomes).run) for number in range(size)]

    def _watch(self, threads: list[Future[None]], until: float) -> list[Future[None]]:
        """Replace workers until all threads have ended, or the goal was reached before it is quiet, or the time is up.

        Gives the threads that go on. Raises what one of them raised.
        """
        while threads and self._seconds < until and (self._quiet.is_set() or not self._goal_is_reached()):
            self._workers.replace_exited()
            done, going = wait(threads, timeout=REPLACE_INTERVAL, return_when=FIRST_EXCEPTION)
            for thread in done:
                thread.result()
            threads = list(going)
        return threads
