"""Whether answers written while the device takes steps of clips cost less than both one after the other."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from models import synchronise
from omnifleet_worker.engine.model_runner import AudioOmniRunner
from omnifleet_worker.engine.request import Request
from omnifleet_worker.engine.runner import LaunchedWork

from diffusion.requests import answer, clip
from diffusion.steps import AHEAD, ENOUGH_STEPS, prepared

ENOUGH_TOKENS = 400


@dataclass(frozen=True)
class Overlap:
    """Seconds of as many steps of clips and as many tokens as take about as long as each other alone."""

    clips: int
    answers: int
    steps: int
    tokens: int
    steps_alone: float
    tokens_alone: float
    together: float

    @property
    def ratio(self) -> float:
        """Time together, of that one after the other; above 0.9 the engine had better take turns, as it does."""
        return self.together / (self.steps_alone + self.tokens_alone)


def measure_overlap(runner: AudioOmniRunner, clips: int, answers: int, steps: int) -> Overlap:
    """Measure so many steps of so many clips, and tokens of so many answers, alone and together."""
    chats = [answer(number, ENOUGH_TOKENS) for number in range(answers)]
    batch = [clip(number, ENOUGH_STEPS) for number in range(clips)]
    with prepared(runner, batch), prepared(runner, chats):
        _run(runner, batch, 2, chats, 2)  # graphs, caches
        steps_alone = _run(runner, batch, steps, chats, 0)
        token = _run(runner, batch, 0, chats, 4) / 4
        tokens = max(1, min(ENOUGH_TOKENS // 4, round(steps_alone / token)))
        tokens_alone = _run(runner, batch, 0, chats, tokens)
        together = _run(runner, batch, steps, chats, tokens)
    return Overlap(clips, answers, steps, tokens, steps_alone, tokens_alone, together)


def _run(runner: AudioOmniRunner, clips: Sequence[Request], steps: int, chats: Sequence[Request], tokens: int) -> float:
    """Seconds, launching steps ahead of the device and writing tokens meanwhile, as an engine without turns would."""
    device, launched = runner.pipeline.device, deque[LaunchedWork]()
    synchronise(device)
    start = time.perf_counter()
    while steps or tokens:
        while launched and launched[0].done:
            launched.popleft()
        if steps and len(launched) < AHEAD:
            launched.append(runner.advance(clips))
            steps -= 1
        elif tokens:
            runner.advance([chat for chat in chats if not runner.is_done(chat)] or chats)
            tokens -= 1
        else:
            launched.popleft().wait()
    synchronise(device)
    return time.perf_counter() - start
