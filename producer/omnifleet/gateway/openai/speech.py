"""`POST /v1/audio/speech`."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from omnifleet_shared.errors import InvalidJob, OmnifleetError, VoiceNotFound
from pydantic import Field, StringConstraints, field_validator

from ...request.request import VOICE
from ...request.request import Request as Call
from ...results.results import AudioResult
from ..backend import TheBackend, TheCaller
from ..jobs.files import send_file
from ..jobs.routes import IdempotencyKey
from ..jobs.submission import submit, wait_for_outcome
from .encode import CONTENT_TYPES, OF_WORKERS, SpeechFormat, encode
from .events import Events, stream_outcome
from .fields import ModelName, OpenAIRequest, wished_model

DEFAULT_VOICE = "default"
"""The model's own voice."""
OTHER_NAMES = {"ref": "voice", "text": "input", "format": "response_format"}
"""Fields of jobs by OpenAI's names."""
PART = 96 * 1024
"""Bytes of audio in one event."""

router = APIRouter(tags=["OpenAI"])


class VoiceId(OpenAIRequest):
    """A voice as an object, as OpenAI's custom voices are named."""

    id: str


class SpeechRequest(OpenAIRequest):
    """The body of `POST /v1/audio/speech`."""

    model: ModelName
    input: Annotated[str, StringConstraints(min_length=1, max_length=10_000)]
    """What is said."""
    voice: str | VoiceId = DEFAULT_VOICE
    """`default`, one of `GET /v1/voices`, or the `uri` of an upload: a recording of the voice."""
    response_format: SpeechFormat = "mp3"
    speed: Annotated[float, Field(ge=0.25, le=4)] = 1.0
    stream_format: Literal["audio", "sse"] = "audio"
    instructions: str | None = None

    @field_validator("speed")
    @classmethod
    def _speed_is_one(cls, speed: float) -> float:
        if speed != 1:
            raise ValueError("the model speaks at its own speed. Leave it out, or ask for 1")
        return speed

    @field_validator("instructions")
    @classmethod
    def _none_are_given(cls, instructions: str | None) -> str | None:
        if instructions:
            raise ValueError("the model takes no instructions for speech. Choose another voice")
        return instructions

    @property
    def voice_name(self) -> str:
        """The voice, however it was named."""
        return self.voice if isinstance(self.voice, str) else self.voice.id


@router.post("/v1/audio/speech", response_class=Response)
async def create_speech(
    asked: SpeechRequest,
    request: Request,
    backend: TheBackend,
    caller: TheCaller,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Say a text, and answer with the audio. A caller who hangs up cancels the job, as with `POST /v1/jobs`."""
    try:
        job = await submit(backend, caller, _call(asked, backend.settings.gateway_patience), idempotency_key)
    except OmnifleetError as error:
        raise _in_openais_words(error) from error
    cancel, wanted = idempotency_key is None, asked.response_format
    if asked.stream_format == "sse":

        async def make_events(result: AudioResult) -> Events:
            audio = await asyncio.to_thread(_read, result, wanted)
            return _events(audio)

        return stream_outcome(job, make_events, cancel=cancel)
    result: AudioResult = await wait_for_outcome(backend, request, job, None, cancel=cancel)
    headers = {"X-Job-ID": job.id}
    if wanted in OF_WORKERS and result.record.artifact is not None:
        answer = await send_file(request, backend.storage, result.record, result.record.artifact)
        answer.headers.update(headers)
        return answer
    audio = await asyncio.to_thread(_read, result, wanted)
    return Response(audio, media_type=CONTENT_TYPES[wanted], headers=headers)


def _call(asked: SpeechRequest, patience: float) -> Call:
    fields: dict[str, Any] = {
        "text": asked.input,
        "model": wished_model(asked.model),
        "deadline": patience,
        "format": OF_WORKERS.get(asked.response_format),
    }
    voice = asked.voice_name
    if voice != DEFAULT_VOICE:
        # The address of an upload has a scheme; all else is a name, whatever stands in it.
        is_upload = voice.lower().startswith(("s3://", "file://"))
        fields["ref"] = voice if is_upload or voice.startswith(VOICE) else VOICE + voice
    return Call.of("generate", {}, task="tts", **fields)


def _in_openais_words(error: OmnifleetError) -> OmnifleetError:
    """Name the field that the caller knows."""
    if isinstance(error, VoiceNotFound) or (isinstance(error, InvalidJob) and error.field in ("name", "ref")):
        return InvalidJob(error.problem, "voice", "Choose one of GET /v1/voices, or the uri of an upload")
    if error.field in OTHER_NAMES:
        return type(error)(error.problem, OTHER_NAMES[error.field], error.remedy, error.details)
    return error


def _read(result: AudioResult, wanted: SpeechFormat) -> bytes:
    data = result.audio.read()
    return data if wanted in OF_WORKERS else encode(data, wanted)


def _events(audio: bytes) -> Iterator[dict[str, Any]]:
    for start in range(0, len(audio), PART):
        yield {"type": "speech.audio.delta", "audio": base64.b64encode(audio[start : start + PART]).decode()}
    # Nothing is counted in tokens here.
    yield {"type": "speech.audio.done", "usage": {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}}
