"""The app of `celery -A omnifleet_worker worker`."""

from __future__ import annotations

from typing import Any

from celery import Celery, bootsteps
from celery.concurrency.thread import TaskPool
from celery.exceptions import ImproperlyConfigured
from celery.signals import setup_logging, worker_shutdown
from omnifleet_shared.celery_app import configure
from omnifleet_shared.settings import load_settings

from .fleet_worker import FleetWorker
from .logs import configure_logging
from .settings import WorkerSettings
from .tasks import register_tasks


class WorkerApp(Celery):
    """A Celery app and the fleet worker that its tasks run on."""

    fleet: FleetWorker


class EngineStep(bootsteps.StartStopStep):
    """Loads the checkpoint before Celery's consumer, which is always the last step, takes its first job."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self.app: WorkerApp = worker.app

    def start(self, worker: Any) -> None:
        if not isinstance(worker.pool, TaskPool):
            raise ImproperlyConfigured("omnifleet runs with --pool threads: one process, one GPU, one checkpoint")
        self.app.fleet.start()


def create_worker_app(settings: WorkerSettings) -> WorkerApp:
    """The Celery app of a worker with these settings; the checkpoint is loaded when the worker starts."""
    app = WorkerApp("omnifleet", set_as_current=False)
    configure(app, settings, result_backend=settings.redis_url)
    app.conf.worker_concurrency = settings.concurrency
    app.conf.worker_consumer = "omnifleet_worker.consumer:FleetConsumer"
    app.conf.broker_transport = "omnifleet_worker.consumer:Transport"
    app.fleet = FleetWorker(settings)
    app.steps["worker"].add(EngineStep)
    register_tasks(app, app.fleet)

    def log_as_configured(loglevel: int | str = "INFO", **_: object) -> None:
        configure_logging(loglevel, settings.log_format)

    def stop_engine(sender: Any, **_: object) -> None:
        # Only after the pool has finished its jobs: they need the engine to end well.
        if sender.app is app:
            app.fleet.stop()

    setup_logging.connect(log_as_configured, weak=False)
    worker_shutdown.connect(stop_engine, weak=False)
    return app


def __getattr__(name: str) -> WorkerApp:
    if name == "app":  # made when Celery asks for it, so that importing this module reads no environment
        globals()["app"] = create_worker_app(load_settings(WorkerSettings))
        return globals()["app"]
    raise AttributeError(name)
