"""The engine of Audio-Omni: clips and answers, batched by steps."""

from __future__ import annotations

from ..engine.request import ChatInputs, DiffusionInputs
from ..model_loader import describe, open_model
from ..models.audio_omni.chat import Chat
from ..settings import WorkerSettings
from .loaded_model import LoadedModel

_CHAT = Chat(system="Answer.", user="Are you there?")
PROBES = (
    DiffusionInputs(prompt=_CHAT, steps=2, guidance=7.0, seed=0),
    ChatInputs(chat=_CHAT, max_new_tokens=2, temperature=0.0, seed=0),
)
"""A clip and an answer."""


def load(settings: WorkerSettings) -> LoadedModel:
    """Load the checkpoint. Raises as `open_model` and `describe`."""
    runner, limits = open_model(settings)
    limits_of_adapters = {"adapter_rank": settings.adapter_rank, "adapter_bytes": settings.adapter_cache}
    model = describe(runner.pipeline, settings.aligner, **limits_of_adapters)
    return LoadedModel(model=model, runner=runner, limits=limits, probes=PROBES)
