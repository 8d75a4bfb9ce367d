"""Redis keys, storage keys and task names that both sides must agree on, with the lifetimes of keys in seconds."""

from __future__ import annotations

from typing import Final

SCHEMA_VERSION = 1
"""Version of every record on the wire. A reader takes its own and older ones, and refuses newer ones."""

JOB_SCHEMA_VERSION = 9
"""Newest version of jobs: 2 is a job with a callback, or of another quality than the published model's; 3 one that
names a sound track; 4 a dry run; 5 a transcript with times, or an edit of the words in a span of seconds; 6 a streamed
job; 7 an edit of sounds that is as loud as the published model makes it, or mono; 8 one for another model than
Audio-Omni; 9 one with an adapter. One with none of these is still written as version 1, which workers of every release
read; older workers refuse newer ones and ask to be upgraded."""

MODEL: Final = "audio-omni"
"""The model that a job is for where nobody says otherwise, and the name of its queue."""

MODEL_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
"""It becomes part of Redis keys."""
MODEL_QUEUE = "{queue}.{model}"
"""Queue of another model, in a fleet whose own queue is the first."""

CELERY_TASKS = {
    "understand": "omnifleet.understand",
    "generate": "omnifleet.generate",
    "edit": "omnifleet.edit",
}
"""The Celery task that carries each namespace; what operators read in Flower."""

QUEUED = "QUEUED"
"""Celery state of a job that was submitted and that no worker has taken yet."""

ANSWERS_QUEUE = "omnifleet:answers:{queue}"
"""Name of the queue in which jobs of the namespace `understand` wait, beside those of `queue` that make sounds: its
lists, wake-up tokens and tenants are named as those of any queue."""

BROKER_PRIORITY = {"interactive": 0, "batch": 6}
"""Redis priority of each class; kombu takes the lower number first."""

CANCEL_KEY = "omnifleet:cancel:{job_id}"
"""Set by a producer to cancel the job; the worker reads it before the job and at its steps."""
CANCEL_LIFETIME = 7 * 24 * 3600

CANCEL_CHANNEL = "omnifleet:cancel"
"""Channel on which cancelled job ids are published besides, so that a running job stops at its next step."""

PROGRESS_KEY = "omnifleet:progress:{job_id}"
"""The newest `Progress` of a running job, as JSON."""
PROGRESS_LIFETIME = 3600

STREAM_KEY = "omnifleet:stream:{job_id}"
"""List of the parts that a streamed job has given out, as `StreamedPart` records; lives as long as the job's record."""

ATTEMPTS_KEY = "omnifleet:runs:{job_id}"
"""Hash of a job's attempts: `attempts`, times that workers started it; `open`, starts in a row without an outcome or a
retry; `alone`, those of them in which the worker ran nothing else; `worker`, who started it last; `traceback`, of its
last transient error; `handed_back`, starts that ended for a fault of the worker; `refused_by`, names of workers whose
storage refused it, with a space in between; `unfinished`, the set that counts it.
Fields with a colon remember calls, by the tag or id that each was made under: one that comes again finds its answer.
Those that begin with `sent:` remember the submission: `sent:request`, digests of the request's fields as JSON, where an
idempotency key came with it; `sent:key`, the Redis key of that; `sent:deadline`, the Unix time of the job's deadline by
Redis's own clock; `sent:route`, the `Route` of a job that was routed, as JSON; `sent:tenant`, the tenant of a job that
was dead-lettered, for when it is replayed."""

OPEN_LIFETIME = 30 * 24 * 3600
"""Seconds that the records of a job without an outcome are kept, counted anew at each attempt, where results are not
kept longer: whoever waits finds the job, however short the lifetime of results."""

CALLS_KEY = "omnifleet:calls:{caller}"
"""Number of the last call by which one object took a message or claimed a callback, and what of: a call of that number
that comes again gets the same, and an older one that was late gets nothing."""
CALLS_LIFETIME = 24 * 3600

ANSWER_KEY = "omnifleet:answer:{call}"
"""What a submission was answered that queued nothing, so that the same call does not queue a job afterwards."""
ANSWER_LIFETIME = 300

LEASES_KEY = "omnifleet:leases:{queue}"
"""Sorted set: tags of leased messages, by the Unix time at which each lease ends."""

LEASED_KEY = "omnifleet:leased:{queue}"
"""Hash: leased messages by tag; each value is the key of the list that it came from, a line feed, and the message."""

