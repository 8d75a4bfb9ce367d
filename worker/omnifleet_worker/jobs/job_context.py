"""One attempt at one job: its requests to the engine, its progress, its timings and its cancellation."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from omnifleet_shared.errors import DeadlineExceeded, JobCancelled, OmnifleetError
from omnifleet_shared.observability import tracing as traces
from omnifleet_shared.schema.jobs import Job, UnderstandJob
from omnifleet_shared.schema.results import Progress, Timings

from ..engine.engine import Engine
from ..engine.request import ChatInputs, DiffusionInputs, Inpainting, Inputs, Request
from ..models.audio_omni.chat import Chat
from ..models.audio_omni.sampling import SAMPLE_RATE
from ..models.recording_model import RecordingInputs
from ..models.speech_model import SpeechInputs
from ..observability.log_context import Stage as LoggedStage
from ..observability.log_context import in_stage
from .parts.job_parts import JobParts
from .parts.requests_in_turn import RequestsInTurn
from .progress import StepCount
from .streaming.job_stream import INTERVAL, JobStream

if TYPE_CHECKING:
    from ..models.audio_omni.adapters.low_rank import AppliedAdapter

logger = logging.getLogger(__name__)

Stage = Literal["fetched", "decoded", "conditioned", "sampled", "encoded", "stored"]
LOGGED_AS: dict[Stage, LoggedStage] = {
    "fetched": "fetch",
    "decoded": "decode",
    "conditioned": "condition",
    "sampled": "steps",
    "encoded": "encode",
    "stored": "store",
}
"""The stage in log lines and traces for each timed stage; all that the engine does is `steps` there."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A window of the model to sample for a job, in the job's steps and with its guidance."""

    prompt: Chat
    speech: str | None = None
    """Text to speak; None for a clip without speech."""
    audio: np.ndarray | None = None
    """Audio prompt: mono float32 at 44.1 kHz."""
    video: np.ndarray | None = None
    """Frames that the sound follows: uint8 [T, 224, 224, 3], 25 frames a second."""
    inpainting: Inpainting | None = None
    """The part of the clip that is known already; None where all is new."""
    index: int = 0
    """Number of the window in the job, added to its seed."""


