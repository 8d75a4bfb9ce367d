"""Assembles one worker process: the model, its engine, storage, leases, progress, webhooks and telemetry."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time

from omnifleet_shared.broker.attempts import Attempts
from omnifleet_shared.broker.leases import Leases
from omnifleet_shared.broker.part_commits import PartCommits
from omnifleet_shared.broker.removal.lost_messages import LostMessages
from omnifleet_shared.broker.worker_registry import WorkerRegistry
from omnifleet_shared.errors import BrokerUnavailable, DeviceFailed
from omnifleet_shared.job_state.store import JobStates
from omnifleet_shared.storage import open_storage
from omnifleet_shared.webhooks.outbox import Callbacks

from ..engine.engine import Engine
from ..engine.limits import EngineLimits
from ..engines.loaded_model import LoadedModel
from ..engines.model_watch import ModelWatch
from ..engines.table import load_model
from ..jobs.parts.finished_parts import FinishedParts
from ..jobs.runner import JobRunner
from ..jobs.streaming.job_stream import JobStreams
from ..lease_renewer import EXIT_BROKEN, LeaseRenewer
from ..media.isolation.processes import shared_processes
from ..observability.telemetry import Telemetry
from ..places import of_each_kind
from ..retry import retry_until
from ..settings import WorkerSettings
from .availability import Availability
from .delivery import Deliveries
from .model_check import ModelCheck
from .progress_reporter import ProgressReporter
from .reconciler import Reconciler
from .storage_check import StorageCheck
from .webhook_sender import WebhookSender

logger = logging.getLogger(__name__)


class FleetWorker:
    """Starts and stops the parts of a worker. `start` must return before the first message is taken."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        self.states = JobStates.connect(settings)
        self.lease_renewer = LeaseRenewer(
            Leases.connect(settings),
            places=of_each_kind(settings.concurrency),
            engine_stalled=self._engine_stalled,
            engine_timeout=settings.engine_patience,
            poll_timeout=settings.poll_patience,
            on_lost=self._abandon,
        )
        self.name = f"omnifleet@{socket.gethostname()}:{os.getpid()}"
        self.attempts = Attempts.connect(settings, worker=self.name)
        self._part_commits = PartCommits.connect(settings)
        about_engine = (self._engine_stalled, self._device_failed)
        self.telemetry = Telemetry(self.name, settings, self.lease_renewer, *about_engine)
        self.availability = Availability(self.telemetry.health, self.lease_renewer, lambda: self.deliveries)
        self._webhooks = WebhookSender(Callbacks.connect(settings), settings)
        self._progress = ProgressReporter(self.states, settings.progress_interval)
        self._reconciler = Reconciler(LostMessages.connect(settings), settings.reconcile_interval)
        self._engine: Engine | None = None
        self._loaded: LoadedModel | None = None
        self._model_watch: ModelWatch | None = None
        self._parts: FinishedParts | None = None
        self._draining = False
        self._storage_check: StorageCheck
        self.deliveries: Deliveries

    def start(self) -> None:
        """Load everything and start the engine. Raises PermanentError where the worker can never work."""
        self.telemetry.start()
        storage = self.telemetry.watch(open_storage(self.settings))
        # Redis may well start later than its workers.
        retry_until(self.states.check_redis, BrokerUnavailable, self.settings.redis_patience)
        self._loaded = loaded = self.load()
        model, limits, metrics = loaded.model, loaded.limits, self.telemetry.metrics
        runner, failed = loaded.runner, self._device_failed
        self._engine = engine = Engine(runner, limits, observer=metrics.engine, on_device_failed=failed)
        self._parts = FinishedParts(storage, (model.card.name, model.card.revision, model.precision))
        shared_processes().start()
        streams = JobStreams(storage, self._part_commits, self.settings)
        jobs = JobRunner(model, storage, self.settings, self._parts, streams)
        memory = jobs.host_memory
        metrics.watch_host_memory(memory.limit, lambda: memory.reserved, lambda: memory.waiting)
        registry = WorkerRegistry.connect(self.settings)
        self._storage_check = StorageCheck(storage, self.availability, registry, self.name)
        model_check = ModelCheck(engine, self.availability, loaded.probes)
        metrics.watch_failures_in_a_row(lambda: model_check.failed_in_a_row)
        checks = (self._storage_check, model_check)
        parts = (jobs, engine, self.attempts, self._progress, self.lease_renewer, *checks, self._webhooks)
        self.deliveries = Deliveries(*parts, self.settings, metrics.jobs)
        engine.start()
        self._progress.start()
        self.lease_renewer.start()
        self.telemetry.loaded(model.capabilities, limits.shared)
        self._watch(loaded)
        self._webhooks.start()
        self._reconciler.start()
        logger.info("the engine runs: %s", limits, extra={"action": "worker_started"})

    def rename(self, name: str) -> None:
        """Take the name that Celery's node was given, before `start`: one name in Flower, `top`, logs and metrics."""
        self.name = self.attempts.worker = self.telemetry.worker = name

    def load(self) -> LoadedModel:
        """Load the model of the settings with its engine."""
        return load_model(self.settings)

    @property
    def limits(self) -> EngineLimits:
        """What the engine does at once, once the model is loaded; nothing before."""
        return EngineLimits() if self._loaded is None else self._loaded.limits

    def drain(self, *, at_once: bool = False) -> None:
        """Let running jobs finish for the grace period, then hand the rest back; a second call hands back at once.

        Returns immediately: it is called by signal handlers.
        """
        grace = 0.0 if at_once or self._draining else self.settings.grace
        self._draining = True
        self.lease_renewer.stop_polling()
        self.telemetry.health.draining()
        extra = {"action": "worker_drains", "grace": grace}
        logger.info("stopping: running jobs have %g s to finish", grace, extra=extra)
        threading.Thread(target=self._hand_back, args=(grace,), name="drain", daemon=True).start()

    def stop(self) -> None:
        """Stop the engine, hand unfinished jobs back and close all connections."""
        if self._model_watch is not None:
            self._model_watch.stop()
        if self._engine is not None:
            self._storage_check.stop()
            self._progress.stop()
            self._engine.stop()
            self.lease_renewer.stop()
        if self._loaded is not None:
            self._loaded.close()
        if self._parts is not None:
            self._parts.close()
        self._webhooks.stop()
        self._reconciler.stop()
        self.telemetry.stop()
        for connection in (self.states, self.attempts, self._part_commits, self.lease_renewer.leases):
            connection.close()
        logger.info("the engine has stopped", extra={"action": "worker_stopped"})

    def _watch(self, loaded: LoadedModel) -> None:
        if loaded.why_unwell is not None:
            self._model_watch = ModelWatch(loaded.why_unwell, self.availability)
            self._model_watch.start()

    def _engine_stalled(self) -> float:
        return 0.0 if self._engine is None else self._engine.stalled_seconds

    def _abandon(self, tag: str) -> None:
        self.deliveries.abandon(tag)

    def _device_failed(self, error: DeviceFailed) -> None:
        self.availability.take_out_of_service(error.problem, exit_code=EXIT_BROKEN)

    def _hand_back(self, grace: float) -> None:
        self.lease_renewer.hand_back_waiting()
        time.sleep(grace)
        self.deliveries.hand_back("the worker shuts down")
