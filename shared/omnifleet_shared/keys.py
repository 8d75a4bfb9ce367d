"""Names that both sides must agree on, and how long things live. Lifetimes are in seconds."""

from __future__ import annotations

from typing import Final

SCHEMA_VERSION = 1
"""Version of every record on the wire. A reader takes its own and older ones, and refuses newer ones."""

JOB_SCHEMA_VERSION = 2
"""Newest version of jobs: 2 is a job with a callback, or of another quality than the published model's. One with
neither is still written as version 1, which workers of any release read; those that know neither refuse version 2, and
say that they are to be upgraded."""

MODEL: Final = "audio-omni"
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

CANCEL_CHANNEL = "omnifleet:cancel"
"""Where such wishes are published besides, so that a running job ends at its next step."""

PROGRESS_KEY = "omnifleet:progress:{job_id}"
"""The newest `Progress` of a running job, as JSON."""
PROGRESS_LIFETIME = 3600

ATTEMPTS_KEY = "omnifleet:runs:{job_id}"
"""Hash: `attempts`, how often workers started the job; `open`, starts in a row that came to no end; `worker`, who
started it last; `traceback`, of its last transient error; `unfinished`, the set that it is counted in."""

LEASES_KEY = "omnifleet:leases:{queue}"
"""Sorted set: tags of messages that workers took, by the Unix time at which each lease is over."""

LEASED_KEY = "omnifleet:leased:{queue}"
"""Hash: those messages by their tags, each after the list that it came from and a line feed."""

POSTPONED_KEY = "omnifleet:postponed:{queue}"
"""Sorted set: tags of those messages that wait for another attempt, by the Unix time at which their wait is over. Only
counted: an entry whose time has come means nothing."""

WAKE_KEY = "omnifleet:wake:{queue}"
"""List that idle workers block on; one entry is pushed beside each message."""
WAKE_CALLS = 256
"""Wake-up calls that are kept; more than there are idle workers wake nobody."""

IDEMPOTENCY_KEY = "omnifleet:idempotency:{queue}:{key}"
"""Id of the job that stands for every request with that idempotency key; lives as long as the job's record."""

UNFINISHED_KEY = "omnifleet:unfinished:{producer}"
"""Sorted set: a producer's jobs without an outcome, by the Unix time of their submission."""

THROUGHPUT_KEY = "omnifleet:finished:{queue}:"
"""How many jobs came to an outcome in a minute; the minute, counted from the Unix epoch, stands behind it."""
THROUGHPUT_LIFETIME = 180

BATCH_KEY = "omnifleet:batch:{journal}"
"""Lock of whoever works on the batch whose journal is in storage; `journal` is the hash of its URI."""

WORKER_RECORDS_KEY = "omnifleet:worker-records:{queue}"
"""Hash: what each worker process last told of itself, by its name."""
WORKERS_SEEN_KEY = "omnifleet:worker-records:{queue}:seen"
"""Sorted set: the same names, by the Unix time at which Redis was told."""
HEARTBEAT_INTERVAL = 2.0
"""Seconds between two tellings."""
WORKER_LIFETIME = 15
"""Seconds after which a worker that tells nothing is taken to be gone."""

DEAD_KEY = "omnifleet:dead:{queue}"
"""Hash: jobs that were put aside, by their ids."""

INPUT_KEY = "inputs/{shard}/{sha256}"
"""Storage key of uploaded media: its own hash, so that the same bytes are stored once. `shard` is its first byte."""

PROBE_KEY = "probes/{name}"
"""Storage key of what `omnifleet doctor` writes, reads and deletes."""

RESULT_KEY = "results/{job_id}/{attempt}.{format}"
"""Storage key of what an attempt at a job made; a late twin cannot overwrite another attempt's."""

CALLBACK_KEY = "omnifleet:callback:{job_id}"
"""Hash: how the callback of a job that has its outcome stands, and until it is delivered what is to be posted where."""

CALLBACKS_KEY = "omnifleet:callbacks:{queue}"
"""Sorted set: jobs whose callbacks are not delivered yet, by the Unix time at which some worker may post them."""
