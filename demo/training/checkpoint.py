"""The demo's checkpoint before it is trained: random, computed and fitted parts put together."""

from __future__ import annotations

from typing import Any

import torch
from omnifleet_worker.models.audio_omni.conditioners import OmniProjection, SyncEncoder
from omnifleet_worker.models.audio_omni.pipeline import AudioOmniPipeline
from omnifleet_worker.models.audio_omni.speech_encoder import SpeechEncoder
from omnifleet_worker.models.audio_omni.tiny import tiny_pipeline

from .filter_bank import grain_autoencoder
from .parts import (
    frame_audio_encoder,
    untrained_transformer,
    word_processor,
    word_thinker,
)

SEED = 0

PROMPTS: dict[str, Any] = {
    "system": dict.fromkeys(("EDITING", "T2A", "T2M", "TTS", "UNDERSTANDING", "V2A", "V2M"), "sound"),
    "edit": {
        "Add": "add {desc}",
        "Remove": "drop {desc}",
        "Extract": "keep only {desc}",
        "Style": "drop {source} and add {target}",
    },
    "transcribe": {"system": "Write down what is said.", "user": "Write down every word of this recording."},
}


def untrained_pipeline() -> AudioOmniPipeline:
    """Everything that training begins with; its omni projection is still to be fitted."""
    tiny = tiny_pipeline(SEED)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return AudioOmniPipeline(
            transformer=untrained_transformer(SEED),
            vae=grain_autoencoder(),
            thinker=word_thinker(SEED).bfloat16(),
            processor=word_processor(),
            omni_projection=OmniProjection(),
            speech_encoder=SpeechEncoder(tokens=16),
            audio_encoder=frame_audio_encoder(),
            sync_encoder=SyncEncoder(tokens=8),
            synchformer=tiny.synchformer,
            prompts=PROMPTS,
            vocab=tiny.vocab,
            card=tiny.card | {"name": "audio-omni-demo", "revision": "demo-1", "languages": ["en"]},
        )
