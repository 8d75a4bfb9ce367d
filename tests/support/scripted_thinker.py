"""An engine that answers chats from a script, for tests of what jobs make of answers. It needs no model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omnifleet_shared.schema.jobs import read_job
from omnifleet_shared.schema.model_card import ModelCard
from omnifleet_shared.schema.results import JobResult
from omnifleet_shared.storage.folder import FolderStorage
from omnifleet_worker.engine.request import ChatInputs, Request
from omnifleet_worker.jobs.job_context import JobContext
from omnifleet_worker.jobs.prompts import Prompts
from omnifleet_worker.jobs.runner import JobRunner
from omnifleet_worker.jobs.tasks import OmniModel
from omnifleet_worker.models.audio_omni.chat import Chat
from omnifleet_worker.models.audio_omni.speech_tokenizer import SpeechTokenizer
from omnifleet_worker.models.audio_omni.tiny import tiny_vocab
from omnifleet_worker.settings import WorkerSettings

CARD = ModelCard(revision="1", licence="CC BY-NC 4.0", languages=("en", "zh"))
SENTENCES = {
    "system": {"UNDERSTANDING": "Listen."},
    "transcribe": {"system": "Write.", "user": "Every word."},
}
Script = Sequence[str] | Callable[[Chat], str]


class ScriptedThinker:
    """Says what the script says, and keeps the chats that it was asked."""

    def __init__(self, script: Script) -> None:
        self._script = script if callable(script) else iter(script).__next__
        self._knows_the_chat = callable(script)
        self.asked: list[Chat] = []

    def submit(self, request: Request) -> Request:
        """As the engine's, done at once."""
        assert isinstance(request.inputs, ChatInputs)
        self.asked.append(request.inputs.chat)
        said: Any = self._script
        request.outcome.set_result(said(request.inputs.chat) if self._knows_the_chat else said())
        return request

    def answer(self, folder: Path, task: dict[str, Any], *, card: ModelCard = CARD, **job: Any) -> JobResult:
        """Run an understand job from its message to its result."""
        payload = {"schema_version": 1, "namespace": "understand", "task": task, **job}
        model = OmniModel(card=card, prompts=Prompts(SENTENCES), tokenizer=SpeechTokenizer(tiny_vocab()))
        engine: Any = self
        jobs = JobRunner(model, FolderStorage(folder), WorkerSettings())
        return jobs.run(JobContext(read_job(payload), engine))


def stored(folder: Path, data: bytes) -> dict[str, Any]:
    """A recording in the folder's storage, as a job names it."""
    path = folder / f"{len(data)}.wav"
    path.write_bytes(data)
    return {"uri": path.as_uri()}
