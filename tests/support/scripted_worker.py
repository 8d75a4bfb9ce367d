"""A real worker process around an engine that does as the job says: take time, hang, or kill the process.

Its answers name the question, and its clips are the tone of their seed over what they hear; it logs each of them as
`scripted_finished`, with a hash of all that it was asked for, and the steps and tokens before that as `scripted_step`.
In its environment, SCRIPTED_DIES_AT numbers the step that kills it, from 1. SCRIPTED_LOAD_AWAITS names a file
with which its checkpoint is there, and SCRIPTED_DEVICE_BREAKS a word: the first request that has it breaks its device
for good. SCRIPTED_CARD is the card of the model that it stands for. With SCRIPTED_MODEL_FAILS its model fails every
step; a step takes SCRIPTED_STEP_SECONDS. While the file is there that SCRIPTED_HELD names, it makes as many steps as
that says, and no more. With SCRIPTED_ENGINE it runs a model that speaks: by a script, or where that
is `real` the one of its settings. `support.scripted_faults` says how its machine goes wrong otherwise.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from string import ascii_letters
from typing import Any

from omnifleet_shared.schema.model_card import ModelCard
from omnifleet_shared.settings import load_settings
from omnifleet_worker.celery import create_worker_app
from omnifleet_worker.engine.limits import EngineLimits
from omnifleet_worker.engine.request import ChatInputs, DiffusionInputs, Request
from omnifleet_worker.engines.audio_omni import PROBES
from omnifleet_worker.engines.loaded_model import LoadedModel
from omnifleet_worker.engines.speech.engine import run_speech_model
from omnifleet_worker.jobs.prompts import Prompts
from omnifleet_worker.jobs.tasks import OmniModel
from omnifleet_worker.models.audio_omni.sampling import CLIP_SAMPLES
from omnifleet_worker.models.audio_omni.speech_tokenizer import SpeechTokenizer
from omnifleet_worker.models.content_cache import digest
from omnifleet_worker.models.speech_model import SpeechInputs
from omnifleet_worker.service.worker import FleetWorker
from omnifleet_worker.settings import WorkerSettings

from support import scripted_faults
from support.data.tones import tone
from support.speech.scripted_model import ScriptedSpeech, slow_step, speech_card

logger = logging.getLogger(__name__)
STEP_SECONDS = 0.05
SPEECH = speech_card(engine="audio-omni")
MODEL = OmniModel(
    card=ModelCard(name="scripted", revision="1", licence="none", languages=("en",)),
    prompts=Prompts(
        {
            "system": {
                "UNDERSTANDING": "Answer.",
                "T2A": "Make a sound.",
                "T2M": "Make music.",
                "EDITING": "Edit.",
                "TTS": "Say.",
            },
            "edit": {"Add": "Add {desc}."},
            "transcribe": {"system": "Transcribe.", "user": "What is said?"},
        }
    ),
    tokenizer=SpeechTokenizer([" ", *ascii_letters, "."]),
)
"""Made once for all workers of a fork server: its tokenizer takes most of the time in which they start."""


class ScriptedRunner:
    """Answers `<what was asked> by <pid>`, or gives a tone, after as many steps as it may take."""

    def __init__(self) -> None:
        self._device = scripted_faults.Device()
        self._step_seconds = float(os.environ.get("SCRIPTED_STEP_SECONDS", STEP_SECONDS))
        self._dies_at = int(os.environ.get("SCRIPTED_DIES_AT", "0"))
        self._held = Path(os.environ.get("SCRIPTED_HELD", "/nowhere"))
        self._steps_while_held = 0
        self._steps = 0
        self._hashes: dict[Request, str] = {}

    def prepare(self, request: Request) -> None:
        self._device.use()
        if isinstance(request.inputs, ChatInputs):
            request.step, pieces = len(request.begun), _pieces(request)
            request.draft = lambda: _joined(pieces[: request.step])
            request.written = lambda: tuple(pieces[: request.step])

    def advance(self, batch: Sequence[Request]) -> None:
        self._wait_while_held()
        time.sleep(self._step_seconds)
        self._steps += 1
        if self._steps == self._dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        for request in batch:
            asked = _asked(request)
            self._device.use(asked)
            if os.environ.get("SCRIPTED_MODEL_FAILS"):
                raise ValueError(f"the model has no row {os.getpid()}")
            if "die" in asked:
                os.kill(os.getpid(), signal.SIGKILL)
            if "hang" in asked:
                time.sleep(3600)
            request.step += 1
        taken = [f"{self._hash(request)} {request.step}" for request in batch]
        logger.info("step", extra={"action": "scripted_step", "taken": taken})

    def is_done(self, request: Request) -> bool:
        return request.step >= request.steps

    def finish(self, batch: Sequence[Request]) -> list[Any]:
        self._device.use()
        for request in batch:
            logger.info("finished", extra={"action": "scripted_finished", "asked": self._hash(request)})
        return [_outcome(request) for request in batch]

    def release(self, request: Request) -> None:
        self._hashes.pop(request, None)

    def _wait_while_held(self) -> None:
        while self._held.exists():
            with suppress(FileNotFoundError):
                if self._steps_while_held < int(self._held.read_text()):
                    self._steps_while_held += 1
                    return
            time.sleep(0.01)
        self._steps_while_held = 0

    def _hash(self, request: Request) -> str:
        if request not in self._hashes:
            self._hashes[request] = digest(request.inputs).hex()
        return self._hashes[request]


def _asked(request: Request) -> str:
    inputs = request.inputs
    assert not isinstance(inputs, SpeechInputs)
    return inputs.chat.user if isinstance(inputs, ChatInputs) else inputs.prompt.user


def _pieces(request: Request) -> list[int]:
    """The answer's tokens, as many as it may have; one that was begun elsewhere is continued."""
    assert isinstance(request.inputs, ChatInputs)
    whole, begun = f"{_asked(request)} by {os.getpid()}", request.inputs.chat.begun
    whole, steps = begun + whole[len(begun) :], request.steps
    ends = [round(step / steps * len(whole)) for step in range(steps + 1)]
    ends = [max(end, len(begun)) if end else 0 for end in ends]
    own = [int.from_bytes(whole[start:end].encode()) for start, end in pairwise(ends)]
    return [*request.begun, *own[len(request.begun) :]]


