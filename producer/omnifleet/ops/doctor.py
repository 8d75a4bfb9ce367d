"""Checks of a fleet: what is wrong with it, and what to do about each finding."""

from __future__ import annotations

import io
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from omnifleet_shared.broker.kinds import KINDS, kind_queue
from omnifleet_shared.broker.queue_stats import QueueStatsReader
from omnifleet_shared.broker.removal.lost_messages import LostMessages
from omnifleet_shared.broker.submit import fair_lanes, queue_lists
from omnifleet_shared.broker.worker_registry import SeenWorker, WorkerRecord, WorkerRegistry
from omnifleet_shared.errors import OmnifleetError, StorageRefused
from omnifleet_shared.keys import BROKER_PRIORITY, PROBE_KEY, WORKERS_FAIR_KEY, WORKERS_KINDS_KEY, WORKERS_SEEN_KEY
from omnifleet_shared.redis_client import connect_redis, refuse_eviction, typed_redis_errors
from omnifleet_shared.settings import FleetSettings
from omnifleet_shared.storage import Storage, open_storage, storage_home
from packaging.version import InvalidVersion, Version
from redis import Redis

from ..client import Client
from ..results.download import download
from .queues import watched_queues

OLDEST_REDIS = Version("6.2")
MOST_SKEW = 2.0
"""Seconds by which clocks may differ: deadlines, waiting times and links depend on them."""
FULL = 0.9
"""Share of its memory from which on Redis is reported as nearly full."""
PROBE = b"omnifleet doctor"
PROBE_LINK = 60
"""Seconds that the link to it works."""
SHOWN_JOBS = 5
"""Ids that a finding names."""
UNREAD_PRIORITIES = sorted(set(range(1, 10)) - set(BROKER_PRIORITY.values()))
"""Priorities at which other Celery apps may put messages into lists that workers do not read."""
JOB_SECONDS = 120.0
"""Time that the tiny job of `--job` may take."""


