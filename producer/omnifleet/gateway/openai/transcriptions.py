"""`POST /v1/audio/transcriptions`."""

from __future__ import annotations

import zlib
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Request, UploadFile
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from omnifleet_shared.errors import InvalidJob
from omnifleet_shared.keys import MODEL
from omnifleet_shared.schema.tasks import Timestamps
from omnifleet_shared.schema.transcript import HeardSegment
from pydantic import ConfigDict, Field, field_validator

from ...async_handle import AsyncJobHandle
from ...request.request import Request as Call
from ...results.results import TextResult
from ...results.subtitles import SUBTITLE_FORMATS, write_subtitles
from ..backend import TheBackend, TheCaller
from ..jobs.attendance import JobStream
from ..jobs.routes import IdempotencyKey
from ..jobs.submission import submit, wait_for_outcome
from .events import EVENT_STREAM, Events, server_sent
from .fields import ModelName, OpenAIRequest, wished_model

router = APIRouter(tags=["OpenAI"])
Granularity = Literal["word", "segment"]


class TranscriptionRequest(OpenAIRequest):
    """The form of `POST /v1/audio/transcriptions`."""

    model_config = ConfigDict(
        arbitrary_types_allowed=True,
        json_schema_extra={"example": {"file": "call.wav", "model": MODEL, "response_format": "json"}},
    )

    file: UploadFile
    model: ModelName
    language: str | None = None
    """BCP 47 tag of what is said."""
    prompt: str | None = None
    """What the recording is about, or names in it."""
    response_format: Literal["json", "text", "srt", "vtt", "verbose_json"] = "json"
    temperature: Annotated[float, Field(ge=0, le=1)] = 0.0
    timestamp_granularities: tuple[Granularity, ...] = Field((), alias="timestamp_granularities[]", max_length=2)
    """With `verbose_json`: `segment` (default), and `word`, which needs workers with an aligner."""
    stream: bool = False
    chunking_strategy: str | None = None

    @field_validator("chunking_strategy")
    @classmethod
    def _cut_by_the_fleet(cls, strategy: str | None) -> str | None:
        if strategy not in (None, "auto"):
            raise ValueError("long recordings are cut at pauses, by the workers. Leave it out, or ask for auto")
        return strategy

    @property
    def timestamps(self) -> Timestamps | None:
        """What has to be timed for the answer."""
        if self.response_format in SUBTITLE_FORMATS:
            return "segment"
        if self.response_format != "verbose_json":
            return None
        return "word" if "word" in self.timestamp_granularities else "segment"


@router.post("/v1/audio/transcriptions", response_class=Response)
async def create_transcription(
    asked: Annotated[TranscriptionRequest, Form(media_type="multipart/form-data")],
    request: Request,
    backend: TheBackend,
    caller: TheCaller,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Write down what is said. A caller who hangs up cancels the job, as with `POST /v1/jobs`."""
    _check(asked)
    job = await submit(backend, caller, _call(asked, backend.settings.gateway_patience), idempotency_key)
    cancel = idempotency_key is None
    if asked.stream:
        return JobStream(backend, job, server_sent(_events(job)), EVENT_STREAM, cancel=cancel)
    result: TextResult = await wait_for_outcome(backend, request, job, None, cancel=cancel)
    answer = _answer(asked, result)
    answer.headers["X-Job-ID"] = job.id
    return answer


def _check(asked: TranscriptionRequest) -> None:
    if asked.timestamp_granularities and asked.response_format != "verbose_json":
        remedy = "Ask for verbose_json, or for srt or vtt without it"
        raise InvalidJob("only verbose_json has times of words", "timestamp_granularities", remedy)
    if asked.stream and asked.response_format not in ("json", "text"):
        remedy = "Ask for json or text, or without stream"
        raise InvalidJob("only json and text are streamed", "stream", remedy)


def _call(asked: TranscriptionRequest, patience: float) -> Call:
    fields = {
        "audio": asked.file.file,
        "model": wished_model(asked.model),
        "language": asked.language or None,
        "text": asked.prompt or None,
        "temperature": asked.temperature or None,
        "timestamps": asked.timestamps,
        "stream": asked.stream or None,
        "deadline": patience,
    }
    return Call.of("understand", {}, task="transcribe", **fields)


def _answer(asked: TranscriptionRequest, result: TextResult) -> Response:
    times = result.record.transcript
    match asked.response_format:
        case "srt" | "vtt" as form if times is not None:
            kind = "text/vtt" if form == "vtt" else "application/x-subrip"
            return Response(write_subtitles(result.text, times, form), media_type=f"{kind}; charset=utf-8")
        case "text":
            return PlainTextResponse(f"{result.text}\n")
        case "verbose_json":
            return JSONResponse(_verbose(asked, result))
        case _:
            return JSONResponse({"text": result.text})


def _verbose(asked: TranscriptionRequest, result: TextResult) -> dict[str, Any]:
    times = result.record.transcript
    assert times is not None, "it was asked for"
    wanted = asked.timestamp_granularities or ["segment"]
    words = [{"word": one.text, "start": one.start, "end": one.end} for one in times.words or ()]
    segments = [_segment(number, one, asked.temperature) for number, one in enumerate(times.segments)]
    return {
        "task": "transcribe",
        # Where the caller named none, the one that was heard; Audio-Omni does not say.
        "language": asked.language or times.language,
        "duration": times.seconds,
        "text": result.text,
        **({"words": words} if "word" in wanted else {}),
        **({"segments": segments} if "segment" in wanted else {}),
        "usage": {"type": "duration", "seconds": times.seconds},
    }


def _segment(number: int, heard: HeardSegment, temperature: float) -> dict[str, Any]:
    """A segment with all that OpenAI's have; what the model does not tell is null, or an empty list."""
    text = heard.text.encode()
    return {
        "id": number,
        "seek": round(heard.start * 100),  # in hundredths of a second, as Whisper counts
        "start": heard.start,
        "end": heard.end,
        "text": heard.text,
        "tokens": [],
        "temperature": temperature,
        "avg_logprob": None,
        "compression_ratio": round(len(text) / len(zlib.compress(text)), 3),
        "no_speech_prob": None,
    }


async def _events(job: AsyncJobHandle[TextResult]) -> Events:
    text = ""
    async with aclosing(job.stream()) as parts:
        async for part in parts:
            if part.text:
                text += part.text
                yield {"type": "transcript.text.delta", "delta": part.text}
    yield {"type": "transcript.text.done", "text": text}
