"""Names that both sides must agree on, and how long things live. Lifetimes are in seconds."""

from __future__ import annotations

SCHEMA_VERSION = 1
"""Version of every record on the wire. A reader takes its own and older ones, and refuses newer ones."""

MODEL = "audio-omni"
"""The model that a job is for, and the name of its queue."""

CELERY_TASKS = {
    "understand": "omnifleet.understand",
    "generate": "omnifleet.generate",
    "edit": "omnifleet.edit",
}
"""The Celery task that carries each namespace; what operators read in Flower."""

QUEUED = "QUEUED"
"""Celery state of a job that was submitted and that no worker has taken yet."""

BROKER_PRIORITY = {"interactive": 0, "batch": 6}
"""Redis priority of each class; kombu takes the lower number first."""

CANCEL_KEY = "omnifleet:cancel:{job_id}"
"""Set by a producer that wants the job stopped; read by the worker before the job and at its steps."""
CANCEL_LIFETIME = 7 * 24 * 3600

PROGRESS_KEY = "omnifleet:progress:{job_id}"
"""The newest `Progress` of a running job, as JSON."""
PROGRESS_LIFETIME = 3600

ATTEMPTS_KEY = "omnifleet:attempts:{job_id}"
"""How often workers have started the job."""

INPUT_KEY = "inputs/{shard}/{sha256}"
"""Storage key of uploaded media: its own hash, so that the same bytes are stored once. `shard` is its first byte."""

RESULT_KEY = "results/{job_id}.{format}"
"""Storage key of the audio that a job made."""