@dataclass(frozen=True)
class Finding:
    """One thing that was checked."""

    check: str
    level: Literal["ok", "note", "fault"]
    """`note`: it works, and may not be meant so."""
    message: str
    fix: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the finding as JSON values."""
        return {"check": self.check, "level": self.level, "said": self.message, "fix": self.fix}


def examine(settings: FleetSettings, *, with_job: bool) -> Iterator[Finding]:
    """Check everything, one finding after another. What depends on a Redis that is not there is left out.

    Args:
        settings: of the fleet.
        with_job: send a tiny job too, and wait for it.
    """
    yield from _checked("storage", lambda: _storage(open_storage(settings)))
    try:
        redis = connect_redis(settings)
    except OmnifleetError as error:
        yield _fault("redis", error)
        return
    with closing(redis):
        findings = list(_checked("redis", lambda: _redis(redis)))
        yield from findings
        if any(one.check == "redis" and one.level == "fault" for one in findings):
            return
        for queue in watched_queues(redis, settings):
            yield from _in_queue(queue, settings, _queue(redis, queue, settings))
        yield from _checked("messages", lambda: _lost(redis, settings))
    if with_job:
        yield from _checked("job", lambda: _job(settings))


def _queue(redis: Redis, queue: str, settings: FleetSettings) -> Iterator[Finding]:
    yield from _checked("workers", lambda: _workers(WorkerRegistry(redis, queue).all(), queue, storage_home(settings)))
    yield from _checked("priorities", lambda: _priorities(redis, queue))
    yield from _checked("suspects", lambda: _suspects(QueueStatsReader(redis, queue).read().suspects))
    yield from _checked("tenants", lambda: _tenants(redis, queue))
    yield from _checked("answers", lambda: _answers(redis, queue))


def _in_queue(queue: str, settings: FleetSettings, findings: Iterator[Finding]) -> Iterator[Finding]:
    """Name the queue of another model in what is found there."""
    for one in findings:
        yield one if queue == settings.queue else replace(one, check=f"{one.check} of {queue}")


def _checked(check: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from look()
    except OmnifleetError as error:
        yield _fault(check, error)


def _fault(check: str, error: OmnifleetError) -> Finding:
    where = f"{error.field}: " if error.field else ""
    return Finding(check, "fault", f"{where}{error.problem}", error.remedy)


def _redis(redis: Redis) -> Iterator[Finding]:
    with typed_redis_errors():
        before = time.time()
        seconds, micros = cast(Any, redis).time()
        there = (before + time.time()) / 2
        info = cast(Any, redis).info()
    yield Finding("redis", "ok", f"answers, version {info['redis_version']}")
    if Version(str(info["redis_version"])) < OLDEST_REDIS:
        yield Finding("redis version", "fault", f"{info['redis_version']} is too old", f"Run {OLDEST_REDIS} or later")
    yield _eviction(redis)
    yield _persistence(info)
    yield from _memory(info)
    yield _skew("clock of Redis", seconds + micros / 1e6 - there)


def _eviction(redis: Redis) -> Finding:
    try:
        refuse_eviction(redis)
    except OmnifleetError as error:
        return Finding("redis eviction", "fault", error.problem, error.remedy)
    return Finding("redis eviction", "ok", "no record is thrown away")


def _persistence(info: dict[str, Any]) -> Finding:
    check = "redis persistence"
    if not info.get("aof_enabled"):
        return Finding(check, "fault", "jobs are lost when Redis restarts: its AOF is off", "Set appendonly yes")
    if info.get("aof_last_write_status") != "ok":
        return Finding(check, "fault", "Redis could not write its AOF", "Look at its log, and at its disk's space")
    return Finding(check, "ok", "AOF on")


def _memory(info: dict[str, Any]) -> Iterator[Finding]:
    used, most = int(info["used_memory"]), int(info.get("maxmemory", 0))
    if most and used > FULL * most:
        message = f"{used / most:.0%} of {most / 2**20:.0f} MiB are used; when it is full no job is taken"
        yield Finding("redis memory", "fault", message, "Raise maxmemory, or lower OMNIFLEET_RESULT_LIFETIME")


def _storage(storage: Storage) -> Iterator[Finding]:
    uri = storage.uri(PROBE_KEY.format(name=secrets.token_hex(8)))
    storage.put(storage.key(uri), io.BytesIO(PROBE), content_type="text/plain")
    if storage.get(uri, max_bytes=len(PROBE)) != PROBE:
        yield Finding("storage", "fault", "what was written comes back as something else", "Look at the storage's log")
    else:
        yield Finding("storage", "ok", f"writes and reads {storage.uri('')}")
    yield from _checked("links", lambda: _link(storage.url(uri, PROBE_LINK)))
    yield _deletion(storage, uri)
    before = time.time()
    if (shown := storage.clock()) is not None:
        # It shows whole seconds.
        ahead = shown - (before + time.time()) / 2
        yield _skew("clock of the storage", min(0.0, ahead + 1.0) if ahead < 0 else ahead)


def _link(url: str) -> Iterator[Finding]:
    if url.startswith("file://"):
        return
    host = urlsplit(url).netloc
    if download(url, len(PROBE)) == PROBE:
        yield Finding("links", "ok", f"lead to {host}, and work here")
    else:
        yield Finding("links", "fault", f"{host} answers with something else", "Check OMNIFLEET_S3_PUBLIC_ENDPOINT")


def _deletion(storage: Storage, uri: str) -> Finding:
    try:
        storage.delete(uri)
    except StorageRefused:
        fix = f"Delete {uri} by hand; no job needs that right"
        return Finding("storage rights", "note", "these credentials may not delete, the probe is left behind", fix)
    return Finding("storage rights", "ok", "write, read and delete")


def _workers(seen: Sequence[SeenWorker], queue: str, storage: str) -> Iterator[Finding]:
    if not seen:
        fix = f"Start one, with the same OMNIFLEET_REDIS_URL and OMNIFLEET_QUEUE={queue}, and look at its log"
        yield Finding("workers", "fault", "no worker lives", fix)
        return
    ready = [one for one in seen if one.record.state == "ready"]
    message = f"{len(ready)} of {len(seen)} are ready"
    if ready:
        yield Finding("workers", "ok", message)
    else:
        yield Finding("workers", "fault", message, "Wait for the checkpoint, or look at the workers' logs")
    for one in seen:
        yield from _worker(one)
        yield from _its_storage(one.record, storage)
    yield from _revisions(ready)


def _its_storage(record: WorkerRecord, storage: str) -> Iterator[Finding]:
    if record.storage is None or record.storage == storage:
        return
    message = f"it stores in {record.storage}, here it is {storage}: neither finds what the other stored"
    yield Finding(f"storage of worker {record.name}", "fault", message, "Give both the same OMNIFLEET_STORAGE")


def _lost(redis: Redis, settings: FleetSettings) -> Iterator[Finding]:
    lost = LostMessages(redis, settings.queue, settings.result_lifetime).find()
    if lost:
        fix = "Somebody deleted them, by DEL or a flush: the workers tell their senders within minutes (MessageLost)"
        shown = ", ".join(sorted(lost)[:SHOWN_JOBS]) + (", …" if len(lost) > SHOWN_JOBS else "")
        yield Finding("messages", "fault", f"{len(lost)} unfinished jobs have no message any more: {shown}", fix)
    else:
        yield Finding("messages", "ok", "every unfinished job has its message")


def _priorities(redis: Redis, queue: str) -> Iterator[Finding]:
    queues = [kind_queue(queue, kind) for kind in KINDS]
    with typed_redis_errors():
        unread = {
            level: sum(cast(Any, redis).llen(f"{one}\x06\x16{level}") for one in queues) for level in UNREAD_PRIORITIES
        }
    for level, count in unread.items():
        if count:
            fix = f"Send with priority {' or '.join(map(str, sorted(BROKER_PRIORITY.values())))}"
            message = f"{count} messages wait at Celery's priority {level}, which no worker reads"
            yield Finding("priorities", "fault", message, fix)


def _tenants(redis: Redis, queue: str) -> Iterator[Finding]:
    with typed_redis_errors(), cast(Any, redis).pipeline() as pipe:
        for lane in fair_lanes(queue):
            pipe.hget(lane, "jobs")
        *waiting, alive, fair = (
            pipe.zcard(WORKERS_SEEN_KEY.format(queue=queue)).zcard(WORKERS_FAIR_KEY.format(queue=queue)).execute()
        )
    jobs = sum(int(count or 0) for count in waiting)
    if jobs and alive and not fair:
        yield _overlooked("tenants", f"{jobs} jobs of tenants")


def _answers(redis: Redis, queue: str) -> Iterator[Finding]:
    with typed_redis_errors(), cast(Any, redis).pipeline() as pipe:
        for place in queue_lists(kind_queue(queue, "answers")):
            pipe.llen(place)
        *waiting, alive, kinds = (
            pipe.zcard(WORKERS_SEEN_KEY.format(queue=queue)).zcard(WORKERS_KINDS_KEY.format(queue=queue)).execute()
        )
    if sum(waiting) and alive and not kinds:
        yield _overlooked("answers", f"{sum(waiting)} jobs that are answered in words")


def _overlooked(check: str, jobs: str) -> Finding:
    message = f"{jobs} wait where the workers that live, of an older release, do not look"
    return Finding(check, "fault", message, "Start a worker of this release: it hands them over within seconds")


def _suspects(count: int) -> Iterator[Finding]:
    if count:
        fix = "Fine for a while after workers were killed; else see why they end, and `omnifleet dead list`"
        yield Finding("suspects", "note", f"{count} jobs wait to run alone, because their worker was lost", fix)


def _revisions(ready: Sequence[SeenWorker]) -> Iterator[Finding]:
    revisions = sorted({f"{one.record.checkpoint} {one.record.revision}" for one in ready})
    if len(revisions) > 1:
        fix = "Fine while one takes the other's place; else give all workers the same checkpoint"
        yield Finding("checkpoint", "note", f"several revisions answer jobs: {', '.join(revisions)}", fix)


def _worker(seen: SeenWorker) -> Iterator[Finding]:
    record = seen.record
    if record.state == "unwell":
        fix = "See its log: it ends itself before long, or is back once what it names is mended"
        yield Finding(f"worker {record.name}", "fault", str(record.reason), fix)
    if abs(seen.skew) > MOST_SKEW:
        yield _skew(f"clock of worker {record.name}", seen.skew)
    mine = version("omnifleet")
    if _is_older(record.version, mine):
        message = f"it is omnifleet {record.version}, older than {mine} here, and may not know what is sent"
        yield Finding(f"worker {record.name}", "fault", message, "Upgrade the workers before the producers")
    elif record.version != mine:
        message = f"it is omnifleet {record.version}, here is {mine}"
        yield Finding(f"worker {record.name}", "note", message, "Upgrade this side when convenient")


def _is_older(theirs: str, mine: str) -> bool:
    try:
        return Version(theirs) < Version(mine)
    except InvalidVersion:
        return False


def _skew(check: str, seconds: float) -> Finding:
    if abs(seconds) <= MOST_SKEW:
        return Finding(check, "ok", "as here")
    message = f"{abs(seconds):.1f} s {'ahead of' if seconds > 0 else 'behind'} this one's"
    return Finding(check, "fault", message, "Keep both with NTP: deadlines and links depend on them")


def _job(settings: FleetSettings) -> Iterator[Finding]:
    with Client(settings) as client:
        job = client.understand(question="Are you there?", max_new_tokens=1, deadline=JOB_SECONDS)
        start = time.monotonic()
        job.result(JOB_SECONDS)
        yield Finding("job", "ok", f"answered in {time.monotonic() - start:.1f} s")
