"""The choice of a job's model: a function of the job and of what is known of the models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from omnifleet_shared.errors import InvalidJob, NoModelFor, TaskNotSupported
from omnifleet_shared.schema.capabilities import Capabilities
from omnifleet_shared.schema.jobs import Job
from omnifleet_shared.schema.results import Route


@dataclass(frozen=True, kw_only=True)
class KnownModel:
    """What is known of a model at one moment."""

    name: str
    queue: str
    capabilities: Sequence[Capabilities]
    """As its workers report them, several where they differ; else as they ship; empty where nobody knows."""
    live: bool
    """Whether a worker of it is ready."""
    preferred: bool
    """Whether `OMNIFLEET_MODELS` names it: only those are chosen unasked."""

    def refusals(self, job: Job) -> list[InvalidJob]:
        """List why it cannot do a job; empty where whichever of its workers gets the job can do it."""
        return [refusal for one in self.capabilities for refusal in one.refusals(job)]

    def can_do(self, job: Job) -> bool:
        """Whether it is known to be able to do a job."""
        return bool(self.capabilities) and not self.refusals(job)

    def route(self, reason: str) -> Route:
        """Make the route to it."""
        known = self.capabilities[0] if self.capabilities else None
        return Route(
            model=self.name,
            queue=self.queue,
            reason=reason,
            revision=None if known is None else known.revision,
            licence=None if known is None else known.licence,
            live=self.live,
        )


def model_record(model: KnownModel) -> dict[str, Any]:
    """Make the record of a model for programs: its queue, licence and tasks, and whether a worker of it is ready."""
    known = model.capabilities[0] if model.capabilities else None
    return {
        "name": model.name,
        "queue": model.queue,
        "live": model.live,
        "preferred": model.preferred,
        "licence": known and known.licence,
        "commercial_use": bool(model.capabilities) and all(one.commercial for one in model.capabilities),
        "revision": known and known.revision,
        "tasks": {} if known is None else {name: one.model_dump(mode="json") for name, one in known.tasks.items()},
        "cloning": known is not None and known.cloning,
        "streaming": known is not None and known.streaming,
        "editing": known is not None and known.editing,
        "speed": known is not None and known.speed,
        "timed": known is not None and known.timed,
        "adapters": known is not None and known.adapters,
        "seeded": known and known.seeded,
        "sample_rate": known and known.sample_rate,
        "voice_seconds": known and known.voice_seconds,
        "needs_transcript": known and known.needs_transcript,
    }


def route(job: Job, models: Sequence[KnownModel], *, pinned: str | None = None, wait: bool = True) -> Route:
    """Choose the model of a job: the first that can do it, those with a ready worker before the others.

    Args:
        job: checked already, but for what a model decides.
        models: all that are known, in the order of preference.
        pinned: name of the model that the caller asked for; that one or none is chosen.
        wait: whether the job may wait for a worker.

    Raises:
        NoModelFor: no model that can do it has a ready worker, and `wait` is false.
        InvalidJob: no model of the pinned name is known.
        LicenceRefused, TaskNotSupported, LanguageNotSupported, InvalidJob: no model can do it. The error is that of the
            model that comes nearest; `details["refused"]` says why each was refused, and `details["models"]` names
            those that could, had they been asked for.
    """
    asked = [one for one in models if (one.preferred if pinned is None else one.name == pinned)]
    if not asked:
        raise _unknown(pinned, models)
    able = [one for one in asked if one.can_do(job) or (pinned is not None and not one.capabilities)]
    if not able:
        raise _refusal(job, asked, models)
    if not wait and not any(one.live for one in able):
        raise _nobody_ready([one.name for one in able])
    chosen = next((one for one in able if one.live), able[0])
    return chosen.route(_reason(job, chosen, asked, pinned))


def _reason(job: Job, chosen: KnownModel, asked: Sequence[KnownModel], pinned: str | None) -> str:
    waits = "" if chosen.live else "; none of its workers is ready yet, and the job waits for one"
    if pinned is not None:
        return f"asked for by name{waits}"
    passed = asked[: asked.index(chosen)]
    why = [f"; {one.name}: {_why_not(job, one) or 'no worker of it is ready'}" for one in passed]
    return f"the first of {', '.join(one.name for one in asked)} that can do it{waits}{''.join(why)}"[:1000]


def _why_not(job: Job, model: KnownModel) -> str:
    if not model.capabilities:
        return "none of its workers has said what it can do"
    return "; ".join(dict.fromkeys(refusal.problem for refusal in model.refusals(job)))


def _unknown(pinned: str | None, models: Sequence[KnownModel]) -> InvalidJob:
    known = ", ".join(one.name for one in models)
    problem = f"no model {str(pinned)[:80]!r} is known here"
    return InvalidJob(problem, "model", f"Known are {known}; name others in OMNIFLEET_MODELS, and start a worker")


def _nobody_ready(names: Sequence[str]) -> NoModelFor:
    problem = f"no worker is ready of {' or '.join(names)}, which can do the job"
    return NoModelFor(problem, "wait", "Start one, or let the job wait", {"models": list(names)})


def _refusal(job: Job, asked: Sequence[KnownModel], models: Sequence[KnownModel]) -> InvalidJob:
    """The error of the model that comes nearest: it has the task, and least else speaks against it."""
    told = [one for one in asked if one.capabilities]
    able = [one.name for one in models if one not in asked and one.can_do(job)]
    refused = {one.name: _why_not(job, one) for one in asked}
    if not told:
        problem = "none of the fleet's workers has said what it can do"
        return TaskNotSupported(problem, "task", "Start a worker", {"refused": refused, "models": able})
    nearest = min(told, key=lambda one: _distance(one.refusals(job)))
    first = nearest.refusals(job)[0]
    others = [f"{name}: {why}" for name, why in refused.items() if name != nearest.name]
    remedy = f'{" or ".join(able)} can: ask for model="{able[0]}", or name it in OMNIFLEET_MODELS' if able else ""
    details = first.details | {"refused": refused, "models": able or first.details.get("models", [])}
    return type(first)("; ".join([first.problem, *others]), first.field, remedy or first.remedy, details)


def _distance(refusals: Sequence[InvalidJob]) -> tuple[bool, int]:
    return any(isinstance(one, TaskNotSupported) for one in refusals), len(refusals)
