"""How jobs leave a client and how their states come back."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from threading import BoundedSemaphore
from typing import Protocol, Self, cast, get_args

from omnifleet_shared.broker.dead_letters import DeadLetter, Replay
from omnifleet_shared.broker.deletions import Deletions
from omnifleet_shared.broker.message import encode_message
from omnifleet_shared.broker.submit import AlreadySubmitted, Submission, Submissions, queue_lists
from omnifleet_shared.broker.worker_registry import Capacity, WorkerRecord, WorkerRegistry
from omnifleet_shared.job_state.batch_waiter import BatchResultWaiter, RedisResultWaiter
from omnifleet_shared.job_state.store import JobStates
from omnifleet_shared.keys import ATTEMPTS_KEY, INPUTS_UNTIL, ROUTE, TENANT_HEADER
from omnifleet_shared.observability import tracing as traces
from omnifleet_shared.per_process import PerProcess
from omnifleet_shared.redis_client import connect_redis, typed_redis_errors
from omnifleet_shared.schema.callback import CallbackDelivery
from omnifleet_shared.schema.idempotency import IdempotencyKey
from omnifleet_shared.schema.job_state import JobState
from omnifleet_shared.schema.jobs import Job, Priority
from omnifleet_shared.schema.parts import StreamedPart
from omnifleet_shared.schema.results import Progress, Route
from omnifleet_shared.settings import FleetSettings

SENDERS = 10
"""Threads that send at once by default; further ones wait for one of them."""


class JobTransport(Protocol):
    """Carries a client's jobs to whatever runs them, and their states back. Safe to use from several threads."""

    def of_tenant(self, tenant: str) -> Self:
        """Return a transport over the same connections whose jobs are this tenant's; it is not to be closed."""
        ...

    def submit(self, job: Job, key: IdempotencyKey | None = None, route: Route | None = None) -> str:
        """Send the job to the queue of its route, by default the fleet's own; it is known by its id from then on.

        Returns:
            The job's id, or that of a job with the same key that is waiting, running or done; nothing is sent then.

        Raises:
            BrokerUnavailable, BrokerRefused: nothing was sent.
            IdempotencyConflict: nothing was sent; the key is that of another request.
            QueueFull: nothing was sent; `details["retry_after"]` says in how many seconds to come back.
            QuotaExceeded: nothing was sent; likewise.
        """
        ...

    def read(self, job_id: str) -> JobState:
        """Read the job's state. Raises UnknownJob."""
        ...

    def wait(self, job_id: str, timeout: float | None) -> JobState:
        """Return the final state, or the one after `timeout` seconds (None: no limit). Raises UnknownJob."""
        ...

    def progress(self, job_id: str) -> Progress:
        """Read how far the job is; all zeros before its first step. Raises UnknownJob."""
        ...

    def parts(self, job_id: str, after: int) -> Sequence[StreamedPart]:
        """Read the parts that the job has given out behind number `after`; none of a job that is not known."""
        ...

    def callback(self, job_id: str) -> CallbackDelivery | None:
        """Read the state of the job's callback; None before its outcome, or where it has none. Raises UnknownJob."""
        ...

    def route(self, job_id: str) -> Route | None:
        """Read where the job was routed to; None where there was no choice. Raises UnknownJob."""
        ...

    def cancel(self, job_id: str) -> None:
        """Ask for the job to be stopped; without effect once it is final. Raises UnknownJob."""

    def watch(self) -> BatchResultWaiter:
        """Make a waiter for many jobs at once; it is the caller's to close."""
        ...

    def capacity(self, queue: str | None = None) -> Capacity:
        """Read how many jobs the live workers of a queue hold at once, by default of all models of the settings.

        Raises:
            BrokerUnavailable: Redis does not answer.
        """
        ...

    def workers(self, queue: str) -> Sequence[WorkerRecord]:
        """Read the reports of the live workers of a queue. Raises BrokerUnavailable."""
        ...

    def pending_deletion(self, uris: Sequence[str]) -> bool:
        """Whether any of these objects is about to be deleted from storage. Raises BrokerUnavailable."""
        ...

    def close(self) -> None:
        """Close the connections."""


class _Connections:
    """The connections of one process, and what its threads share of them."""

    def __init__(self, settings: FleetSettings, senders: int) -> None:
        self.redis = redis = connect_redis(settings)
        self.states = JobStates(redis, settings.result_lifetime)
        self.deletions = Deletions(redis)
        self.sending = BoundedSemaphore(senders)


