"""What becomes of a delivery: recorded, put off or dropped; and how Celery is told."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from celery.exceptions import Ignore, Reject
from omnifleet_shared.broker.attempts import AttemptStart
from omnifleet_shared.broker.dead_letters import DeadLetter
from omnifleet_shared.errors import (
    BrokerUnavailable,
    DeviceFailed,
    DiskFull,
    EngineStopped,
    InvalidMessage,
    JobCancelled,
    JobFailed,
    JobQuarantined,
    MediaTooLong,
    OmnifleetError,
    StorageRefused,
    StorageUnavailable,
)
from omnifleet_shared.schema.jobs import read_job
from omnifleet_shared.schema.results import JobResult, ModelInfo, Timings
from omnifleet_shared.webhooks.outbox import Callbacks
from omnifleet_worker.jobs.job_context import JobContext
from omnifleet_worker.observability.metrics import WorkerMetrics
from omnifleet_worker.service.delivery import Deliveries
from omnifleet_worker.service.tasks import run_job
from omnifleet_worker.service.webhook_sender import WebhookSender
from omnifleet_worker.settings import WorkerSettings

JOB = read_job({"schema_version": 1, "namespace": "understand", "task": {"name": "question", "text": "?"}})
PAYLOAD = JOB.model_dump(mode="json")
SETTINGS = WorkerSettings(max_attempts=3, retry_backoff=2.0, redis_patience=0.001)
TAG = "a lease"


def result_of(run: JobContext) -> JobResult:
    return JobResult(
        job_id=run.job.job_id,
        namespace="understand",
        task="question",
        text="an answer",
        model=ModelInfo(name="a model", revision="1", licence="none"),
        seed=run.job.seed,
        attempts=run.attempt,
        timings=Timings(),
    )


@dataclass
class FakeAttempts:
    """Begins and records as told."""

    verdict: str = "begun"
    attempt: int = 1
    unfinished: int = 1
    died_alone: int = 0
    handed_back: int = 0
    refused_by: frozenset[str] = frozenset()
    written: str = "written"
    away: bool = False
    records: list[tuple[str, Any]] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def begin(self, job_id: str, tag: str) -> AttemptStart:
        more = (self.died_alone, self.handed_back, self.refused_by)
        return AttemptStart(cast(Any, self.verdict), self.attempt, self.unfinished, "a worker", "", *more)

    def succeed(self, result: JobResult, tag: str, callback: str | None = None, *, gpu_seconds: float = 0.0) -> str:
        return self._record("succeeded", result)

    def fail(
        self,
        job_id: str,
        error: OmnifleetError,
        tag: str,
        callback: str | None = None,
        letter: DeadLetter | None = None,
        *,
        gpu_seconds: float = 0.0,
    ) -> str:
        self.letters += [letter] if letter is not None else []
        return self._record("failed", error)

    def retry(self, job_id: str, error: OmnifleetError, tag: str, fault: str = "", *, gpu_seconds: float = 0.0) -> str:
        self.faults.append(fault)
        return self._record("retried", error)

    def _record(self, what: str, outcome: object) -> str:
        if self.away:
            raise BrokerUnavailable("Redis does not answer")
        self.records.append((what, outcome))
        return self.written


class FakeLeaseRenewer:
    """Keeps what it was told, in order."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.leases = SimpleNamespace(
            postpone=lambda tag, seconds: self.calls.append(("postpone", seconds)),
            recover=lambda: self.calls.append(("recover",)),
        )

    def mark_running(self, tag: str) -> None:
        self.calls.append(("run", tag))

    def mark_finishing(self, tag: str) -> None:
        self.calls.append(("finish", tag))

    def stop_renewing(self, tag: str) -> None:
        self.calls.append(("let go", tag))


class FakeStorageCheck:
    """Finds as told; a job is at fault that another worker refused before."""

    workers_fault = False

    def is_workers_fault(self, error: Exception) -> bool:
        return self.workers_fault

    def is_jobs_fault(self, refused_by: frozenset[str]) -> bool:
        return bool(refused_by)


class FakeModelCheck:
    """Finds as told, and counts successes."""

    def __init__(self) -> None:
        self.workers_fault = False
        self.successes = 0

    def is_workers_fault(self, job_id: str, error: JobFailed) -> bool:
        return self.workers_fault

    def succeeded(self) -> None:
        self.successes += 1


class FakeProgressReporter:
    """Watches nothing."""

    def tracking(self, run: JobContext) -> Any:
        return nullcontext()


