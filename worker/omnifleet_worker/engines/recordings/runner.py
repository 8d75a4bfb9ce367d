"""Runs a model that works through recordings on the step engine: each stretch is a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...engine.request import Request
from ...models.recording_model import RecordingInputs, RecordingModel, RecordingOutcome


class RecordingRunner:
    """See `ModelRunner`.

    Args:
        model: works through stretches, one at a time.
    """

    def __init__(self, model: RecordingModel) -> None:
        self._model = model
        self._outcomes: dict[Request, RecordingOutcome] = {}

    def prepare(self, request: Request) -> None:
        """Nothing comes before the step."""

    def advance(self, batch: Sequence[Request]) -> None:
        """Work through a stretch: the engine steps one at a time."""
        (request,) = batch
        assert isinstance(request.inputs, RecordingInputs)
        self._outcomes[request] = self._model.work(request.inputs)
        request.step = 1

    def is_done(self, request: Request) -> bool:
        """Whether the stretch has its outcome."""
        return request in self._outcomes

    def finish(self, batch: Sequence[Request]) -> list[Any]:
        """The outcomes, as the model gave them."""
        return [self._outcomes[request] for request in batch]

    def release(self, request: Request) -> None:
        """Forget the outcome, if there is one."""
        self._outcomes.pop(request, None)
