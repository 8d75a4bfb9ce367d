"""Jobs whose right outcome is known."""

from __future__ import annotations

import io
import random
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import soundfile
from omnifleet import Client, JobHandle
from support.data.tones import SAMPLE_RATE, SEEDS, tone

STEPS = (10, 60)
"""Least and most steps of a job, at a tenth of a second or so: long enough to be hit by a fault, or several."""
CLIP_SECONDS = 1


@dataclass(frozen=True)
class Order(ABC):
    """A job that can be submitted again until it was taken, and its outcome judged."""

    key: str
    """Of idempotency; also what is asked."""
    steps: int
    seed: int
    priority: Literal["interactive", "batch"]

    @abstractmethod
    def submit(self, omni: Client) -> JobHandle[Any]:
        """Send it. Raises BrokerUnavailable where it was not taken."""

    @abstractmethod
    def fault(self, result: Any) -> str | None:
        """What is wrong with the result; None where it is right."""


class Question(Order):
    """The answer names the question."""

    def submit(self, omni: Client) -> JobHandle[Any]:
        """See `Order`."""
        return omni.understand(
            question=self.key, max_new_tokens=self.steps, idempotency_key=self.key, priority=self.priority
        )

    def fault(self, result: Any) -> str | None:
        """See `Order`."""
        asked = str(result.text).rpartition(" by ")[0]
        return None if asked == self.key else f"it answers {result.text!r}"


class Clip(Order):
    """The sound is the seed's tone."""

    def submit(self, omni: Client) -> JobHandle[Any]:
        """See `Order`."""
        return omni.generate(
            "t2a",
            self.key,
            seconds=CLIP_SECONDS,
            steps=self.steps,
            seed=self.seed,
            idempotency_key=self.key,
            priority=self.priority,
        )

    def fault(self, result: Any) -> str | None:
        """See `Order`. Reading compares the file's SHA-256 with the record's."""
        heard, rate = soundfile.read(io.BytesIO(result.audio.read()), dtype="int16")
        expected = (tone(self.seed, CLIP_SECONDS * SAMPLE_RATE).T * 32_767).astype(np.int16)
        if rate != SAMPLE_RATE or heard.shape != expected.shape:
            return f"the clip has {heard.shape} samples at {rate} Hz"
        # The worker rounds with torch.
        off = int(np.abs(heard.astype(int) - expected.astype(int)).max())
        return None if off <= 1 else f"the clip is not its seed's tone, off by {off}"


def draw(key: str, luck: random.Random) -> Order:
    """A random order: half are questions, half clips."""
    kind = luck.choice((Question, Clip))
    steps, seed = luck.randint(*STEPS), luck.randrange(SEEDS)
    return kind(key=key, steps=steps, seed=seed, priority=luck.choice(("interactive", "batch")))
