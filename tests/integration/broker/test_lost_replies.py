"""Whatever request or reply is lost or late: each message is in one place, each count that of one run.

A state machine plays producers, operators and two workers on a real Redis behind a network that loses what they send
and what they are answered. Every call is repeated until it is answered. And whatever was sent may arrive once more at
any later time: it then changes nothing, and is answered as the first time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from typing import Any, cast

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine
from omnifleet_shared.broker.attempts import BEGIN, Attempts
from omnifleet_shared.broker.attempts import Fault as RetryFault
from omnifleet_shared.broker.dead_letters import DeadLetter, DeadLetters, Replay
from omnifleet_shared.broker.leases import RECOVER, RENEW, TAKE, LeasedMessage, Leases
from omnifleet_shared.broker.submit import AlreadySubmitted, Submissions, all_lists
from omnifleet_shared.broker.worker_registry import WorkerRecord, WorkerRegistry
from omnifleet_shared.errors import (
    IdempotencyConflict,
    JobFailed,
    JobQuarantined,
    QueueFull,
    StorageUnavailable,
    UnknownJob,
)
from omnifleet_shared.job_state.store import JobStates
from omnifleet_shared.keys import (
    ATTEMPTS_KEY,
    CALLBACK_KEY,
    CALLBACKS_KEY,
    CANCEL_KEY,
    CELERY_TASKS,
    DEAD_KEY,
    FAIR_LANE_KEY,
    LEASED_KEY,
    LEASES_KEY,
    STARTED_KEY,
    TENANT_LEASES_KEY,
    TENANT_USE_KEY,
    THROUGHPUT_KEY,
    UNFINISHED_KEY,
    WORKERS_FAIR_KEY,
    WORKERS_KINDS_KEY,
    WORKERS_SEEN_KEY,
)
from omnifleet_shared.schema.idempotency import IdempotencyKey
from omnifleet_shared.schema.job_state import STATE_KEY
from omnifleet_shared.schema.jobs import GenerateJob
from omnifleet_shared.schema.results import JobResult, ModelInfo, Timings
from omnifleet_shared.schema.tasks import TextToSound
from omnifleet_shared.settings import FleetSettings
from omnifleet_shared.webhooks.outbox import CLAIM, Callbacks, ClaimedCallback
from redis import Redis
from support.broker.fleet_model import LISTS, QUEUE, SUSPECTS, Lease, Model
from support.broker.lossy_redis import Fault, Network, SentScript, deliver
from support.services import RedisServer

JOBS = [f"job-{number}" for number in range(5)]
LIMITS = FleetSettings(producer="web", max_queued=3, max_unfinished=4)
TENANTS = ("a", "b")
About = tuple[str | None, str]
"""Of a message: its tenant, and its task."""
TASKS = sorted(CELERY_TASKS.values())
ABOUT: st.SearchStrategy[About] = st.tuples(st.sampled_from((None, *TENANTS)), st.sampled_from(TASKS))
URL = "https://hooks.example.com/"

FAULT: st.SearchStrategy[Fault] = st.sampled_from(("request lost", "reply lost", "request late"))
# As many as redis-py itself makes good: a caller who is told that a call failed, and calls again, makes two calls.
FAULTS = st.lists(FAULT, max_size=2)
# A worker calls until it is answered.
MANY_FAULTS = st.lists(FAULT, max_size=7)
ANY_JOB = st.sampled_from(JOBS)
WORKERS = st.integers(0, 1)
OUTCOMES = st.sampled_from(["success", "failure", "quarantine"])


def result(job: str) -> JobResult:
    fields: dict[str, Any] = {"namespace": "generate", "task": "t2a", "seed": 1, "attempts": 1}
    model = ModelInfo(name="m", revision="r", licence="l")
    return JobResult(job_id=job, text="x", model=model, timings=Timings(), **fields)


def letter(job: str) -> DeadLetter:
    about = GenerateJob(job_id=job, task=TextToSound(name="t2a", text="rain"))
    return DeadLetter(job=about, reason="it kills", worker="worker-0", attempts=3)


class Fleet(RuleBasedStateMachine):
    """Producers, an operator and two workers."""

    leases = Bundle("leases")
    claims = Bundle("claims")

    def __init__(self, port: int) -> None:
        super().__init__()
        self.port = port
        self.redis = Redis(port=port, decode_responses=True)
        self.redis.flushdb()
        self.network = Network()
        self.model = Model()
        client = self.client = self.network.client(port)
        self.queues = [Leases(client, QUEUE, seconds=600) for _ in range(2)]
        self.attempts = [Attempts(client, QUEUE, lifetime=3600, worker=f"worker-{number}") for number in range(2)]
        self.callbacks = [Callbacks(client, QUEUE) for _ in range(2)]
        self.letters = DeadLetters(client, QUEUE)
        self.states = JobStates(client, lifetime=3600)
        self.submissions = Submissions(LIMITS)
        self.registry = WorkerRegistry(self.redis, QUEUE)

    def teardown(self) -> None:
        self.client.connection_pool.disconnect()
        self.redis.close()

    # Producers.

    @rule(
        job=ANY_JOB,
        key=st.sampled_from([None, "a", "b"]),
        text=st.sampled_from(["rain", "rain", "snow"]),
        place=st.sampled_from(LISTS),
        about=ABOUT,
        faults=FAULTS,
    )
    def submit(self, job: str, key: str | None, text: str, place: str, about: About, faults: list[Fault]) -> None:
        submission = self.submissions.new(job, IdempotencyKey(key, {"text": text}) if key else None)
        message = message_of(job, about)
        expected = self._expected_submission(job, key, text)
        try:
            self.network.call(faults, lambda: submission.push(self.client, place, message))
            answer = job
        except AlreadySubmitted as other:
            answer = other.job_id
        except QueueFull:
            answer = "refused"
        except IdempotencyConflict as conflict:
            answer = f"conflict with {conflict.details['job_id']}"
        assert answer == expected
        if answer == job and job not in self.model.place:
            self.model.queue(job, place)
            self.model.keys |= {key: job} if key else {}
            self.model.texts[job] = text

    def _expected_submission(self, job: str, key: str | None, text: str) -> str:
        other = self.model.keys.get(key or "")
        if job in self.model.place:
            return job
        if other is not None and self.model.stands(other):
            return other if self.model.texts[other] == text else f"conflict with {other}"
        return "refused" if self.model.waiting() >= 3 or len(self.model.unfinished) >= 4 else job

    @rule(job=ANY_JOB, faults=FAULTS)
    def cancel(self, job: str, faults: list[Fault]) -> None:
        self.network.call(faults, lambda: self.states.request_cancel(job))
        self.model.cancelled.add(job)

    # Workers.

    @rule(target=leases, worker=WORKERS, most=st.integers(1, 3), faults=MANY_FAULTS)
    def take(self, worker: int, most: int, faults: list[Fault]) -> Any:
        room = dict.fromkeys(all_lists(QUEUE), most)
        taken = self.network.call(faults, lambda: self.queues[worker].take_several(room))
        if not taken:
            assert self.model.waiting() == 0
        assert len(taken) <= most
        return multiple(*(self._held(one, worker) for one in taken))

    def _held(self, taken: LeasedMessage, worker: int) -> Lease:
        job = json.loads(taken.message)["headers"]["id"]
        assert self.model.place[job] == (SUSPECTS if taken.is_suspect else taken.origin)
        self.model.place[job] = taken.tag
        return Lease(taken.tag, job, worker, taken.origin, taken.is_suspect)

    @rule(lease=leases, faults=MANY_FAULTS)
    def begin(self, lease: Lease, faults: list[Fault]) -> None:
        start = self.network.call(faults, lambda: self.attempts[lease.worker].begin(lease.job, lease.tag))
        is_new = lease.tag not in self.model.starts
        if self.model.place[lease.job] != lease.tag or (is_new and ("retry", lease.tag) in self.model.recorded):
            assert start.verdict == "lost"
        elif is_new and lease.job in self.model.cancelled:
            assert start.verdict == "cancelled"
        else:
            expected = self.model.starts.get(lease.tag) or self.model.start(lease)
            assert replace(start, traceback="") == expected

    @rule(lease=leases, whose=st.sampled_from(["", "worker", "storage"]), faults=MANY_FAULTS)
    def retry(self, lease: Lease, whose: RetryFault, faults: list[Fault]) -> None:
        error, attempts = StorageUnavailable("away"), self.attempts[lease.worker]
        verdict = self.network.call(faults, lambda: attempts.retry(lease.job, error, lease.tag, whose, gpu_seconds=1))
        if self.model.place[lease.job] == lease.tag:
            assert verdict == "written"
            self.model.retry(lease, whose)
        else:
            assert verdict == ("written" if ("retry", lease.tag) in self.model.recorded else "lost")
        self.network.call(faults, lambda: self.queues[lease.worker].postpone(lease.tag, 300))

    @rule(
        lease=leases, how=st.sampled_from(["success", "failure", "quarantine"]), url=st.booleans(), faults=MANY_FAULTS
    )
    def finish(self, lease: Lease, how: str, url: bool, faults: list[Fault]) -> None:
        verdict = self.network.call(faults, lambda: self._record(lease, how, URL if url else None))
        if self.model.place[lease.job] != lease.tag:
            assert verdict == ("written" if ("finish", lease.tag) in self.model.recorded else "lost")
            return
        assert verdict == "written"
        place = "dead" if how == "quarantine" else "done"
        self.model.end(lease, place, "SUCCESS" if how == "success" else "FAILURE")
        if url:
            self.model.to_post.add(lease.job)
            self.model.posts[lease.job] = 0
            self.model.claims.pop(lease.job, None)

    def _record(self, lease: Lease, how: str, url: str | None) -> str:
        attempts, job = self.attempts[lease.worker], lease.job
        if how == "success":
            return attempts.succeed(result(job), lease.tag, url, gpu_seconds=2)
        if how == "failure":
            return attempts.fail(job, JobFailed("it broke"), lease.tag, url)
        return attempts.fail(job, JobQuarantined("it kills"), lease.tag, url, letter(job))

    @rule(lease=leases, faults=MANY_FAULTS)
    def end_the_lease(self, lease: Lease, faults: list[Fault]) -> None:
        """The worker is gone, and another one puts its message back; it may come back itself later on."""
        if self.model.place[lease.job] == lease.tag:
            self.model.put_back(lease)
            self.redis.zadd(LEASES_KEY.format(queue=QUEUE), {lease.tag: 0})
        self.network.call(faults, self.queues[1 - lease.worker].recover)

    @rule(lease=leases, faults=MANY_FAULTS)
    def renew(self, lease: Lease, faults: list[Fault]) -> None:
        lost = self.network.call(faults, lambda: self.queues[lease.worker].renew([lease.tag]))
        assert lost == (set() if self.model.place[lease.job] == lease.tag else {lease.tag})

    @rule(lease=leases, faults=MANY_FAULTS)
    def ack(self, lease: Lease, faults: list[Fault]) -> None:
        """What Celery does in the end with every message whose lease is over."""
        if self.model.place[lease.job] != lease.tag:
            self.network.call(faults, lambda: self.queues[lease.worker].ack(lease.tag))

    # Callbacks.

    @rule(target=claims, worker=WORKERS, faults=MANY_FAULTS)
    def claim(self, worker: int, faults: list[Fault]) -> Any:
        claimed = self.network.call(faults, lambda: self.callbacks[worker].claim(600))
        due = self.model.to_post - self.model.claims.keys()
        if claimed is None:
            assert not due
            return multiple()
        assert claimed.job_id in due
        self.model.posts[claimed.job_id] += 1
        assert claimed.attempts == self.model.posts[claimed.job_id]
        self.model.claims[claimed.job_id] = claimed.claim
        return claimed

    @rule(claimed=claims, how=st.sampled_from(["delivered", "failed", "retry", "release"]), faults=MANY_FAULTS)
    def settle(self, claimed: ClaimedCallback, how: str, faults: list[Fault]) -> None:
        callbacks, job = self.callbacks[0], claimed.job_id
        calls = {
            "delivered": lambda: callbacks.delivered(claimed),
            "failed": lambda: callbacks.failed(claimed, "no"),
            "retry": lambda: callbacks.retry(claimed, "later", 0),
            "release": lambda: callbacks.release_claim(claimed, 0),
        }
        self.network.call(faults, calls[how])
        if self.model.claims.get(job) != claimed.claim:
            return
        del self.model.claims[job]
        self.model.posts[job] -= how == "release"
        if how in ("delivered", "failed"):
            self.model.to_post.discard(job)

    # The operator.

    @rule(job=ANY_JOB, about=ABOUT, faults=FAULTS)
    def replay(self, job: str, about: About, faults: list[Fault]) -> None:
        order = Replay(job, LIMITS, LIMITS.queue)
        message = message_of(job, about)
        try:
            self.network.call(faults, lambda: order.push(self.client, LISTS[0], message))
        except UnknownJob:
            assert self.model.place.get(job) != "dead"
            return
        if self.model.place.get(job) == "dead":
            self.model.queue(job, LISTS[0])
            self.model.attempts[job] = self.model.open[job] = self.model.alone[job] = 0
            self.model.worker.pop(job, None)
            self.model.handed_back.pop(job, None)
            self.model.refused_by.pop(job, None)
            self.model.cancelled.discard(job)

    @rule(job=ANY_JOB, faults=FAULTS)
    def drop(self, job: str, faults: list[Fault]) -> None:
        try:
            self.network.call(faults, lambda: self.letters.drop(job))
        except UnknownJob:
            assert self.model.place.get(job) != "dead"
            return
        assert self.model.place[job] == "dead"
        self.model.place[job] = "done"

    @rule(is_there=st.booleans(), finds_tenants=st.booleans())
    def upgrade(self, is_there: bool, finds_tenants: bool) -> None:
        """A worker of an older release comes, which finds no answers and perhaps no messages of tenants, or goes."""
        seen, fair, kinds = (key.format(queue=QUEUE) for key in (WORKERS_SEEN_KEY, WORKERS_FAIR_KEY, WORKERS_KINDS_KEY))
        self.redis.delete(seen, fair, kinds)
        now = self.redis.time()[0]
        if is_there:
            self.redis.zadd(seen, {"old": now})
            if finds_tenants:
                self.redis.zadd(fair, {"old": now})
        # One of this release hands it what waits where it does not look.
        self.registry.report(report("new"))

    # The network.

    @precondition(lambda self: self.network.sent)
    @rule(data=st.data())
    def deliver_again(self, data: st.DataObject) -> None:
        """What was sent arrives once more, or late: its caller has been answered since, and others have acted."""
        script = data.draw(st.sampled_from(self.network.sent))
        before = self._records()

        reply = deliver(script, self.port)

        assert self._records() == before
        assert script.reply is None or is_same_answer(script, reply)

    # What holds at every moment.

    @invariant()
    def each_message_is_in_one_place_and_each_count_that_of_one_run(self) -> None:
        model, records = self.model, self._records()
        assert places(records, model.place) == {job: [place] for job, place in model.place.items()}
        for lane in records["fair"]:
            assert int(lane["counts"].get("jobs", 0)) == sum(map(len, lane["lists"].values()))
            assert lane["waiting"] == {tenant for tenant, messages in lane["lists"].items() if messages}
            assert not set(lane["waiting"]) & set(lane["idle"])
        assert records["charged"].keys() <= records["leased"].keys()
        for job in model.place:
            assert records["status"][job] == model.status[job]
            runs = records["runs"][job]
            counts = [int(runs.get(name, 0)) for name in ("attempts", "open", "alone")]
            assert counts == [model.attempts[job], model.open[job], model.alone[job]]
            assert int(records["callbacks"][job].get("attempts", 0)) == model.posts[job]
        assert sum(map(int, records["finished"])) == model.finished
        for name in ("unfinished", "started", "to_post", "cancelled"):
            assert records[name] == getattr(model, name)

    def _fair_lane(self, place: str) -> dict[str, Any]:
        lane, (queue, priority) = FAIR_LANE_KEY.format(place=place), divide(place)
        tenants = FAIR_LANE_KEY.format(place=queue)
        return {
            "counts": self.redis.hgetall(lane),
            "waiting": set(self.redis.zrange(f"{lane}:waiting", 0, -1)),
            "idle": {name for name in self.redis.zrange(f"{lane}:idle", 0, -1) if name},
            "lists": {tenant: self.redis.lrange(f"{tenants}:jobs:{tenant}{priority}", 0, -1) for tenant in TENANTS},
        }

    def _records(self) -> dict[str, Any]:
        """All that Redis holds of the fleet, but for what it remembers of calls."""
        pipe = cast(Any, self.redis.pipeline(transaction=False))
        minutes = cast(list[str], self.redis.keys(f"{THROUGHPUT_KEY.format(queue=QUEUE)}*"))
        for name in (*all_lists(QUEUE), SUSPECTS):
            pipe.lrange(name, 0, -1)
        for key in (LEASED_KEY, DEAD_KEY):
            pipe.hgetall(key.format(queue=QUEUE))
        for key in (LEASES_KEY, STARTED_KEY, CALLBACKS_KEY, UNFINISHED_KEY):
            pipe.zrange(key.format(queue=QUEUE, producer="web"), 0, -1)
        for job in JOBS:
            pipe.hgetall(ATTEMPTS_KEY.format(job_id=job)).hgetall(CALLBACK_KEY.format(job_id=job))
            pipe.get(STATE_KEY.format(job_id=job)).exists(CANCEL_KEY.format(job_id=job))
        pipe.mget(minutes or ["none"])
        interactive, batch, asked, asked_batch, suspects, leased, dead, *sets = pipe.execute()
        leases, started, to_post, unfinished, *of_jobs, finished = sets
        states = {job: json.loads(of_jobs[4 * place + 2] or "{}") for place, job in enumerate(JOBS)}
        fair = [self._fair_lane(place) for place in all_lists(QUEUE)]
        of_tenants = [[*chain.from_iterable(lane["lists"].values())] for lane in fair]
        sounds, answers = (interactive, batch), (asked, asked_batch)
        lists = [sounds[lane] + answers[lane] + of_tenants[lane] + of_tenants[lane + 2] for lane in (0, 1)]
        return {
            "lists": dict(zip((*LISTS, SUSPECTS), (*lists, suspects), strict=True)),
            "fair": fair,
            "charged": self.redis.hgetall(TENANT_LEASES_KEY.format(queue=QUEUE)),
            "used": self.redis.hgetall(TENANT_USE_KEY),
            "leased": leased,
            "dead": dead,
            "leases": set(leases),
            "started": set(started),
            "to_post": set(to_post),
            "unfinished": set(unfinished),
            "runs": {job: counts_in(of_jobs[4 * place]) for place, job in enumerate(JOBS)},
            "callbacks": {job: of_jobs[4 * place + 1] for place, job in enumerate(JOBS)},
            "status": {job: state.get("status") for job, state in states.items()},
            "cancelled": {job for place, job in enumerate(JOBS) if of_jobs[4 * place + 3]},
            "finished": [one for one in finished if one],
        }


def message_of(job: str, about: About) -> str:
    tenant, task = about
    return json.dumps({"headers": {"task": task, "id": job} | ({"tenant": tenant} if tenant else {})})


def divide(place: str) -> tuple[str, str]:
    """The queue of a list, and the rest of its name."""
    queue = place.partition("\x06")[0]
    return queue, place.removeprefix(queue)


def report(name: str) -> WorkerRecord:
    now = datetime.now(UTC)
    return WorkerRecord(name=name, version="1", state="ready", started_at=now, reported_at=now, slots=1)


def counts_in(fields: dict[str, str]) -> dict[str, str]:
    """The fields of a job's attempts without those that remember calls."""
    return {name: value for name, value in fields.items() if ":" not in name}