POSTPONED_KEY = "omnifleet:postponed:{queue}"
"""Sorted set: tags of leased messages that wait for a retry, by the Unix time at which the wait ends. Kept for counting
alone: an entry whose time has come means nothing."""

STARTED_KEY = "omnifleet:started:{queue}"
"""Sorted set: tags of leased messages whose jobs were started and are open, by the Unix time of the start."""

SUSPECTS_KEY = "omnifleet:suspects:{queue}"
"""List of suspects: messages whose jobs were open when their worker was lost. Each value is the key of the list that
the message came from, a line feed, and the message. A suspect is delivered to a worker that does nothing else."""
SUSPECT_TAGS_KEY = "omnifleet:suspects:{queue}:leased"
"""Set: tags under which suspects were leased. A tag without a lease means nothing, and is removed on the way."""

TENANT_HEADER = "tenant"
"""Header of a job's message: name of the tenant that sent it; none where there is no such header."""

FAIR_LANE_KEY = "omnifleet:tenants:{place}"
"""Hash of a lane, `place` being the key of its list: `jobs`, messages of tenants that wait; `time`, its virtual time;
`epoch`, Unix time from which charges are weighed. The lane's other keys begin likewise: `…:waiting`, sorted set of the
tenants with messages, by virtual time; `…:idle`, of those without whose virtual time is ahead of the lane's; `…:costs`,
hash, average GPU-seconds of a tenant's jobs. A tenant's messages wait in the lists of a queue of that tenant's own,
`omnifleet:tenants:<queue>:jobs:<tenant>`."""
COMMON_COST = "*"
"""Field of all tenants' average among the costs of a lane; no tenant has that name."""

TENANT_LEASES_KEY = "omnifleet:tenant-leases:{queue}"
"""Hash: what leased messages were charged, by tag: the list, the tenant (empty: none), estimated GPU-seconds and the
Unix time, one a line. Only of messages that were taken while those of tenants waited."""

TENANT_WEIGHTS_KEY = "omnifleet:tenant-weights"
"""Hash: weights of tenants, 1 for those that are not in it. One of weight 2 gets twice the GPU time of one of 1."""

TENANT_QUOTAS_KEY = "omnifleet:tenant-quotas"
"""Hash: GPU-seconds a day that tenants may use, for those with a quota."""

TENANT_USE_KEY = "omnifleet:tenant-use"
"""Hash: GPU-seconds that each tenant's jobs took since there are tenants. With a colon and the number of a day since
the Unix epoch behind it: those of that day, UTC."""
TENANT_DAY_LIFETIME = 2 * 24 * 3600

RECONCILED_KEY = "omnifleet:reconciled:{queue}"
"""Set by the worker that compares records and messages, for as long as nobody else need do it."""

BINDINGS = "_kombu.binding."
"""Prefix of the sets in which kombu, and every submission, note a queue under its own name."""
WAKE_KEY = "omnifleet:wake:{queue}"
"""List of wake-up tokens that idle workers block on; one is pushed beside each message."""
WAKE_CALLS = 256
"""Most wake-up tokens that are kept; more than there are idle workers wake nobody."""
NO_WAKE_KEY = "omnifleet:wake:{queue}:none"
"""Never written: what a worker blocks on that takes nothing now, so that it takes no token from those that do."""

IDEMPOTENCY_KEY = "omnifleet:idempotency:{queue}:{key}"
"""Id of the job that answers the same request with that idempotency key; lives as long as the job's record. `queue` is
the fleet's own, whichever model's queue the job went to: a repeat that would be routed elsewhere runs once all the
same."""

UNFINISHED_KEY = "omnifleet:unfinished:{producer}"
"""Sorted set: ids of a producer's jobs without an outcome, by the Unix time of their submission."""

THROUGHPUT_KEY = "omnifleet:finished:{queue}:"
"""Throughput counter: jobs that ended in one minute. The minute's number since the Unix epoch is appended."""
THROUGHPUT_LIFETIME = 180

BATCH_KEY = "omnifleet:batch:{journal}"
"""Lock of the process that runs the batch whose journal is in storage; `journal` is the hash of its URI."""

