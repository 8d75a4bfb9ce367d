"""The engine of a Fish S2 Pro server (fish-speech's `tools/api_server.py`); nothing of it is imported."""

from __future__ import annotations

import base64
from typing import Any

from ...models.speech_model import SpeechInputs
from ...settings import WorkerSettings
from ..loaded_model import LoadedModel
from .model import ServerCard, load_server, wav_of

NAME = "fish"


class FishDialect:
    """Its contract: JSON, with files in base64; wav alone, as the server's other formats fail."""

    path = "/v1/tts"
    health_path = "/v1/health"

    def body(self, inputs: SpeechInputs, card: ServerCard) -> dict[str, Any]:
        """Streamed: so the server sends its head at once, and is silent for no longer than a part takes."""
        body: dict[str, Any] = {"text": inputs.text, "format": "wav", "seed": inputs.seed, "streaming": True}
        if inputs.voice is not None:
            audio = base64.b64encode(wav_of(inputs.voice)).decode()
            return body | {"references": [{"audio": audio, "text": inputs.voice.text or ""}]}
        return body | ({"reference_id": card.voice} if card.voice else {})


def load(settings: WorkerSettings) -> LoadedModel:
    """Make the server ready. Raises as `load_server`."""
    return load_server(settings, NAME, FishDialect(), needs_transcript=True, streaming=True)