def places(records: dict[str, Any], jobs: Iterable[str]) -> dict[str, list[str]]:
    """Every place that each job is found in."""
    found: dict[str, list[str]] = {job: [] for job in jobs}
    for name, messages in records["lists"].items():
        for message in messages:
            found[job_of(message)].append(name)
    for tag, kept in records["leased"].items():
        found[job_of(kept)].append(tag)
    assert records["leases"] == records["leased"].keys()
    for job in found:
        if records["status"][job] in ("SUCCESS", "FAILURE"):
            found[job].append("dead" if job in records["dead"] else "done")
    return found


def job_of(message: str) -> str:
    """Of a message as it is kept in a list or under a lease: behind the lists that it was taken from."""
    return str(json.loads(message.rpartition("\n")[2])["headers"]["id"])


def is_same_answer(script: SentScript, reply: Any) -> bool:
    """Whether a script that runs again answers as the first time, or that the world has gone on since."""
    if reply is None and (script.runs(TAKE) or script.runs(CLAIM)):
        return True  # the lease, or the claim, is over
    if script.runs(TAKE):
        left, first = (dict(zip(one[2::2], one[3::2], strict=True)) for one in (reply, script.reply))
        return all(job_of(first[tag].decode()) == job_of(message.decode()) for tag, message in left.items())
    if script.runs(BEGIN):
        # Not the traceback, which a retry may have written since.
        return bool(reply[0] == b"lost" or reply[:2] == script.reply[:2])
    if script.runs(RENEW):
        return set(script.reply) <= set(reply)  # more of them may be lost by now
    return bool(script.runs(RECOVER) or reply == script.reply)  # what is over now is counted now


def test_whatever_is_lost_each_message_is_in_one_place_and_counts_once(redis_server: RedisServer) -> None:
    steps = settings(max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))

    run_machine(cast(Any, lambda: Fleet(redis_server.port)), settings=steps)