WORKER_RECORDS_KEY = "omnifleet:worker-records:{queue}"
"""Hash: the last report of each worker process, by its name."""
WORKERS_SEEN_KEY = "omnifleet:worker-records:{queue}:seen"
"""Sorted set: the same names, by the Unix time at which Redis got the report."""
WORKERS_FAIR_KEY = "omnifleet:worker-records:{queue}:fair"
"""Sorted set: those of them that find the messages of tenants, likewise; workers of older releases are missing."""
WORKERS_KINDS_KEY = "omnifleet:worker-records:{queue}:kinds"
"""Sorted set: those of them that find the messages of `ANSWERS_QUEUE`, likewise."""
QUEUES_KEY = "omnifleet:queues"
"""Set: the names of all queues whose workers ever reported, of all fleets of this Redis."""
HEARTBEAT_INTERVAL = 2.0
"""Seconds between two reports of a worker."""
WORKER_LIFETIME = 15
"""Seconds without a report after which a worker counts as gone."""

DEAD_KEY = "omnifleet:dead:{queue}"
"""Hash: dead letters by job id."""

INPUT_KEY = "inputs/{shard}/{sha256}"
"""Storage key of uploaded media: its own hash, so that the same bytes are stored once. `shard` is its first byte."""

VOICE_KEY = "voices/names/{name}.json"
"""Storage key of a named voice's record."""
VOICE_FILE_KEY = "voices/files/{name}/{sha256}"
"""Storage key of a named voice's recording. What workers make of it has the same key, with a full stop and a hash of
what it was made of at its end."""

ADAPTER_KEY = "adapters/names/{name}.json"
"""Storage key of a named adapter's record."""
ADAPTER_FILE_KEY = "adapters/{sha256}/{file}"
"""Storage key of a file of an adapter, below the hash of its manifest. Nothing there is ever collected."""

COLLECTED = ("inputs/", "results/", "parts/")
"""Prefixes of storage keys below which `omnifleet storage gc` deletes what nothing needs any more."""

DELETION_KEY = "omnifleet:deletion:{uri}"
"""Announces that `omnifleet storage gc` is about to delete an object: no job is sent that names it meanwhile."""
DELETION_LIFETIME = 300
"""Longer than the requests that delete it may take, repetitions included."""

ROUTE = "route"
"""Header of the message of a job that was routed: its `Route` as JSON, which the worker adds to the result."""

INPUTS_UNTIL = "inputs_until"
"""Header of a job's message: time until which the job needs its inputs, ISO 8601. Older releases write none."""

SNAPSHOT_KEY = "omnifleet:snapshot:{token}:{place}"
"""Copy of something that holds messages, which is read piece by piece while the original goes on changing."""
SNAPSHOT_LIFETIME = 600

PROBE_KEY = "probes/{name}"
"""Storage key of what `omnifleet doctor` writes, reads and deletes."""

RESULT_KEY = "results/{job_id}/{attempt}.{format}"
"""Storage key of what one attempt at a job made: an attempt that lost its lease overwrites no other attempt's file."""

STREAMED_KEY = "results/{job_id}/{attempt}.{number}.wav"
"""Storage key of the samples of a streamed job's part; kept as long as the list of the job's parts names it."""

PART_KEY = "parts/{job_id}.{fingerprint}"
"""Storage key of a window or part that an attempt at a long job finished: the next attempt goes on from there. They are
deleted with the job's outcome; what is left behind, by a worker that was killed just then, is of no use after a day."""

CALLBACK_KEY = "omnifleet:callback:{job_id}"
"""Hash: the delivery state of a job's callback, and until it is delivered its URL and body."""

CALLBACKS_KEY = "omnifleet:callbacks:{queue}"
"""Sorted set: ids of jobs whose callbacks are not delivered yet, by the Unix time from which a worker may post them."""

API_KEYS_KEY = "omnifleet:gateway:keys"
"""Hash: the gateway's API keys as records, by their ids; of a key's secret only the SHA-256 is kept."""

API_RATE_KEY = "omnifleet:gateway:rate:{key_id}"
"""Unix time until which the requests of an API key are paid for by its rate."""

API_QUOTA_KEY = "omnifleet:gateway:quota:{key_id}"
"""Jobs that an API key has sent since midnight, UTC; gone with the day."""

API_JOBS_KEY = "omnifleet:gateway:jobs:{tenant}"
"""Sorted set: the jobs that a tenant's API keys sent, each as `<job id>:<task>`, by the Unix time at which it was sent
in microseconds; the newest 10,000, and none that is older than the records of jobs live. The tenant is empty for a
gateway without keys."""

JOB_TENANT_KEY = "omnifleet:gateway:tenant:{job_id}"
"""Tenant whose API key sent a job; lives as long as the job's record."""
