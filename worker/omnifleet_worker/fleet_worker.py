"""What one worker process holds: the checkpoint, its engine, the storage, and the leases of its jobs."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from contextlib import suppress

from omnifleet_shared.attempts import Attempts
from omnifleet_shared.callbacks import Callbacks
from omnifleet_shared.capacity import Workforce
from omnifleet_shared.errors import BrokerUnavailable
from omnifleet_shared.job_states import JobStates
from omnifleet_shared.leases import Leases
from omnifleet_shared.storage import open_storage

from .callback_poster import CallbackPoster
from .checkpoint import describe, open_model
from .delivery import Deliveries
from .engine.engine import Engine, ModelRunner
from .engine.limits import EngineLimits
from .jobs.patience import patiently
from .jobs.runner import JobRunner
from .jobs.tasks import ModelData
from .lease_keeper import LeaseKeeper
from .monitor import JobMonitor
from .settings import WorkerSettings

logger = logging.getLogger(__name__)


class FleetWorker:
    """Puts a worker together and takes it apart. `start` must return before the first message is taken."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        self.states = JobStates.connect(settings)
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._workforce = Workforce.connect(settings)
        self.keeper = LeaseKeeper(
            Leases.connect(settings),
            places=settings.concurrency,
            stalled=self._stalled,
            engine_patience=settings.engine_patience,
            poll_patience=settings.poll_patience,
            on_lost=self._abandon,
            announce=self._announce,
        )
        self.attempts = Attempts.connect(settings, worker=self._name)
        self._poster = CallbackPoster(Callbacks.connect(settings), settings)
        self._monitor = JobMonitor(self.states, settings.progress_interval)
        self._engine: Engine | None = None
        self._draining = False
        self.deliveries: Deliveries

    def start(self) -> None:
        """Load everything and start the engine. Raises PermanentError where the worker can never work."""
        storage = open_storage(self.settings)
        # Redis may well start later than its workers.
        patiently(self.states.check_redis, BrokerUnavailable, self.settings.redis_patience)
        model, runner, limits = self.load()
        self._engine = Engine(runner, limits)
        jobs = JobRunner(model, storage, self.settings)
        parts = (self.attempts, self._monitor, self.keeper, self._poster)
        self.deliveries = Deliveries(jobs, self._engine, *parts, self.settings)
        self._engine.start()
        self._monitor.start()
        with suppress(BrokerUnavailable):  # the keeper says it again
            self._announce()
        self.keeper.start()
        self._poster.start()
        logger.info("the engine runs: %s", limits, extra={"action": "worker_started"})

    def load(self) -> tuple[ModelData, ModelRunner, EngineLimits]:
        """The checkpoint: what jobs need to know of it, what the engine runs, and how much of it at once."""
        runner, limits = open_model(self.settings)
        return describe(runner.pipeline, self.settings.aligner), runner, limits

    def drain(self, *, at_once: bool = False) -> None:
        """Let running jobs finish for the grace period, then hand the rest back; asked again, hand back at once.

        Returns immediately: it is called by signal handlers.
        """
        grace = 0.0 if at_once or self._draining else self.settings.grace
        self._draining = True
        self.keeper.expect_no_polls()
        extra = {"action": "worker_drains", "grace": grace}
        logger.info("stopping: running jobs have %g s to finish", grace, extra=extra)
        threading.Thread(target=self._hand_back, args=(grace,), name="drain", daemon=True).start()

    def stop(self) -> None:
        """End the engine and give back whatever is left."""
        if self._engine is not None:
            self._monitor.stop()
            self._engine.stop()
            self.keeper.stop()
            self.deliveries.close()
            with suppress(BrokerUnavailable):  # it counts no more before long
                self._workforce.leave(self._name, self.settings.concurrency)
        self._poster.stop()
        for connection in (self.states, self.attempts, self.keeper.leases, self._workforce):
            connection.close()
        logger.info("the engine has stopped", extra={"action": "worker_stopped"})

    def _stalled(self) -> float:
        return 0.0 if self._engine is None else self._engine.stalled_seconds

    def _announce(self) -> None:
        self._workforce.announce(self._name, self.settings.concurrency)

    def _abandon(self, tag: str) -> None:
        self.deliveries.abandon(tag)

    def _hand_back(self, grace: float) -> None:
        time.sleep(grace)
        self.deliveries.hand_back()