class Stage:
    """Deliveries among fakes, and a Celery task to carry them."""

    def __init__(self) -> None:
        self.attempts, self.lease_renewer = FakeAttempts(), FakeLeaseRenewer()
        self.work: Callable[[JobContext], JobResult] = result_of
        self.storage_check, self.model_check = FakeStorageCheck(), FakeModelCheck()
        self.events: list[str] = []
        self.parts_deleted: list[str] = []
        jobs = SimpleNamespace(
            run=lambda run: self.work(run), delete_parts=lambda run, job_id: self.parts_deleted.append(job_id)
        )
        webhooks = WebhookSender(Callbacks.connect(SETTINGS), SETTINGS)
        self.metrics = WorkerMetrics()
        parts = [
            jobs,
            None,
            self.attempts,
            FakeProgressReporter(),
            self.lease_renewer,
            self.storage_check,
            self.model_check,
            webhooks,
            SETTINGS,
            self.metrics.jobs,
        ]
        self.deliveries = Deliveries(*cast(list[Any], parts))

    @property
    def letters(self) -> list[DeadLetter]:
        return self.attempts.letters

    def deliver(self, payload: object = PAYLOAD, job_id: str = JOB.job_id) -> JobResult:
        request = SimpleNamespace(id=job_id, expires=None, properties={"delivery_tag": TAG})
        task = SimpleNamespace(request=request, send_event=lambda name, **_: self.events.append(name))
        return run_job(cast(Any, task), cast(Any, SimpleNamespace(deliveries=self.deliveries)), payload)

    def fails_with(self, error: Exception) -> None:
        def work(run: JobContext) -> JobResult:
            raise error

        self.work = work


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_a_result_is_recorded_and_returned(stage: Stage) -> None:
    result = stage.deliver()

    assert result.text == "an answer"
    assert stage.attempts.records == [("succeeded", result)]
    assert stage.lease_renewer.calls == [("run", TAG), ("finish", TAG), ("let go", TAG)]


def test_a_permanent_error_is_recorded_and_raised_as_it_is(stage: Stage) -> None:
    error = MediaTooLong("too long", "audio", "Send less", {"limit": 10})
    stage.fails_with(error)

    with pytest.raises(MediaTooLong) as caught:
        stage.deliver()

    assert caught.value is error
    assert stage.attempts.records == [("failed", error)]


def test_a_transient_error_gives_the_message_back_for_later(stage: Stage) -> None:
    error = StorageUnavailable("away")
    stage.fails_with(error)
    stage.attempts.attempt = 2

    with pytest.raises(Reject) as caught:
        stage.deliver()

    assert caught.value.requeue is False
    assert stage.attempts.records == [("retried", error)]
    assert stage.events == ["task-retried"]
    (_, let_go, (postponed, seconds)) = stage.lease_renewer.calls
    assert (let_go, postponed) == (("let go", TAG), "postpone")
    assert 2.0 <= seconds <= 4.0


def test_a_transient_error_is_the_outcome_where_no_attempts_are_left(stage: Stage) -> None:
    error = StorageUnavailable("away")
    stage.fails_with(error)
    stage.attempts.attempt = SETTINGS.max_attempts

    with pytest.raises(StorageUnavailable) as caught:
        stage.deliver()

    assert caught.value is error
    assert stage.attempts.records == [("failed", error)]
    assert stage.events == []


def test_a_worker_that_shuts_down_gives_the_message_back_at_once_whatever_attempt_it_was(stage: Stage) -> None:
    stage.fails_with(EngineStopped("the worker shuts down"))
    stage.attempts.attempt = SETTINGS.max_attempts
    stage.deliveries.hand_back("the worker shuts down")

    with pytest.raises(Reject):
        stage.deliver()

    assert stage.lease_renewer.calls[-2:] == [("postpone", 0.0), ("recover",)]


def test_a_job_on_a_device_that_broke_goes_back_at_once_whatever_attempt_it_was(stage: Stage) -> None:
    error = DeviceFailed("the device failed")
    stage.fails_with(error)
    stage.attempts.attempt = SETTINGS.max_attempts

    with pytest.raises(Reject):
        stage.deliver()

    assert stage.attempts.records == [("retried", error)]
    assert stage.lease_renewer.calls[-2:] == [("postpone", 0.0), ("recover",)]
    assert stage.metrics.jobs.counts == {"handed_back": 1}


def test_a_job_with_which_device_after_device_broke_is_left_to_run_alone(
    stage: Stage,
) -> None:
    stage.fails_with(DeviceFailed("the device failed"))
    stage.attempts.attempt = stage.attempts.handed_back = SETTINGS.max_deliveries

    with pytest.raises(Reject):
        stage.deliver()

    assert stage.attempts.records == []
    assert stage.lease_renewer.calls == [("run", TAG), ("let go", TAG)]


