"""Runs a model that speaks in pieces on the step engine: each piece is a step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from omnifleet_shared.errors import JobFailed

from ...engine.request import Request
from ...models.speech_model import Samples, SpeechInputs, SpeechModel


@dataclass(eq=False)
class _Speech:
    """A text that is being said."""

    pieces: Iterator[Samples]
    is_over: bool = False


class SpeechRunner:
    """See `ModelRunner`.

    Args:
        model: speaks.
    """

    def __init__(self, model: SpeechModel) -> None:
        self._model = model
        self._speeches: dict[Request, _Speech] = {}

    def prepare(self, request: Request) -> None:
        """Begin a text; nothing of it is said yet."""
        self._speeches[request] = self._begin(request)

    def advance(self, batch: Sequence[Request]) -> None:
        """Say the next piece of a text: the engine steps one at a time."""
        (request,) = batch
        speech = self._speeches[request]
        try:
            piece = next(speech.pieces, None)
        except Exception:
            # An iterator that raised has ended: where the request is tried again, for want of memory, it begins anew.
            self._speeches[request], request.step = self._begin(request), 0
            raise
        if piece is None:
            speech.is_over = True
        elif piece.size:
            request.said.append(piece)
            request.step = min(request.step + 1, request.steps)

    def is_done(self, request: Request) -> bool:
        """Whether all was said."""
        return self._speeches[request].is_over

    def finish(self, batch: Sequence[Request]) -> list[Any]:
        """Join what was said, float32 [1, n]. Raises JobFailed where that is nothing, or no numbers."""
        return [_join(request.said) for request in batch]

    def release(self, request: Request) -> None:
        """Forget the text, said or not."""
        speech = self._speeches.pop(request, None)
        if speech is not None and (close := getattr(speech.pieces, "close", None)) is not None:
            close()

    def _begin(self, request: Request) -> _Speech:
        assert isinstance(request.inputs, SpeechInputs)
        request.said.clear()
        return _Speech(self._model.speak(request.inputs))


def _join(said: Sequence[Samples]) -> Samples:
    if not said:
        raise JobFailed("the model said nothing", "text", "Try other words, or another model")
    samples = np.concatenate(said).astype(np.float32, copy=False)
    if not np.isfinite(samples).all():
        raise JobFailed("the model made samples that are no numbers", None, "Try another seed")
    return samples[None]
