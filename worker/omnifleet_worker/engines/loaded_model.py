"""What a worker needs of the model that it runs, whichever engine it is of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..engine.limits import EngineLimits
from ..engine.request import Inputs
from ..engine.runner import ModelRunner
from ..jobs.tasks import JobModel


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model that an engine's `load` has made ready.

    Attributes:
        model: its capabilities, and what it makes of a job (`run`).
        runner: its tensor side, which the step engine steps.
        limits: of the step engine.
        probes: small requests to find out whether it works at all.
        why_unwell: returns why the worker can do no job for now, if so, as where a server does not answer; called every
            few seconds. None where there is nothing to ask.
        close: lets go of what it holds open.
    """

    model: JobModel
    runner: ModelRunner
    limits: EngineLimits
    probes: Sequence[Inputs]
    why_unwell: Callable[[], str | None] | None = None
    close: Callable[[], None] = lambda: None
