"""What one worker process holds: the checkpoint, its engine, the storage, and the leases of its jobs."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time

from omnifleet_shared.broker.attempts import Attempts
from omnifleet_shared.broker.leases import Leases
from omnifleet_shared.errors import BrokerUnavailable
from omnifleet_shared.job_state.store import JobStates
from omnifleet_shared.storage import open_storage
from omnifleet_shared.webhooks.outbox import Callbacks

from ..engine.engine import Engine, ModelRunner
from ..engine.limits import EngineLimits
from ..jobs.model import ModelData
from ..jobs.runner import JobRunner
from ..lease_renewer import LeaseKeeper
from ..model_loader import describe, open_model
from ..observability.telemetry import Telemetry
from ..retry import patiently
from ..settings import WorkerSettings
from .delivery import Deliveries
from .progress_reporter import JobMonitor
from .webhook_sender import CallbackPoster

logger = logging.getLogger(__name__)


class FleetWorker:
    """Puts a worker together and takes it apart. `start` must return before the first message is taken."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        self.states = JobStates.connect(settings)
        self.keeper = LeaseKeeper(
            Leases.connect(settings),
            places=settings.concurrency,
            stalled=self._stalled,
            engine_patience=settings.engine_patience,
            poll_patience=settings.poll_patience,
            on_lost=self._abandon,
        )
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self.attempts = Attempts.connect(settings, worker=self.name)
        self.telemetry = Telemetry(self.name, settings, self.keeper, self._stalled)
        self._poster = CallbackPoster(Callbacks.connect(settings), settings)
        self._monitor = JobMonitor(self.states, settings.progress_interval)
        self._engine: Engine | None = None
        self._draining = False
        self.deliveries: Deliveries

    def start(self) -> None:
        """Load everything and start the engine. Raises PermanentError where the worker can never work."""
        self.telemetry.start()
        storage = self.telemetry.watch(open_storage(self.settings))
        # Redis may well start later than its workers.
        patiently(self.states.check_redis, BrokerUnavailable, self.settings.redis_patience)
        model, runner, limits = self.load()
        metrics = self.telemetry.metrics
        self._engine = engine = Engine(runner, limits, observer=metrics.engine)
        jobs = JobRunner(model, storage, self.settings)
        parts = (jobs, engine, self.attempts, self._monitor, self.keeper, self._poster, self.settings)
        self.deliveries = Deliveries(*parts, metrics.jobs)
        engine.start()
        self._monitor.start()
        self.keeper.start()
        self.telemetry.loaded(model.card, limits.clips)
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
        self.telemetry.health.draining()
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
        self._poster.stop()
        self.telemetry.stop()
        for connection in (self.states, self.attempts, self.keeper.leases):
            connection.close()
        logger.info("the engine has stopped", extra={"action": "worker_stopped"})

    def _stalled(self) -> float:
        return 0.0 if self._engine is None else self._engine.stalled_seconds

    def _abandon(self, tag: str) -> None:
        self.deliveries.abandon(tag)

    def _hand_back(self, grace: float) -> None:
        time.sleep(grace)
        self.deliveries.hand_back()
