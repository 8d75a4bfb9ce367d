"""What a fleet's jobs should be, were nothing ever lost."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from omnifleet_shared.broker.attempts import AttemptStart
from omnifleet_shared.broker.submit import queue_lists
from omnifleet_shared.keys import SUSPECTS_KEY

QUEUE = "audio-omni"
LISTS = queue_lists(QUEUE)
SUSPECTS = SUSPECTS_KEY.format(queue=QUEUE)


@dataclass(frozen=True)
class Lease:
    """A job under lease."""

    tag: str
    job: str
    worker: int
    origin: str
    is_suspect: bool


@dataclass
class Model:
    """The places, states and counts of all jobs."""

    place: dict[str, str] = field(default_factory=dict)
    """Of each job: a list, the tag of a lease, `dead` or `done`."""
    started: set[str] = field(default_factory=set)
    """Tags under which a job began and did not end, nor is it retried."""
    alone: Counter[str] = field(default_factory=Counter)
    """Starts of each job as a suspect."""
    handed_back: Counter[str] = field(default_factory=Counter)
    """Starts of each job that ended for a fault of the worker."""
    refused_by: dict[str, frozenset[str]] = field(default_factory=dict)
    """Workers whose storage refused each job."""
    status: dict[str, str] = field(default_factory=dict)
    attempts: Counter[str] = field(default_factory=Counter)
    open: Counter[str] = field(default_factory=Counter)
    unfinished: set[str] = field(default_factory=set)
    cancelled: set[str] = field(default_factory=set)
    keys: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
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

    def retry(self, lease: Lease, fault: str) -> None:
        if ("retry", lease.tag) in self.recorded:
            return
        self.recorded.add(("retry", lease.tag))
        self.status[lease.job] = "RETRY"
        self.handed_back[lease.job] += fault == "worker"
        if fault == "storage":
            self.refused_by[lease.job] = self.refused_by.get(lease.job, frozenset()) | {f"worker-{lease.worker}"}
        self.open[lease.job] = self.alone[lease.job] = 0
        self.started.discard(lease.tag)

    def end(self, lease: Lease, place: str, status: str) -> None:
        job = lease.job
        self.recorded.add(("finish", lease.tag))
        self.place[job], self.status[job] = place, status
        self.open[job] = self.alone[job] = 0
        self.started.discard(lease.tag)
        self.unfinished.discard(job)
        self.finished += 1

    def start(self, lease: Lease) -> AttemptStart:
        job = lease.job
        self.attempts[job] += 1
        self.open[job] += 1
        started = AttemptStart(
            "begun",
            self.attempts[job],
            self.open[job],
            self.worker.get(job, ""),
            died_alone=self.alone[job],
            handed_back=self.handed_back[job],
            refused_by=self.refused_by.get(job, frozenset()),
        )
        self.alone[job] += lease.is_suspect
        self.started.add(lease.tag)
        self.starts[lease.tag], self.status[job] = started, "STARTED"
        self.worker[job] = f"worker-{lease.worker}"
        return started

    def put_back(self, lease: Lease) -> None:
        is_suspect = lease.is_suspect and ("retry", lease.tag) not in self.recorded
        self.place[lease.job] = SUSPECTS if is_suspect or lease.tag in self.started else lease.origin
        self.started.discard(lease.tag)

    def stands(self, job: str) -> bool:
        return self.status[job] == "SUCCESS" or (self.status[job] != "FAILURE" and job not in self.cancelled)

    def waiting(self) -> int:
        return sum(place in LISTS for place in self.place.values())