class JobContext:
    """Runs one attempt on the job's thread; the progress reporter's thread reads `progress` and may `cancel`.

    Args:
        job: what to do.
        engine: runs its requests.
        attempt: its number, from 1.
        tag: of the lease that it runs under.
        seconds_left: before the job's deadline; by this machine's clock where it is not given.
    """

    def __init__(
        self, job: Job, engine: Engine, *, attempt: int = 1, tag: str = "", seconds_left: float | None = None
    ) -> None:
        if seconds_left is None and job.deadline is not None:
            seconds_left = job.deadline.timestamp() - time.time()
        self._deadline = None if seconds_left is None else time.monotonic() + seconds_left
        self.job = job
        self.attempt = attempt
        self.tag = tag
        """Of the lease that the attempt runs under."""
        self.stream: JobStream | None = None
        """Takes the parts of a streamed job as they are done; None for any other."""
        self.parts: JobParts | None = None
        """Finished windows and parts, of this attempt and earlier ones; without them the job starts anew each time."""
        self.adapter: AppliedAdapter | None = None
        """What all clips of the job are sampled with; None where it names none."""
        self.gpu_seconds = 0.0
        """The device's time that requests of the job took, of those that have ended."""
        self.resumed_from = 0
        """Windows and parts of earlier attempts that were taken over."""
        self._engine = engine
        self._requests: Sequence[Request] = ()
        self._steps = StepCount()
        self._cancelled: OmnifleetError | None = None
        self._span: Any = None
        self._reported_step = 0
        queued = (datetime.now(UTC) - job.submitted_at).total_seconds()
        self._spent: dict[str, float] = {"queued": max(0.0, queued)}  # clocks of two machines may disagree

    @property
    def timings(self) -> Timings:
        """Seconds spent in each stage so far."""
        return Timings.model_validate(self._spent)

    @property
    def seconds_spent(self) -> Mapping[str, float]:
        """Those of `timings` that are not 0."""
        return self._spent

    def cancel(self, reason: OmnifleetError | None = None) -> None:
        """Stop at the next stage or engine step, with JobCancelled or another reason."""
        self._cancelled = reason or JobCancelled("the job was cancelled")
        for request in self._requests:
            request.cancel(self._cancelled)

    def progress(self) -> Progress:
        """Return steps of all clips, or tokens of the answer, done of those planned; zeros before. It only grows."""
        return self._steps.progress()

    def report(self) -> Progress:
        """Return the progress, and add it to the trace where it has changed."""
        progress = self.progress()
        if progress.step != self._reported_step:
            self._reported_step = progress.step
            traces.add_event(self._span, "progress", step=progress.step, steps=progress.steps)
        return progress

    def plan(self, clips: int) -> None:
        """Announce the number of clips where they are not all sampled in one call."""
        assert not isinstance(self.job, UnderstandJob)
        self.plan_steps(clips, self.job.steps)

    def plan_steps(self, parts: int, steps: int) -> None:
        """Announce the number of parts, and of the steps of each."""
        self._steps.expect(parts * steps)
        self.expect_parts(parts)

    def expect_parts(self, count: int) -> None:
        """Announce the number of clips or answers where they are not all asked for in one call: several are kept."""
        if count > 1 and self.parts is not None:
            self.parts.expect_more()

    def raise_if_cancelled(self) -> None:
        """Raise the reason of a cancellation, or DeadlineExceeded once the deadline has passed."""
        if self._cancelled is not None:
            raise self._cancelled
        if self._seconds_left() < 0:
            raise DeadlineExceeded("the deadline passed before the result was there", "deadline", "Allow more time")

    def raise_if_too_late(self) -> None:
        """Raise DeadlineExceeded where not even one clip's steps fit in before the deadline."""
        if isinstance(self.job, UnderstandJob):
            return
        least = self._engine.least_seconds("diffusion", self.job.steps)
        left = self._seconds_left()
        if least > left:
            problem = f"{self.job.steps} steps take {least:.1f} s at least, and it is in {left:.1f} s"
            raise DeadlineExceeded(problem, "deadline", "Allow more time, ask for fewer steps, or for quality 'fast'")

    def _seconds_left(self) -> float:
        return math.inf if self._deadline is None else self._deadline - time.monotonic()

    @contextmanager
    def stage(self, name: Stage) -> Iterator[None]:
        """Add the time of the block to a stage."""
        self.raise_if_cancelled()
        start = time.monotonic()
        try:
            with in_stage(LOGGED_AS[name]):
                yield
        finally:
            self._count(name, time.monotonic() - start)

    def ask(self, chat: Chat, max_new_tokens: int = 512) -> str:
        """Return the thinker's answer. Raises the engine's typed errors."""
        return self.ask_all([chat], max_new_tokens)[0]

    def ask_all(
        self, chats: Sequence[Chat], max_new_tokens: int = 512, watch: Callable[[Sequence[Request]], None] | None = None
    ) -> list[str]:
        """Return the answers in the chats' order; they share the engine's steps, and all come or none.

        Args:
            chats: what is asked.
            max_new_tokens: longest answer.
            watch: called with all requests every `INTERVAL` seconds while they run, and once they are done.
        """
        temperature = self.job.temperature if isinstance(self.job, UnderstandJob) else 0.0
        first = ChatInputs(chat=chats[0], max_new_tokens=max_new_tokens, temperature=temperature, seed=self.job.seed)
        requests = self._requests_of([replace(first, chat=chat) for chat in chats])
        # What is asked on the way to a clip is not progress: it would be another kind of step.
        with self._steps.counting(requests if isinstance(self.job, UnderstandJob) else []):
            return [str(answer) for answer in self._submit_all(requests, watch)]

    def sample(
        self,
        prompt: Chat,
        *,
        speech: str | None = None,
        audio: np.ndarray | None = None,
        video: np.ndarray | None = None,
        index: int = 0,
    ) -> np.ndarray:
        """Sample a clip, float32 [2, 483328] at 44.1 kHz with a peak of 1. Raises the engine's typed errors."""
        return self.sample_all([Clip(prompt=prompt, speech=speech, audio=audio, video=video, index=index)])[0]

    def sample_all(self, clips: Sequence[Clip]) -> list[np.ndarray]:
        """Return the clips in their order, each as `sample` returns it; see `RequestsInTurn`.

        All come, or none: where one fails its error is raised and the others are cancelled.
        """
        requests = self._requests_of([self._inputs(clip) for clip in clips])
        with self._steps.counting(requests):
            return self._submit_all(requests)

    def speak_all(
        self, texts: Sequence[SpeechInputs], watch: Callable[[Sequence[Request]], None] | None = None
    ) -> list[np.ndarray]:
        """Return the texts as they are said, float32 [1, n], in their order; two at a time are in the engine.

        All come, or none. Raises the engine's typed errors.

        Args:
            texts: to say.
            watch: called with all requests every `INTERVAL` seconds while they run, and once they are done.
        """
        requests = self._requests_of(texts)
        with self._steps.counting(requests):
            return self._submit_all(requests, watch)

    def work_all(
        self, stretches: Sequence[RecordingInputs], watch: Callable[[Sequence[Request]], None] | None = None
    ) -> list[Any]:
        """Return what becomes of the stretches of a recording, in their order; two at a time are in the engine.

        All come, or none. Raises the engine's typed errors.

        Args:
            stretches: to work through.
            watch: called with all requests every `INTERVAL` seconds while they run, and once they are done.
        """
        requests = self._requests_of(stretches)
        with self._steps.counting(requests):
            return self._submit_all(requests, watch)

    def _inputs(self, clip: Clip) -> DiffusionInputs:
        assert not isinstance(self.job, UnderstandJob)
        return DiffusionInputs(
            prompt=clip.prompt,
            speech=clip.speech,
            audio=clip.audio,
            video=clip.video,
            inpainting=clip.inpainting,
            steps=self.job.steps,
            guidance=self.job.guidance,
            seed=self.job.seed + clip.index,
            adapter=self.adapter,
            solver="multistep" if self.job.quality == "fast" else "euler",
        )

    def _requests_of(self, inputs: Sequence[Inputs]) -> list[Request]:
        """Requests for all of them; those that an earlier attempt has finished are done already."""
        self.expect_parts(len(inputs))
        deadline = None if self._deadline is None else time.time() + self._seconds_left()
        requests = [Request(inputs=one, priority=self.job.priority, deadline=deadline) for one in inputs]
        if self.parts is not None:
            self._take_over(requests, self.parts)
        return requests

    def _take_over(self, requests: Sequence[Request], parts: JobParts) -> None:
        before = self.resumed_from
        for request in requests:
            self.raise_if_cancelled()
            if (part := parts.take(request)) is not None:
                request.step = part.step
                request.outcome.set_result(part.value)
                self.resumed_from += 1
            elif request.kind == "chat":
                request.begun = parts.take_draft(request)
                request.step = len(request.begun)
        if self.resumed_from > before:
            extra = {"action": "job_resumed", "job_id": self.job.job_id, "resumed_from": self.resumed_from}
            logger.info("%d finished parts are taken over: %s", self.resumed_from, self.job.job_id, extra=extra)

    def give_out(self, samples: np.ndarray, sample_rate: int = SAMPLE_RATE) -> None:
        """Give out the next samples, float32 [channels, n], which nothing will change, where the job is streamed."""
        if self.stream is not None:
            with self.stage("stored"):
                self.stream.add_audio(samples, sample_rate)

    def _submit_all(
        self, requests: Sequence[Request], watch: Callable[[Sequence[Request]], None] | None = None
    ) -> list[Any]:
        interval, watch = (None, _look_away) if watch is None else (INTERVAL, watch)
        with in_stage("steps") as span, self._cancelled_together(requests, span):
            RequestsInTurn(requests, self._submit, self.parts).run(watch, interval)
        return [request.outcome.result() for request in requests]

    def _submit(self, request: Request) -> Request:
        self.raise_if_cancelled()
        return self._engine.submit(request)

    @contextmanager
    def _cancelled_together(self, requests: Sequence[Request], span: Any) -> Iterator[None]:
        # Before the first check for a cancellation: one that comes later finds them here.
        self._requests, self._span = requests, span
        try:
            yield
        except BaseException:
            for request in requests:
                request.cancel(JobCancelled("another part of the job failed"))
            raise
        finally:
            self._requests = ()
            self._count_requests(requests)
            self._span = None

    def _count_requests(self, requests: Sequence[Request]) -> None:
        now, submitted = time.monotonic(), min(one.submitted_at for one in requests)
        started = min((one.started_at for one in requests if one.started_at is not None), default=now)
        if any(one.started_at is not None for one in requests):
            traces.add_event(self._span, "first step", now - started)
        self._count("conditioned", started - submitted)
        self._count("sampled", now - started)
        self.gpu_seconds += sum(one.device_seconds for one in requests)

    def _count(self, name: Stage, seconds: float) -> None:
        self._spent[name] = self._spent.get(name, 0.0) + seconds


def _look_away(requests: Sequence[Request]) -> None:
    """Watch nothing: no part of the job is given out."""
