"""Evidence: all that is known of a job that was lost, wrong or done twice, in one file, in order of time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from omnifleet_shared.broker.submit import all_lists
from omnifleet_shared.keys import ATTEMPTS_KEY, LEASED_KEY, LEASES_KEY, MODEL
from omnifleet_shared.schema.job_state import STATE_KEY
from redis import Redis

from .recorder import Recorder

FAULTS = "faults.jsonl"
"""File of all faults that were injected."""


def write(faulty: Mapping[str, str], recorder: Recorder, redis: Redis, folder: Path) -> None:
    """Write a file `job-<id>.txt` for each job: its fault, what was published and logged of it, and where it is now."""
    logs = list(_lines(folder)) if faulty else []
    for job_id, fault in faulty.items():
        events = [(moment, f"published {record.decode()}") for moment, record in recorder.heard.get(job_id, [])]
        events += [(moment, text) for moment, text in logs if job_id in text or text.startswith(FAULTS)]
        text = "".join(f"{datetime.fromtimestamp(moment, UTC).isoformat()} {what}\n" for moment, what in sorted(events))
        place = "".join(f"now: {line}\n" for line in _place(job_id, redis))
        (folder / f"job-{job_id}.txt").write_text(f"{fault}\n{text}{place}")


def _lines(folder: Path) -> Iterator[tuple[float, str]]:
    """Read every line of the logs with its time. Workers with a wrong clock logged the wrong one."""
    for log in [folder / FAULTS, *sorted(folder.glob("worker-*.log"))]:
        for line in log.read_text(errors="replace").splitlines() if log.exists() else ():
            try:
                yield _moment(json.loads(line)["timestamp"]), f"{log.name} {line}"
            except (ValueError, KeyError, TypeError):
                continue  # Celery's banner, or a traceback


def _moment(timestamp: Any) -> float:
    return timestamp if isinstance(timestamp, float) else datetime.fromisoformat(timestamp).timestamp()


def _place(job_id: str, redis: Redis) -> Iterator[str]:
    """Tell where Redis has the job's message, and what its records are."""
    yield f"state {redis.get(STATE_KEY.format(job_id=job_id))!r}"
    yield f"runs {redis.hgetall(ATTEMPTS_KEY.format(job_id=job_id))!r}"
    for name in all_lists(MODEL):
        messages = cast(list[bytes], redis.lrange(name, 0, -1))
        yield f"{sum(job_id.encode() in message for message in messages)} messages in the queue {name!r}"
    for tag, message in cast(dict[bytes, bytes], redis.hgetall(LEASED_KEY.format(queue=MODEL))).items():
        if job_id.encode() in message:
            yield f"leased under {tag.decode()} until {redis.zscore(LEASES_KEY.format(queue=MODEL), tag)}"
