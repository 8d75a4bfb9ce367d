"""The Celery app of both sides. One place says what is serialised, acknowledged and prefetched, and why."""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu import Exchange, Queue

from .names import BROKER_PRIORITY
from .settings import FleetSettings

NO_BACKEND = "disabled://"


def create_app(settings: FleetSettings) -> Celery:
    """A producer's app: it sends, and reads results with `JobStates`, as Celery would subscribe for every job sent."""
    app = Celery("omnifleet", set_as_current=False)
    configure(app, settings, result_backend=NO_BACKEND)
    # CELERY_RESULT_BACKEND, set for another app of the process, wins over the configuration, but not over the class.
    app.backend_cls = NO_BACKEND
    return app


def configure(app: Celery, settings: FleetSettings, *, result_backend: str) -> None:
    """Give an app of either side its configuration."""
    app.conf.update(_broker(settings) | _messages(settings) | _delivery())
    app.conf.result_backend = result_backend


def _broker(settings: FleetSettings) -> dict[str, Any]:
    return {
        "broker_url": settings.redis_url,
        "broker_connection_timeout": settings.redis_timeout,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_transport_options": {
            "visibility_timeout": settings.visibility_timeout,
            "queue_order_strategy": "priority",
            "priority_steps": sorted(BROKER_PRIORITY.values()),
            "socket_connect_timeout": settings.redis_timeout,
            "socket_timeout": settings.redis_timeout,
            "socket_keepalive": True,
            "health_check_interval": 10,
        },
        "task_publish_retry_policy": {"max_retries": 2, "interval_start": 0.1, "interval_step": 0.2},
    }


def _messages(settings: FleetSettings) -> dict[str, Any]:
    return {
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "result_expires": settings.result_lifetime,
        "task_default_queue": settings.queue,
        "task_queues": [Queue(settings.queue, Exchange(settings.queue), routing_key=settings.queue)],
        "task_send_sent_event": True,
        "enable_utc": True,
    }


def _delivery() -> dict[str, Any]:
    return {
        # A job is acknowledged when its outcome is recorded, so that a killed worker's jobs are delivered again.
        "task_acks_late": True,
        "task_acks_on_failure_or_timeout": True,
        "task_track_started": True,
        "worker_pool": "threads",
        # A job that waits inside one worker is a job that an idle worker cannot have.
        "worker_prefetch_multiplier": 1,
        "worker_disable_prefetch": True,
        "worker_send_task_events": True,
        "worker_hijack_root_logger": False,
        # On Redis loss Celery would otherwise forget jobs that still run here and take them twice.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
    }