def _joined(pieces: Sequence[int]) -> str:
    return b"".join(piece.to_bytes((piece.bit_length() + 7) // 8) for piece in pieces).decode()


def _outcome(request: Request) -> Any:
    if isinstance(request.inputs, ChatInputs):
        return request.draft()
    assert isinstance(request.inputs, DiffusionInputs)
    clip, heard = tone(request.inputs.seed, CLIP_SAMPLES), request.inputs.audio
    if heard is not None:
        clip[:, : len(heard)] += heard / 4
    return clip


class ScriptedWorker(FleetWorker):
    """Loads no checkpoint."""

    def load(self) -> LoadedModel:
        while (awaited := os.environ.get("SCRIPTED_LOAD_AWAITS")) and not Path(awaited).exists():
            time.sleep(0.05)
        if engine := os.environ.get("SCRIPTED_ENGINE"):
            return super().load() if engine == "real" else run_speech_model(ScriptedSpeech(2, slow_step), SPEECH)
        model, limits = MODEL, EngineLimits(clips=8, chats=8)
        if card := os.environ.get("SCRIPTED_CARD"):
            model = replace(model, card=ModelCard.model_validate_json(card))
        return LoadedModel(model=model, runner=ScriptedRunner(), limits=limits, probes=PROBES)


def work(arguments: Sequence[str]) -> None:
    """Be the worker, with the environment's settings and more arguments for Celery, until told to end."""
    scripted_faults.let_disk_fill()
    scripted_faults.skew_clock(float(os.environ.get("SCRIPTED_CLOCK_SKEW", "0")))
    if threads := os.environ.get("SCRIPTED_MOST_JOB_THREADS"):
        scripted_faults.let_threads_run_out(int(threads))
    scripted_faults.let_handler_fail(int(os.environ.get("SCRIPTED_HANDLER_FAILS", "0")))
    settings = load_settings(WorkerSettings)
    app = create_worker_app(settings, ScriptedWorker(settings))
    named = [f"{one}:{os.getpid()}" if one.startswith("--hostname=") else one for one in arguments]
    raise SystemExit(app.run_worker("--loglevel", "INFO", "--without-gossip", "--without-mingle", *named))


if __name__ == "__main__":
    work(sys.argv[1:])
