"""One run: customers and faults side by side, then quiet, then the reckoning."""

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

from .faults import PROCESS_FAULTS, SERVER_FAULTS, Faults, plan
from .load_generator import Customer, Ledger
from .recorder import Watcher
from .report import Report, draw_up
from .servers import Servers
from .workers import Crew

QUIET = 0.2
"""Part of the time, at its end, in which nothing goes wrong any more."""
GRACE = 60.0
"""Seconds that the last jobs have beyond the time."""
CUSTOMERS = 6
"""For each worker, which has places for eight jobs."""

TEND = 0.25
"""Seconds between two looks at the workers."""


@dataclass(frozen=True)
class Trial:
    """A run of so many seconds on so many workers; the seed decides what goes wrong when."""

    seconds: float
    workers: int
    seed: int

    def run(self, folder: Path) -> Report:
        """The whole run, with files and logs in the folder. All processes are gone when it returns or raises."""
        with ExitStack() as stack:
            servers = stack.enter_context(Servers(folder).running())
            watcher = stack.enter_context(Watcher(servers.redis.client()))
            fork_server = stack.enter_context(ForkServer())
            crew = Crew(self.workers, servers.worker_settings, folder, fork_server)
            omni = stack.enter_context(Client(servers.client_settings))
            crew.start()
            return self._report(servers, crew, watcher, omni)

    def _report(self, servers: Servers, crew: Crew, watcher: Watcher, omni: Client) -> Report:
        ledger, over = Ledger(), threading.Event()
        faults = Faults(servers, crew, watcher, over)
        start = time.monotonic()
        with ThreadPoolExecutor(2 + CUSTOMERS * self.workers) as pool:
            try:
                troubles = self._start_faults(faults, pool, start)
                served = self._start_customers(omni, ledger, pool, start, over)
                self._wait([*troubles, *served], crew, start)
            finally:
                over.set()
        return draw_up(
            seed=self.seed,
            seconds=time.monotonic() - start,
            ledger=ledger,
            accounts={job_id: watcher.account(job_id) for job_id in ledger.jobs},
            faults=faults.done,
            exits=crew.exits,
            recoveries=watcher.recoveries,
        )

    def _start_faults(self, faults: Faults, pool: Executor, start: float) -> list[Future[None]]:
        troubled = self.seconds * (1 - QUIET)
        carried: list[Future[None]] = []
        for name, kinds in (("processes", PROCESS_FAULTS), ("servers", SERVER_FAULTS)):
            luck = random.Random(f"{self.seed} {name}")
            planned = plan(kinds, luck, troubled)
            carried.append(pool.submit(faults.carry_out, planned, luck, start, start + troubled))
        return carried

    def _start_customers(
        self, omni: Client, ledger: Ledger, pool: Executor, start: float, over: threading.Event
    ) -> list[Future[None]]:
        names = [f"customer {number}" for number in range(CUSTOMERS * self.workers)]
        customers = [Customer(name, omni, ledger, random.Random(f"{self.seed} {name}"), over) for name in names]
        closing = start + self.seconds * (1 - QUIET / 2)
        return [pool.submit(customer.serve, closing) for customer in customers]

    def _wait(self, threads: list[Future[None]], crew: Crew, start: float) -> None:
        """Until all have come to their end, or the time is over. Raises what one of them raised."""
        until = start + self.seconds + GRACE
        while threads and time.monotonic() < until:
            crew.tend()
            done, _ = wait(threads, timeout=TEND, return_when=FIRST_EXCEPTION)
            for thread in done:
                thread.result()
            threads = [thread for thread in threads if thread not in done]