class CeleryTransport:
    """Sends jobs as messages of Celery to Redis, and reads their states from it. The first operation connects.

    A forked process has connections of its own.

    Args:
        settings: of the fleet.
        senders: threads that send at once; further ones wait. Each takes a connection to Redis.

    Raises:
        InvalidSetting: the Redis URL is none, or a limit on unfinished jobs names no producer.
    """

    def __init__(self, settings: FleetSettings, senders: int = SENDERS) -> None:
        self._settings = settings
        self._tenant = settings.tenant
        self._submissions = Submissions(settings)
        self._connections = PerProcess(lambda: _Connections(settings, senders))
        self._connections.get()  # a URL that is none is refused now

    def of_tenant(self, tenant: str) -> Self:
        """See `JobTransport`."""
        other = copy.copy(self)
        other._tenant = tenant
        return other

    def submit(self, job: Job, key: IdempotencyKey | None = None, route: Route | None = None) -> str:
        """See `JobTransport`."""
        submission = self._submissions.new(job.job_id, key, seconds_left=_seconds_left(job), route=route)
        try:
            self._send(job, submission, self._settings.queue if route is None else route.queue, route)
        except AlreadySubmitted as other:
            return other.job_id
        return job.job_id

    def replay(self, letter: DeadLetter, queue: str | None = None) -> None:
        """Send a dead-lettered job once more, under its own id, to the queue that it was in, by default the fleet's.

        Raises:
            BrokerUnavailable: nothing was sent.
            UnknownJob: it is no dead letter any more.
            InvalidJob: it has succeeded since.
        """
        job_id, place = letter.job.job_id, queue or self._settings.queue
        with typed_redis_errors("the job could not be sent"):
            tenant = cast(bytes | None, self._own.redis.hget(ATTEMPTS_KEY.format(job_id=job_id), "sent:tenant"))
        sender = self if not tenant else self.of_tenant(tenant.decode())
        route = self._own.states.read_route(job_id)
        sender._send(letter.job, Replay(job_id, self._settings, place), place, route)

    def read(self, job_id: str) -> JobState:
        """See `JobTransport`."""
        return self._own.states.read(job_id)

    def wait(self, job_id: str, timeout: float | None) -> JobState:
        """See `JobTransport`. A connection lost meanwhile is made anew."""
        return self._own.states.wait(job_id, timeout)

    def progress(self, job_id: str) -> Progress:
        """See `JobTransport`."""
        progress = self._own.states.read_progress(job_id)
        if progress == Progress():
            # No progress yet and no such job look the same.
            self._own.states.read(job_id)
        return progress

    def parts(self, job_id: str, after: int) -> Sequence[StreamedPart]:
        """See `JobTransport`."""
        return self._own.states.read_parts(job_id, after)

    def callback(self, job_id: str) -> CallbackDelivery | None:
        """See `JobTransport`."""
        delivery = self._own.states.read_callback(job_id)
        if delivery is None:
            self._own.states.read(job_id)
        return delivery

    def route(self, job_id: str) -> Route | None:
        """See `JobTransport`."""
        route = self._own.states.read_route(job_id)
        if route is None:
            self._own.states.read(job_id)
        return route

    def cancel(self, job_id: str) -> None:
        """See `JobTransport`."""
        if not self._own.states.read(job_id).status.is_final:
            self._own.states.request_cancel(job_id)

    def watch(self) -> BatchResultWaiter:
        """See `JobTransport`."""
        return RedisResultWaiter.connect(self._settings)

    def capacity(self, queue: str | None = None) -> Capacity:
        """See `JobTransport`."""
        queues = dict.fromkeys(self._settings.model_queues.values()) if queue is None else (queue,)
        found = [self._registry(one).capacity() for one in queues]
        return sum(found[1:], found[0])

    def workers(self, queue: str) -> Sequence[WorkerRecord]:
        """See `JobTransport`."""
        return [seen.record for seen in self._registry(queue).all()]

    def pending_deletion(self, uris: Sequence[str]) -> bool:
        """See `JobTransport`."""
        return self._own.deletions.pending(uris)

    def close(self) -> None:
        """See `JobTransport`."""
        self._own.states.close()

    @property
    def _own(self) -> _Connections:
        return self._connections.get()

    def _registry(self, queue: str) -> WorkerRegistry:
        return WorkerRegistry(self._own.redis, queue)

    def _send(self, job: Job, submission: Submission, queue: str, route: Route | None) -> None:
        with typed_redis_errors("the job could not be sent"):
            self._publish(job, submission, queue, route)

    def _publish(self, job: Job, submission: Submission, queue: str, route: Route | None) -> None:
        about = {"messaging.system": "redis", "messaging.destination.name": queue, "job.id": job.job_id}
        with traces.span("publish", "producer", attributes=about), self._own.sending:
            headers = {**traces.headers(), INPUTS_UNTIL: self._inputs_until(job).isoformat()}
            if route is not None:
                headers[ROUTE] = route.model_dump_json()
            if self._tenant is not None:
                headers[TENANT_HEADER] = self._tenant
            message = encode_message(job, queue, headers)
            lists = dict(zip(get_args(Priority), queue_lists(queue), strict=True))
            submission.push(self._own.redis, lists[job.priority], message)

    def _inputs_until(self, job: Job) -> datetime:
        # From now: a job that is replayed was submitted long ago.
        return job.deadline or datetime.now(UTC) + timedelta(seconds=self._settings.input_lifetime)


def _seconds_left(job: Job) -> float | None:
    # Redis adds them to its own clock, by which workers go: this machine's may be wrong.
    return None if job.deadline is None else (job.deadline - datetime.now(UTC)).total_seconds()
