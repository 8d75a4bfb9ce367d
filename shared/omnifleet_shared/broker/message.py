"""The message of a job: Celery's protocol 2 (docs.celeryq.dev, "Message Protocol"), as kombu lays it out in Redis.

Written here and not by Celery, whose producer costs more than all the rest of a submission (docs/benchmarks.md).
"""

from __future__ import annotations

import base64
import json
import os
import socket
import uuid
from collections.abc import Mapping

from ..keys import BROKER_PRIORITY, CELERY_TASKS, TENANT_HEADER
from ..schema.jobs import Job

SHOWN_FIELDS = ("text", "desc", "source", "target")
SHOWN_TEXT = 60
"""Characters of a job's text that operators see in Flower."""


def encode_message(job: Job, queue: str, headers: Mapping[str, str]) -> str:
    """Encode the job's message for a queue, with further headers, as JSON (`schemas/message.schema.json`)."""
    call = [
        [],
        {"job": job.model_dump(mode="json")},
        {"callbacks": None, "errbacks": None, "chain": None, "chord": None},
    ]
    described = _describe(job, headers.get(TENANT_HEADER))
    message = {
        "body": base64.b64encode(json.dumps(call).encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {**_headers(job), "kwargsrepr": described, **headers},
        "properties": {
            "correlation_id": job.job_id,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": queue},
            "priority": BROKER_PRIORITY[job.priority],
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        },
    }
    return json.dumps(message)


def _headers(job: Job) -> dict[str, object]:
    return {
        "lang": "py",
        "task": CELERY_TASKS[job.namespace],
        "id": job.job_id,
        # A backend may submit from inside a Celery task of its own, whose child this is not.
        "root_id": job.job_id,
        "parent_id": None,
        "group": None,
        "eta": None,
        "expires": None,
        "retries": 0,
        "timelimit": [None, None],
        "argsrepr": f"{job.namespace}.{job.task.name}",
        "origin": f"gen{os.getpid()}@{socket.gethostname()}",
        "ignore_result": False,
    }


def _describe(job: Job, tenant: str | None) -> str:
    """Describe the job for people, without URIs, which may hold secrets."""
    fields = vars(job.task)
    shown = [f"{name}={text[:SHOWN_TEXT]!r}" for name in SHOWN_FIELDS if (text := fields.get(name))]
    whose = [] if tenant is None else [f"tenant={tenant}"]
    return ", ".join([f"{job.namespace}.{job.task.name}", *shown, f"priority={job.priority}", *whose])
