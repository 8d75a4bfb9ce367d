"""The engine of any server with OpenAI's `POST /v1/audio/speech`, with what SGLang-Omni and vLLM-Omni added to it."""

from __future__ import annotations

import base64
from typing import Any

from ...models.speech_model import SpeechInputs
from ...settings import WorkerSettings
from ..loaded_model import LoadedModel
from .model import ServerCard, load_server, wav_of

NAME = "openai"


class OpenAIDialect:
    """Fields of OpenAI's, and `language`, `seed`, `ref_audio` and `ref_text`, where there is something to say there."""

    path = "/v1/audio/speech"
    health_path = "/v1/models"

    def body(self, inputs: SpeechInputs, card: ServerCard) -> dict[str, Any]:
        """The voice of a job is sent as a `data:` URL, which needs no place that the server could fetch it from."""
        fields: dict[str, Any] = {
            "input": inputs.text,
            "response_format": "wav",
            "seed": inputs.seed,
            "model": card.model,
            "voice": card.voice if inputs.voice is None else None,
        }
        if inputs.speed != 1:
            fields["speed"] = inputs.speed
        if inputs.language is not None:
            fields["language"] = card.languages.get(inputs.language, inputs.language)
        if inputs.voice is not None:
            audio = base64.b64encode(wav_of(inputs.voice)).decode()
            fields |= {"ref_audio": f"data:audio/wav;base64,{audio}", "ref_text": inputs.voice.text}
        return {name: value for name, value in fields.items() if value is not None}


def load(settings: WorkerSettings) -> LoadedModel:
    """Make the server ready. Raises as `load_server`."""
    return load_server(settings, NAME, OpenAIDialect(), streaming=True, speed=True)
