"""What a fleet's jobs should be, were nothing ever lost."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from omnifleet_shared.broker.attempts import AttemptStart
from omnifleet_shared.broker.submit import queue_lists

QUEUE = "audio-omni"
LISTS = queue_lists(QUEUE)


@dataclass(frozen=True)
class Lease:
    """A job under lease."""

    tag: str
    job: str
    worker: int


@dataclass
class Model:
    """The places, states and counts of all jobs."""

    place: dict[str, str] = field(default_factory=dict)
    """Of each job: a list, the tag of a lease, `dead` or `done`."""
    status: dict[str, str] = field(default_factory=dict)
    attempts: Counter[str] = field(default_factory=Counter)
    open: Counter[str] = field(default_factory=Counter)
    unfinished: set[str] = field(default_factory=set)
    cancelled: set[str] = field(default_factory=set)
    keys: dict[str, str] = field(default_factory=dict)
    finished: int = 0
    starts: dict[str, AttemptStart] = field(default_factory=dict)
    worker: dict[str, str] = field(default_factory=dict)
    recorded: set[tuple[str, str]] = field(default_factory=set)
    """What was recorded under which tag: retries and outcomes."""
    posts: Counter[str] = field(default_factory=Counter)
    """Attempts of each callback."""
    to_post: set[str] = field(default_factory=set)
    """Jobs with callbacks that are not settled."""
    claims: dict[str, str] = field(default_factory=dict)

    def queue(self, job: str, place: str) -> None:
        self.place[job], self.status[job] = place, "QUEUED"
        self.unfinished.add(job)

    def end(self, job: str, place: str, status: str) -> None:
        self.place[job], self.status[job] = place, status
        self.open[job] = 0
        self.unfinished.discard(job)
        self.finished += 1

    def start(self, lease: Lease) -> AttemptStart:
        job = lease.job
        self.attempts[job] += 1
        self.open[job] += 1
        started = AttemptStart("begun", self.attempts[job], self.open[job], self.worker.get(job, ""))
        self.starts[lease.tag], self.status[job] = started, "STARTED"
        self.worker[job] = f"worker-{lease.worker}"
        return started

    def stands(self, job: str) -> bool:
        return self.status[job] == "SUCCESS" or (self.status[job] != "FAILURE" and job not in self.cancelled)

    def waiting(self) -> int:
        return sum(place in LISTS for place in self.place.values())
