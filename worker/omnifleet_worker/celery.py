"""The app of `celery -A omnifleet_worker worker`."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from omnifleet_shared.errors import OmnifleetError, PermanentError

from .installation import require_libraries


@contextmanager
def _one_line() -> Iterator[None]:
    """End the process with an error's words alone: Celery, which imports this module, would print its traceback."""
    try:
        yield
    except OmnifleetError as error:
        raise SystemExit(f"{type(error).__name__} {error}") from None


with _one_line():
    require_libraries()

import click
from celery import Celery, bootsteps
from celery.app import utils as app_utils
from celery.bin.celery import celery as command
from celery.exceptions import WorkerShutdown
from celery.platforms import EX_FAILURE
from celery.signals import celeryd_init, setup_logging, task_postrun, task_prerun, worker_shutdown, worker_shutting_down
from celery.utils.nodenames import default_nodename
from omnifleet_shared.broker.celery_app import configure
from omnifleet_shared.settings import load_settings

from .engine.limits import EngineLimits
from .observability.celery_log import quiet_reconnects
from .observability.log_context import enter_job, leave_job
from .observability.logging import configure_logging
from .places import of_each_kind, worth_holding
from .service.protocol.commands import register_commands
from .service.protocol.controller import FleetController
from .service.protocol.events import FleetEvents
from .service.tasks import register_tasks
from .service.worker import FleetWorker
from .settings import WorkerSettings

logger = logging.getLogger(__name__)

# `celery inspect` and Flower show the configuration with secrets masked; these two URLs, which Celery passes over, hold
# the password of Redis.
app_utils.HIDDEN_SETTINGS = re.compile(f"{app_utils.HIDDEN_SETTINGS.pattern}|BROKER_(READ|WRITE)_URL", re.IGNORECASE)


class WorkerApp(Celery):
    """A Celery app and the fleet worker that its tasks run on."""

    fleet: FleetWorker
    consumer: Any = None
    """Celery's consumer, once it is made."""
    steps: dict[str, set[type[bootsteps.Step]]]
    events_cls = FleetEvents

    @cached_property
    def Worker(self) -> Any:  # noqa: N802 # pyright: ignore[reportIncompatibleVariableOverride]
        """The program behind `celery worker`."""
        return self.subclass_with_self(FleetController, reverse="Worker")

    def run_worker(self, *options: str) -> int:
        """Run a worker until it is stopped; its exit code, which Celery's own `worker_main` keeps to itself."""
        command.params[0].default = self
        try:
            return int(command.main(args=["worker", *options], standalone_mode=False) or 0)
        except click.UsageError as error:
            error.show()
            return error.exit_code

    def hold_at_once(self, jobs: int) -> None:
        """Hold so many jobs of each kind at once at most, before the first one is taken."""
        self.conf.worker_concurrency = jobs
        self.fleet.lease_renewer.places.most = of_each_kind(jobs)

    def hold_what_is_worth(self, limits: EngineLimits) -> None:
        """Hold no more jobs of each kind than the engine has use for."""
        self.fleet.lease_renewer.places.most = worth_holding(limits, self.conf.worker_concurrency)


class EngineStep(bootsteps.StartStopStep):
    """Loads the checkpoint before Celery's consumer, which is always the last step, takes its first job."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self.app: WorkerApp = worker.app

    def start(self, parent: Any) -> None:
        try:
            self.app.fleet.start()
            self.app.hold_what_is_worth(self.app.fleet.limits)
        except PermanentError as error:
            logger.critical("%s: %s", type(error).__name__, error, extra={"action": "worker_refused"})
            raise WorkerShutdown(EX_FAILURE) from error


def create_worker_app(settings: WorkerSettings, fleet: FleetWorker | None = None) -> WorkerApp:
    """The Celery app of a worker with these settings, on `fleet` where that is not to load the settings' checkpoint."""
    app = WorkerApp("omnifleet", set_as_current=False)
    configure(app, settings)
    app.conf.worker_pool = "omnifleet_worker.service.protocol.pool:FleetPool"
    app.conf.worker_consumer = "omnifleet_worker.service.consumer:FleetConsumer"
    app.fleet = fleet or FleetWorker(settings)
    app.conf.broker_transport_options["lease_holder"] = app.fleet.lease_renewer
    app.hold_at_once(settings.concurrency)
    app.steps["worker"].add(EngineStep)
    register_tasks(app, app.fleet)
    register_commands()

    def take_name(instance: Any, **_: object) -> None:
        if instance.app is not app:
            return
        if instance.hostname == default_nodename(""):  # all workers of a host would share Celery's own
            instance.hostname = app.fleet.name
        app.fleet.rename(instance.hostname)

    def log_as_configured(loglevel: int | str = "INFO", logfile: str | None = None, **_: object) -> None:
        configure_logging(loglevel, settings.log_format, app.fleet.name, logfile)
        quiet_reconnects()

    def stop_engine(sender: Any, **_: object) -> None:
        # Only after the pool has finished its jobs: they need the engine to end well.
        if sender.app is app:
            app.fleet.stop()

    def drain(how: str = "Warm", **_: object) -> None:
        app.fleet.drain(at_once=how != "Warm")

    def note_job(task_id: str = "", **_: object) -> None:
        # Signals, because Celery itself logs around the task, on the same thread.
        enter_job(task_id)

    def forget_job(**_: object) -> None:
        leave_job()

    celeryd_init.connect(take_name, weak=False)
    task_prerun.connect(note_job, weak=False)
    task_postrun.connect(forget_job, weak=False)
    worker_shutting_down.connect(drain, weak=False)
    setup_logging.connect(log_as_configured, weak=False)
    worker_shutdown.connect(stop_engine, weak=False)
    return app


def __getattr__(name: str) -> WorkerApp:
    if name == "app":  # made when Celery asks for it, so that importing this module reads no environment
        with _one_line():
            app = globals()["app"] = create_worker_app(load_settings(WorkerSettings))
        return app
    raise AttributeError(name)