def test_what_comes_to_a_worker_out_of_service_goes_back_before_it_is_started(stage: Stage) -> None:
    stage.deliveries.hand_back("its disk is full")

    with pytest.raises(Reject, match="its disk is full"):
        stage.deliver()

    assert stage.attempts.records == []
    assert stage.lease_renewer.calls[-2:] == [("postpone", 0.0), ("recover",)]
    stage.deliveries.take_again()
    assert stage.deliver().text == "an answer"


def test_what_does_not_end_in_time_is_recorded_as_handed_back(stage: Stage) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def work(run: JobContext) -> JobResult:
        begun.set()
        assert may_end.wait(300)
        run.raise_if_cancelled()
        return result_of(run)

    stage.work = work
    with ThreadPoolExecutor() as pool:
        delivery = pool.submit(stage.deliver)
        assert begun.wait(300)
        stage.deliveries.hand_back("its device failed")

        stage.deliveries.await_end(0.01)

        ((what, error),) = stage.attempts.records
        assert (what, str(error)) == ("retried", "its device failed.")
        may_end.set()
        with pytest.raises(Reject):
            delivery.result(300)
    stage.deliveries.await_end(300)


def test_an_unforeseen_error_becomes_job_failed_and_names_it(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    error = ZeroDivisionError("division by zero")
    stage.fails_with(error)
    stage.attempts.attempt = 2

    with pytest.raises(JobFailed, match="ZeroDivisionError: division by zero") as caught:
        stage.deliver()

    assert caught.value.details == {"type": "ZeroDivisionError"}
    assert caught.value.__cause__ is error
    assert stage.attempts.records == [("failed", caught.value)]
    assert "job_crashed" in [record.__dict__.get("action") for record in caplog.records]


def test_an_unforeseen_error_is_tried_once_more_on_whichever_worker_before_it_is_the_outcome(stage: Stage) -> None:
    stage.fails_with(ZeroDivisionError("division by zero"))

    with pytest.raises(Reject):
        stage.deliver()

    ((what, error),) = stage.attempts.records
    assert (what, type(error)) == ("retried", JobFailed)
    assert stage.lease_renewer.calls[-1][1] >= 1.0  # of seconds
    assert stage.metrics.jobs.counts == {"retried": 1}


def test_an_unforeseen_error_that_is_the_worker_s_fault_gives_the_job_back_whatever_attempt_it_was(
    stage: Stage,
) -> None:
    stage.fails_with(ZeroDivisionError("division by zero"))
    stage.attempts.attempt = SETTINGS.max_attempts
    stage.model_check.workers_fault = True

    with pytest.raises(Reject):
        stage.deliver()

    assert [what for what, _ in stage.attempts.records] == ["retried"]
    assert stage.lease_renewer.calls[-2:] == [("postpone", 0.0), ("recover",)]
    assert stage.metrics.jobs.counts == {"handed_back": 1}


def test_a_success_says_that_the_model_works(stage: Stage) -> None:
    stage.deliver()

    assert stage.model_check.successes == 1


@pytest.mark.parametrize(
    ("payload", "job_id"),
    [(None, JOB.job_id), ([1, 2], JOB.job_id), (PAYLOAD, "another-id")],
    ids=["nothing", "a list", "of another id"],
)
def test_what_is_no_job_of_that_id_fails_before_it_begins(stage: Stage, payload: object, job_id: str) -> None:
    with pytest.raises(InvalidMessage):
        stage.deliver(payload, job_id)

    ((what, error),) = stage.attempts.records
    assert what == "failed"
    assert isinstance(error, InvalidMessage)


def test_a_job_that_was_cancelled_before_fails_as_cancelled(stage: Stage) -> None:
    stage.attempts.verdict = "cancelled"

    with pytest.raises(JobCancelled):
        stage.deliver()

    assert stage.attempts.records[0][0] == "failed"


@pytest.mark.parametrize("verdict", ["lost", "ended"])
def test_a_late_twin_records_nothing(stage: Stage, verdict: str) -> None:
    stage.attempts.verdict = verdict

    with pytest.raises(Ignore):
        stage.deliver()

    assert stage.attempts.records == []


@pytest.mark.parametrize("written", ["lost", "ended"])
def test_a_result_that_comes_too_late_is_dropped(stage: Stage, written: str) -> None:
    stage.attempts.written = written

    with pytest.raises(Ignore):
        stage.deliver()


def test_an_outcome_that_cannot_be_recorded_comes_again(stage: Stage) -> None:
    stage.attempts.away = True

    with pytest.raises(Reject, match="cannot be recorded"):
        stage.deliver()


def test_a_job_that_workers_were_lost_with_is_dead_lettered(stage: Stage) -> None:
    stage.attempts.unfinished = SETTINGS.max_deliveries + 1
    stage.attempts.attempt = SETTINGS.max_deliveries + 1
    stage.attempts.died_alone = 2

    with pytest.raises(JobQuarantined, match="a worker"):
        stage.deliver()

    (letter,) = stage.letters
    assert (letter.job, letter.attempts) == (JOB, SETTINGS.max_deliveries)
    assert "2 of them ran it alone" in letter.reason
    assert stage.attempts.records[0][0] == "failed"


@pytest.mark.parametrize(
    ("ends_with", "deleted"), [(None, 1), (MediaTooLong("too long"), 1), (StorageUnavailable("away"), 0)]
)
def test_what_a_long_job_has_finished_is_deleted_with_its_outcome_and_not_before(
    stage: Stage, ends_with: OmnifleetError | None, deleted: int
) -> None:
    if ends_with is not None:
        stage.fails_with(ends_with)

    with suppress(OmnifleetError, Reject):
        stage.deliver()

    assert stage.parts_deleted == [JOB.job_id] * deleted


def test_nothing_is_deleted_in_the_name_of_a_message_that_is_no_job(stage: Stage) -> None:
    with pytest.raises(InvalidMessage):
        stage.deliver(None, "../results/x")

    assert stage.parts_deleted == []


def test_a_job_that_workers_were_lost_with_in_company_alone_runs(stage: Stage) -> None:
    stage.attempts.unfinished = SETTINGS.max_deliveries + 1

    assert stage.deliver().text == "an answer"

    assert stage.letters == []


@pytest.mark.parametrize("error", [StorageRefused("wrong credentials"), DiskFull("no room")])
def test_a_fault_of_the_worker_s_place_gives_the_job_back_at_once_and_counts_nothing(
    stage: Stage, error: OmnifleetError
) -> None:
    stage.storage_check.workers_fault = True
    stage.attempts.attempt = SETTINGS.max_attempts
    stage.fails_with(error)

    with pytest.raises(Reject):
        stage.deliver()

    assert (stage.attempts.records, stage.attempts.faults) == ([("retried", error)], ["worker"])
    assert stage.lease_renewer.calls[-2:] == [("postpone", 0.0), ("recover",)]
    assert stage.metrics.jobs.counts == {"handed_back": 1}


def test_what_ends_after_its_worker_is_back_in_service_was_handed_back_all_the_same(stage: Stage) -> None:
    def work(run: JobContext) -> JobResult:
        stage.deliveries.hand_back("its disk is full")
        stage.deliveries.take_again()
        run.raise_if_cancelled()
        return result_of(run)

    stage.work = work
    stage.attempts.attempt = SETTINGS.max_attempts

    with pytest.raises(Reject):
        stage.deliver()

    assert stage.attempts.faults == ["worker"]
    assert stage.deliveries._handing_back is None


def test_a_job_that_the_storage_refuses_fails_where_another_worker_agrees(stage: Stage) -> None:
    error = StorageRefused("no such rights")
    stage.attempts.refused_by = frozenset({"another"})
    stage.fails_with(error)

    with pytest.raises(StorageRefused):
        stage.deliver()

    assert stage.attempts.records == [("failed", error)]


def test_a_job_that_this_worker_alone_is_refused_goes_to_another_and_says_so(stage: Stage) -> None:
    stage.fails_with(StorageRefused("no such rights"))

    with pytest.raises(Reject):
        stage.deliver()

    assert stage.attempts.faults == ["storage"]
    assert stage.metrics.jobs.counts == {"retried": 1}


def test_a_job_that_is_refused_again_and_again_fails_at_its_last_attempt(stage: Stage) -> None:
    stage.attempts.attempt = SETTINGS.max_attempts
    stage.fails_with(StorageRefused("no such rights"))

    with pytest.raises(StorageRefused):
        stage.deliver()


def test_attempts_that_were_handed_back_do_not_count(stage: Stage) -> None:
    stage.attempts.attempt, stage.attempts.handed_back = SETTINGS.max_attempts, 1
    stage.fails_with(StorageUnavailable("away"))

    with pytest.raises(Reject):
        stage.deliver()

    assert stage.attempts.faults == [""]


def test_a_disk_without_room_is_said_as_such(stage: Stage) -> None:
    stage.attempts.attempt = SETTINGS.max_attempts
    stage.fails_with(OSError(errno.ENOSPC, "No space left on device"))

    with pytest.raises(DiskFull, match="No space left"):
        stage.deliver()
