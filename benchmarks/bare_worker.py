"""A Celery worker with one task that does nothing, or with a number a group of as many: what Celery itself costs."""

from __future__ import annotations

import os
import sys
from typing import Any

from celery import Celery, group

QUEUE = "bare"
TASK = "bare.noop"


def create_bare_app(redis_url: str) -> Any:
    """Celery as it comes, in what is not our choice either: JSON, Redis for both, acknowledged late."""
    app: Any = Celery("bare", broker=redis_url, backend=redis_url, set_as_current=False)
    app.conf.update(
        task_serializer="json",
        result_serializer="json",
        accept_content=["json"],
        task_acks_late=True,
        task_default_queue=QUEUE,
        # An AsyncResult that is collected after its Redis has gone would try for seconds to unsubscribe, each of them.
        result_backend_transport_options={"retry_policy": {"max_retries": 0}},
    )
    return app


def _noop() -> str:
    return "ok"


def send_group(count: int) -> None:
    """Send so many tasks as one group, and wait for the last result: what a batch is without omnifleet."""
    with create_bare_app(os.environ["OMNIFLEET_REDIS_URL"]) as app:
        results = group(app.signature(TASK) for _ in range(count)).apply_async().get()
        assert set(results) == {"ok"}


def work() -> None:
    """Take tasks from the Redis and with the concurrency that the fleet's worker is given."""
    app = create_bare_app(os.environ["OMNIFLEET_REDIS_URL"])
    app.task(_noop, name=TASK)
    options = ["--pool", "threads", "--concurrency", os.environ["OMNIFLEET_CONCURRENCY"], "--loglevel", "INFO"]
    app.worker_main(["worker", *options, "--without-gossip", "--without-mingle"])


if __name__ == "__main__":
    if sys.argv[1:]:
        send_group(int(sys.argv[1]))
    else:
        work()
