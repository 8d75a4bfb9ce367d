"""`POST /v1/audio/speech`."""

from __future__ import annotations

import asyncio
import base64
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from omnifleet_shared.errors import IdempotencyConflict, InvalidJob, OmnifleetError, VoiceNotFound
from omnifleet_shared.keys import MODEL
from pydantic import ConfigDict, Field, StringConstraints, field_validator

from ...async_handle import AsyncJobHandle
from ...request.request import VOICE
from ...request.request import Request as Call
from ...results.results import AudioResult
from ..access.admission import Caller
from ..backend import Backend, TheBackend, TheCaller
from ..jobs.attendance import JobStream, attend
from ..jobs.files import result_name, send_file
from ..jobs.routes import IdempotencyKey
from ..jobs.submission import submit
from .encode import OF_WORKERS, SPEECH_TYPES, SpeechFormat
from .events import EVENT_STREAM, Events, server_sent
from .fields import ModelName, OpenAIRequest, wished_model
from .spoken import begin, encoded, read_speech, read_whole

DEFAULT_VOICE = "default"
"""The model's own voice."""
OTHER_NAMES = {"ref": "voice", "text": "input", "format": "response_format"}
"""Fields of jobs by OpenAI's names."""
MOST_BYTES = 96 * 1024
"""Bytes of audio in one event, a multiple of three: each is base64 of its own, and all of them joined are too."""

router = APIRouter(tags=["OpenAI"])


class VoiceId(OpenAIRequest):
    """A voice as an object, as OpenAI's custom voices are named."""

    id: str


class SpeechRequest(OpenAIRequest):
    """The body of `POST /v1/audio/speech`."""

    model_config = ConfigDict(json_schema_extra={"example": {"model": MODEL, "input": "Hello world"}})

    model: ModelName
    input: Annotated[str, StringConstraints(min_length=1, max_length=10_000)]
    """What is said."""
    voice: str | VoiceId = DEFAULT_VOICE
    """`default`, one of `GET /v1/voices`, or the `uri` of an upload: a recording of the voice."""
    response_format: SpeechFormat = "mp3"
    speed: Annotated[float, Field(ge=0.25, le=4)] = 1.0
    """For models that can be told."""
    stream_format: Literal["audio", "sse"] = "audio"
    instructions: str | None = None
    adapter: str | None = None
    """None of OpenAI's fields: one of `GET /v1/adapters`, as jobs name it."""
    adapter_scale: float | None = None
    """Nor this: how strongly it is applied."""

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
    """Say a text, and answer with the audio: a long one sentence by sentence, as they are made. A caller who hangs up
    cancels the job, as with `POST /v1/jobs`."""
    try:
        job = await _send(backend, caller, _call(asked, backend.settings.gateway_patience), idempotency_key)
        cancel, wanted = idempotency_key is None, asked.response_format
        if asked.stream_format == "sse":
            return JobStream(backend, job, server_sent(_events(job, wanted)), EVENT_STREAM, cancel=cancel)
        result = await attend(backend, request.receive, job, begin(job), cancel=cancel)
    except OmnifleetError as error:
        raise _in_openais_words(error) from error
    if result is None:
        return JobStream(backend, job, encoded(job, wanted), SPEECH_TYPES[wanted], cancel=cancel)
    answer = await _whole(request, backend, result, wanted)
    answer.headers["X-Job-ID"] = job.id
    return answer


async def _send(backend: Backend, caller: Caller, call: Call, key: str | None) -> AsyncJobHandle[Any]:
    """Send a call to a model that gives its speech out as it is made, or else to one that gives it as a whole."""
    try:
        return await submit(backend, caller, call, key)
    except IdempotencyConflict:
        raise
    except InvalidJob:
        whole = Call(call.namespace, {**call.arguments, "stream": None})
        return await submit(backend, caller, whole, key)


async def _whole(request: Request, backend: Backend, result: AudioResult, wanted: SpeechFormat) -> Response:
    stored = result.record.artifact
    if wanted in OF_WORKERS and stored is not None:
        return await send_file(request, backend.storage, stored, result_name(result.record))
    return Response(await asyncio.to_thread(read_speech, result, wanted), media_type=SPEECH_TYPES[wanted])


def _call(asked: SpeechRequest, patience: float) -> Call:
    fields: dict[str, Any] = {
        "text": asked.input,
        "model": wished_model(asked.model),
        "speed": None if asked.speed == 1 else asked.speed,
        "adapter": asked.adapter,
        "adapter_scale": asked.adapter_scale,
        "deadline": patience,
        "stream": True,
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


async def _events(job: AsyncJobHandle[AudioResult], wanted: SpeechFormat) -> Events:
    try:
        result = await begin(job)
        async with aclosing(encoded(job, wanted) if result is None else read_whole(result, wanted)) as chunks:
            async for chunk in chunks:
                for start in range(0, len(chunk), MOST_BYTES):
                    audio = base64.b64encode(chunk[start : start + MOST_BYTES]).decode()
                    yield {"type": "speech.audio.delta", "audio": audio}
    except OmnifleetError as error:
        raise _in_openais_words(error) from error
    # Nothing is counted in tokens here.
    yield {"type": "speech.audio.done", "usage": {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}}
