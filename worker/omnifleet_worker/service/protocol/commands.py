"""Celery's remote commands (`celery control`, `inspect`): carried out as they are meant, or refused with a reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from celery.platforms import EX_OK
from celery.signals import worker_shutting_down
from celery.worker import control
from celery.worker import state as worker_state
from celery.worker.control import Panel, nok, ok
from omnifleet_shared.errors import OmnifleetError, UnknownJob
from omnifleet_shared.schema.base import JobId
from pydantic import TypeAdapter, ValidationError

from ..worker import FleetWorker

REFUSED: Mapping[str, str] = {
    "pool_grow": "a worker holds as many jobs as at its start: start it anew with another OMNIFLEET_CONCURRENCY",
    "pool_shrink": "a worker holds as many jobs as at its start: start it anew with another OMNIFLEET_CONCURRENCY",
    "pool_restart": "its threads hold no code of their own: stop the worker, and start another",
    "autoscale": "one process is one GPU: start more workers, or fewer",
    "rate_limit": "a job that waits in one worker is one that an idle worker cannot have: limit the producers, with "
    "OMNIFLEET_MAX_UNFINISHED or OMNIFLEET_MAX_QUEUED",
    "time_limit": "threads cannot be ended: send jobs with a deadline",
    "revoke_by_stamped_headers": "jobs bear no stamps: revoke them by their ids",
}
"""Why a worker does not do what the command says."""
_JOB_ID: TypeAdapter[str] = TypeAdapter(JobId)


def register_commands() -> None:
    """Put these commands in the place of Celery's own, for all workers of this process."""
    done = (revoke, terminate, shutdown, cancel_consumer, add_consumer, active_queues)
    named = {work.__name__: work for work in done} | {name: _refusal(name, why) for name, why in REFUSED.items()}
    for name, work in named.items():
        known = Panel.meta[name]
        options = {"args": known.args, "signature": known.signature, "variadic": known.variadic}
        Panel.register(name=name, type=known.type, help=work.__doc__ or known.help, **options)(work)


def revoke(state: Any, task_id: str | Sequence[str], **_: Any) -> dict[str, Any]:
    """Cancel jobs by id, waiting or running ones, whatever worker they are with."""
    given = [task_id] if isinstance(task_id, str) else list(task_id or ())
    try:
        job_ids = [_JOB_ID.validate_python(one) for one in dict.fromkeys(given)]
        ended = [one for one in job_ids if not _cancel(_fleet(state), one)]
    except (ValidationError, OmnifleetError) as error:
        return dict(nok(f"not recorded: {error}"))
    words = [f"{one} had ended before" if one in ended else f"{one} is to be cancelled" for one in job_ids]
    return dict(ok("; ".join(words)))


def terminate(state: Any, task_id: str | Sequence[str], **_: Any) -> dict[str, Any]:
    """Cancel jobs by id, as `revoke` does; no signal is sent to any process."""
    return revoke(state, task_id)


def shutdown(state: Any, **_: Any) -> dict[str, Any]:
    """Shut workers down as SIGTERM does: running jobs have their grace, and what is left then is handed back."""
    worker_shutting_down.send(sender=state.hostname, sig="control shutdown", how="Warm", exitcode=EX_OK)
    worker_state.should_stop = EX_OK
    return dict(ok(f"stops: running jobs have {_fleet(state).settings.grace:g} s to finish"))


def cancel_consumer(state: Any, queue: str, **_: Any) -> dict[str, Any]:
    """Take no more jobs from the worker's queue; running ones finish, and `add_consumer` begins again."""
    return _with_own_queue(state, queue, _fleet(state).lease_renewer.cancel_consumer, "takes no more jobs")


def add_consumer(state: Any, queue: str, **_: Any) -> dict[str, Any]:
    """Take jobs again from the worker's queue after `cancel_consumer`."""
    return _with_own_queue(state, queue, _fleet(state).lease_renewer.add_consumer, "takes jobs")


def active_queues(state: Any) -> list[dict[str, Any]]:
    """List the queue that a worker takes jobs from; none after `cancel_consumer`."""
    return [] if _fleet(state).lease_renewer.is_cancelled else list(control.active_queues(state))


def _fleet(state: Any) -> FleetWorker:
    fleet: FleetWorker = state.app.fleet
    return fleet


def _cancel(fleet: FleetWorker, job_id: str) -> bool:
    """Record a cancellation; False where the job has ended. One that nothing is recorded of yet may still wait."""
    try:
        if fleet.states.read(job_id).status.is_final:
            return False
    except UnknownJob:
        pass  # sent by another Celery app, which records nothing
    fleet.states.request_cancel(job_id)
    return True


def _with_own_queue(state: Any, queue: str, work: Callable[[], None], what: str) -> dict[str, Any]:
    own = _fleet(state).settings.queue
    if queue != own:
        return dict(nok(f"this worker serves {own} alone: start another with OMNIFLEET_QUEUE={queue}"))
    work()
    return dict(ok(f"{what} from {queue}"))


def _refusal(name: str, reason: str) -> Callable[..., dict[str, Any]]:
    def refuse(_state: Any, **_: Any) -> dict[str, Any]:
        return dict(nok(f"{name} is not done here: {reason}"))

    return refuse
