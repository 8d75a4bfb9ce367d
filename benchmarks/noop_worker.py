"""A fleet worker whose engine does nothing: the whole way of a job, without a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omnifleet_shared.schema.model_card import ModelCard
from omnifleet_shared.settings import load_settings
from omnifleet_worker.celery import create_worker_app
from omnifleet_worker.engine.limits import EngineLimits
from omnifleet_worker.engine.request import Request
from omnifleet_worker.engines.loaded_model import LoadedModel
from omnifleet_worker.jobs.prompts import Prompts
from omnifleet_worker.jobs.tasks import OmniModel
from omnifleet_worker.models.audio_omni.speech_tokenizer import SpeechTokenizer
from omnifleet_worker.service.worker import FleetWorker
from omnifleet_worker.settings import WorkerSettings


class NoopRunner:
    """Answers "ok" in one step."""

    def prepare(self, request: Request) -> None:
        """Nothing."""

    def advance(self, batch: Sequence[Request]) -> None:
        """The only step."""
        for request in batch:
            request.step += 1

    def is_done(self, request: Request) -> bool:
        """After that step."""
        return request.step > 0

    def finish(self, batch: Sequence[Request]) -> list[Any]:
        """The answers."""
        return ["ok"] * len(batch)

    def release(self, request: Request) -> None:
        """Nothing."""


class NoopWorker(FleetWorker):
    """A fleet worker without a checkpoint."""

    def load(self) -> LoadedModel:
        """A model that can be asked, and does nothing."""
        card = ModelCard(name="noop", revision="noop", licence="none", languages=("en",))
        prompts = Prompts({"system": {"UNDERSTANDING": "Answer."}})
        model = OmniModel(card=card, prompts=prompts, tokenizer=SpeechTokenizer([" "]))
        limits = EngineLimits(clips=self.settings.max_batch, chats=self.settings.max_chats)
        return LoadedModel(model=model, runner=NoopRunner(), limits=limits, probes=())


def main() -> None:
    """Take jobs until stopped; settings from `OMNIFLEET_*`, started as `omnifleet-worker run` starts its own."""
    settings = load_settings(WorkerSettings)
    app = create_worker_app(settings, NoopWorker(settings))
    raise SystemExit(app.run_worker("--loglevel", "INFO", "--without-gossip", "--without-mingle"))


if __name__ == "__main__":
    main()
