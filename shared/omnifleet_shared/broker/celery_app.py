"""The Celery configuration of both sides: what is serialised, acknowledged and prefetched, and why."""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu import Exchange, Queue

from ..keys import BROKER_PRIORITY
from ..redis_client import broker_configuration
from ..settings import FleetSettings

RECORDS = "omnifleet_shared.job_state.result_backend:RecordBackend"


def create_app(settings: FleetSettings) -> Celery:
    """Create the app that a producer sends with; states and results are read with `JobStates`."""
    app = Celery("omnifleet", set_as_current=False)
    configure(app, settings)
    return app


def configure(app: Any, settings: FleetSettings) -> None:
    """Configure an app of either side.

    Celery's own result backends are off on both sides: producers would subscribe once for every job they send, and
    workers would write results of jobs that they have lost. `Attempts` writes the same records, which `RECORDS` reads.
    """
    app.conf.update(_broker(settings) | _messages(settings) | _delivery())
    # CELERY_RESULT_BACKEND, set for another app of the process, wins over the configuration, but not over the class.
    app.backend_cls = RECORDS
    app.fleet_settings = settings


def _broker(settings: FleetSettings) -> dict[str, Any]:
    transport = "Transport" if settings.redis_sentinels is None else "SentinelTransport"
    connection = broker_configuration(settings)
    return {
        **connection,
        "broker_transport": f"omnifleet_shared.broker.transport:{transport}",
        "broker_connection_timeout": settings.redis_timeout,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_transport_options": {
            **connection["broker_transport_options"],
            "fleet_queue": settings.queue,
            "record_lifetime": settings.result_lifetime,
            "queue_order_strategy": "priority",
            "priority_steps": sorted(BROKER_PRIORITY.values()),
        },
        "task_publish_retry_policy": {"max_retries": 2, "interval_start": 0.1, "interval_step": 0.2},
    }


def _messages(settings: FleetSettings) -> dict[str, Any]:
    return {
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "task_default_queue": settings.queue,
        # Not Celery's own names, on which every app in this Redis hears every other one's commands and events.
        "control_exchange": f"omnifleet.{settings.queue}",
        "event_exchange": f"omnifleet.{settings.queue}.events",
        "event_queue_prefix": f"omnifleet.{settings.queue}.events",
        "task_queues": [Queue(settings.queue, Exchange(settings.queue), routing_key=settings.queue)],
        "enable_utc": True,
    }


def _delivery() -> dict[str, Any]:
    return {
        # A job is acknowledged when its outcome is recorded, so that a killed worker's jobs are delivered again.
        "task_acks_late": True,
        "task_acks_on_failure_or_timeout": True,
        "task_ignore_result": True,
        # One for all threads: Celery searches the installed packages for each that it makes, which takes 0.05 s.
        "result_backend_thread_safe": True,
        "worker_pool": "threads",
        # A job that waits inside one worker is a job that an idle worker cannot have.
        "worker_prefetch_multiplier": 1,
        "worker_disable_prefetch": True,
        "worker_hijack_root_logger": False,
        # On Redis loss Celery would otherwise forget jobs that still run here and take them twice.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # It would take fewer jobs afterwards, which leases make needless (`LeasedQoS.can_consume`).
        "worker_enable_prefetch_count_reduction": False,
    }
