"""What the engine is asked for. Host side only: no torch."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from omnifleet_shared.errors import DeadlineExceeded, JobCancelled, OmnifleetError
from omnifleet_shared.schema.jobs import Priority

from ..models.audio_omni.chat import Chat
from ..models.speech_model import SpeechInputs

if TYPE_CHECKING:
    from ..models.audio_omni.adapters.low_rank import AppliedAdapter

Kind = Literal["diffusion", "chat", "speech"]
Solver = Literal["euler", "multistep"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Inpainting:
    """Audio of which a part is made anew, so that it fits the rest."""

    source: np.ndarray
    """float32 [2, n] at 44.1 kHz; what comes after it in the window is silence."""
    start: int
    """First sample to make anew; whole latent frames of 2,048 samples are."""
    end: int
    """One past the last."""


@dataclass(frozen=True, kw_only=True)
class DiffusionInputs:
    """One clip to sample: an 11 s window (docs/model.md, "Conditioning" and "Sampling")."""

    prompt: Chat
    speech: str | None = None
    """What is to be said; the learned empty feature where nothing is."""
    audio: np.ndarray | None = None
    """Source of an edit or voice to speak with: mono float32 at 44.1 kHz."""
    video: np.ndarray | None = None
    """What the sound keeps time with: uint8 [T, 224, 224, 3], 25 frames a second."""
    inpainting: Inpainting | None = None
    """What of the clip is known; nothing where absent."""
    steps: int
    guidance: float
    seed: int
    adapter: AppliedAdapter | None = None
    """What the transformer learned besides its weights; nothing where absent."""
    solver: Solver = "euler"
    """Euler's steps, as the published model takes them, or second-order ones, of which fewer will do."""


@dataclass(frozen=True, kw_only=True)
class ChatInputs:
    """One answer to write."""

    chat: Chat
    max_new_tokens: int
    temperature: float
    seed: int


Inputs = DiffusionInputs | ChatInputs | SpeechInputs


@dataclass(eq=False, kw_only=True)
class Request:
    """A place in the engine, from submission to outcome. Written by the engine's thread, read by any."""

    inputs: Inputs
    priority: Priority = "interactive"
    deadline: float | None = None
    """Unix time after which the outcome is of no use."""
    step: int = 0
    """Steps or tokens done."""
    most_cost: int | None = None
    """Bytes of the device's memory that it holds at most; None where that cannot be told before it is prepared."""
    cost: int = 0
    """Bytes that it holds; known once it is prepared."""
    cancelled: OmnifleetError | None = None
    """Why it was cancelled, if it was."""
    outcome: Future[Any] = field(default_factory=Future)
    """float32 samples [2, n] of a clip, the text of an answer, or float32 samples [1, n] of a text that was said."""
    draft: Callable[[], str] = str
    """Reads an answer as far as it is written; may be called by any thread."""
    begun: tuple[int, ...] = ()
    """Tokens of an answer that an earlier attempt wrote: the thinker reads them and goes on behind."""
    written: Callable[[], tuple[int, ...]] | None = None
    """Reads the tokens of an answer, `begun` included, by any thread; None before it is prepared, and where the model
    has none that it could go on behind."""
    may_reach: int | None = None
    """Steps or tokens after which it waits, for the others of its job to be kept, say; None for no such wait."""
    wake: Callable[[], None] = lambda: None
    """Tells the engine that the request need not wait any longer."""
    submitted_at: float = field(default_factory=time.monotonic)
    started_at: float | None = None
    """When the first step could begin: admitted and conditioned."""
    device_seconds: float = 0.0
    """Its share of the device's time: of a call of the model for several requests, an equal part for each."""

    @property
    def kind(self) -> Kind:
        """Requests of one kind advance together."""
        if isinstance(self.inputs, SpeechInputs):
            return "speech"
        return "diffusion" if isinstance(self.inputs, DiffusionInputs) else "chat"

    @property
    def steps(self) -> int:
        """Steps to take, or the most tokens or pieces of speech that may come."""
        match self.inputs:
            case DiffusionInputs(steps=steps) | SpeechInputs(most_steps=steps) | ChatInputs(max_new_tokens=steps):
                return steps

    @property
    def text_so_far(self) -> str:
        """What an answer will begin with in any case: without space at its ends, and without half a character."""
        return self.draft().rstrip("\N{REPLACEMENT CHARACTER}").strip()

    @property
    def is_held(self) -> bool:
        """Whether it takes no step before it is allowed to."""
        return self.may_reach is not None and self.step >= self.may_reach

    def allow(self, step: int | None) -> None:
        """Let it come so far and then wait; None lets it come to its end."""
        if step != self.may_reach:
            self.may_reach = step
            self.wake()

    def cancel(self, reason: OmnifleetError | None = None) -> None:
        """Ask for the request to be dropped at the next step boundary, with JobCancelled or another reason."""
        self.cancelled = reason or JobCancelled("the job was cancelled")

    def succeed(self, outcome: object) -> None:
        """Give the request its outcome, unless it has one."""
        with suppress(InvalidStateError):
            self.outcome.set_result(outcome)

    def fail(self, error: OmnifleetError) -> None:
        """Give the request its error, unless it has an outcome."""
        with suppress(InvalidStateError):
            self.outcome.set_exception(error)

    @property
    def least_steps_left(self) -> int:
        """Steps that are certain to be needed yet; an answer may end with any token, speech with any piece."""
        return self.steps - self.step if self.kind == "diffusion" else 0

    def refusal(self, now: float, least_seconds: float = 0.0) -> OmnifleetError | None:
        """Why nobody wants the outcome any more, if so.

        Args:
            now: Unix time.
            least_seconds: that the steps left take in any case.
        """
        if self.cancelled is not None:
            return self.cancelled
        if self.deadline is None or now + least_seconds <= self.deadline:
            return None
        if now > self.deadline:
            problem = f"the deadline passed at step {self.step} of {self.steps}"
        else:
            left = f"{self.least_steps_left} of {self.steps} steps are left, which take {least_seconds:.1f} s at least"
            problem = f"the deadline is in {self.deadline - now:.1f} s, and {left}"
        return DeadlineExceeded(problem, "deadline", "Allow more time, ask for fewer steps, or for quality 'fast'")
