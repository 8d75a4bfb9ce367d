"""Jobs whose right outcome is known."""

from __future__ import annotations

import io
import random
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import soundfile
from omnifleet import Client, JobHandle, JobQuarantined, OmnifleetError
from support.data.tones import SAMPLE_RATE, SEEDS, tone

STEPS = (1, 12)
"""Least and most steps of a job, at a twentieth of a second or more: some are over soon, some are hit by faults."""
CLIP_SECONDS = 1
DEADLINE = 3600
"""Seconds after which a job may fail for being late: far beyond any run, and beyond what workers' clocks are wrong."""


@dataclass(frozen=True)
class WorkloadJob(ABC):
    """A job that can be submitted again until it is accepted, and whose result can be checked."""

    key: str
    """Idempotency key, and the text of the question or prompt."""
    steps: int
    seed: int
    priority: Literal["interactive", "batch"]

    @abstractmethod
    def submit(self, omni: Client) -> JobHandle[Any]:
        """Submit it. Raises BrokerUnavailable where it was not accepted."""

    @abstractmethod
    def fault(self, result: Any) -> str | None:
        """Tell what is wrong with the result; None where it is right."""

    def fault_of_error(self, error: OmnifleetError) -> str | None:
        """Tell what is wrong where the job failed; None where it should have."""
        return f"{type(error).__name__}: {error}"


class Question(WorkloadJob):
    """A question whose right answer repeats it."""

    def submit(self, omni: Client) -> JobHandle[Any]:
        """See `WorkloadJob`."""
        return omni.understand(
            question=self.key,
            max_new_tokens=self.steps,
            idempotency_key=self.key,
            priority=self.priority,
            deadline=DEADLINE,
        )

    def fault(self, result: Any) -> str | None:
        """See `WorkloadJob`."""
        asked = str(result.text).rpartition(" by ")[0]
        return None if asked == self.key else f"it answers {result.text!r}"


class Poison(Question):
    """A question that kills every worker which runs it, and is to be put aside for it."""

    @classmethod
    def number(cls, number: int) -> Poison:
        """Make the next one."""
        return cls(key=f"die, worker {number}", steps=4, seed=0, priority="interactive")

    def fault(self, result: Any) -> str | None:
        """See `WorkloadJob`."""
        return f"a poison job succeeded with {result.text!r}"

    def fault_of_error(self, error: OmnifleetError) -> str | None:
        """See `WorkloadJob`."""
        return None if isinstance(error, JobQuarantined) else super().fault_of_error(error)


class Clip(WorkloadJob):
    """A clip whose right sound is the tone of its seed."""

    def submit(self, omni: Client) -> JobHandle[Any]:
        """See `WorkloadJob`."""
        return omni.generate(
            "t2a",
            self.key,
            seconds=CLIP_SECONDS,
            steps=self.steps,
            seed=self.seed,
            idempotency_key=self.key,
            priority=self.priority,
            deadline=DEADLINE,
        )

    def fault(self, result: Any) -> str | None:
        """See `WorkloadJob`. Reading compares the file's SHA-256 with the record's."""
        heard, rate = soundfile.read(io.BytesIO(result.audio.read()), dtype="int16")
        expected = (tone(self.seed, CLIP_SECONDS * SAMPLE_RATE).T * 32_767).astype(np.int16)
        if rate != SAMPLE_RATE or heard.shape != expected.shape:
            return f"the clip has {heard.shape} samples at {rate} Hz"
        # The worker rounds with torch.
        off = int(np.abs(heard.astype(int) - expected.astype(int)).max())
        return None if off <= 1 else f"the clip is not its seed's tone, off by {off}"


def random_job(key: str, rng: random.Random) -> WorkloadJob:
    """Draw a random job: half are questions, half clips."""
    kind = rng.choice((Question, Clip))
    steps, seed = rng.randint(*STEPS), rng.randrange(SEEDS)
    return kind(key=key, steps=steps, seed=seed, priority=rng.choice(("interactive", "batch")))
