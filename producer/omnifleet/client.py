"""The client: understand, generate and edit audio with a fleet of workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, Unpack

from omnifleet_shared import traces
from omnifleet_shared.settings import FleetSettings, load_settings
from omnifleet_shared.storage import Storage, open_storage
from omnifleet_shared.tasks import Namespace, task_name

from .handle import JobHandle
from .idempotency import idempotency_key
from .job_request import DiffusionOptions, HistoryTurn, UnderstandOptions, asked, build_job, check_options, turns
from .media import MediaSource, Uploads
from .results import AudioResult, JobResult, TextResult
from .transport import CeleryTransport, Transport


class Client:
    """Sends jobs to a fleet. Safe to share between threads; close it, or use it as a context manager.

    Every call checks its request, uploads local media under their hash, sends the job and returns at once.

    Args:
        settings: all settings at once; from `OMNIFLEET_*` in the environment by default.
        redis_url: overrides the setting.
        storage: overrides the setting with a URI, or is an opened `Storage` itself.
        s3_endpoint: overrides the setting.
        queue: overrides the setting.
        transport: carries the jobs instead of Celery; it is the caller's to close.

    Raises:
        InvalidSetting: a setting that does not parse.
    """

    def __init__(
        self,
        settings: FleetSettings | None = None,
        *,
        redis_url: str | None = None,
        storage: str | Storage | None = None,
        s3_endpoint: str | None = None,
        queue: str | None = None,
        transport: Transport | None = None,
    ) -> None:
        place = None if isinstance(storage, Storage) else storage
        overrides = {"redis_url": redis_url, "storage": place, "s3_endpoint": s3_endpoint, "queue": queue}
        self._settings = _settings(settings, overrides)
        self._storage = storage if isinstance(storage, Storage) else open_storage(self._settings)
        self._transport = transport or CeleryTransport(self._settings)
        self._closes_transport = transport is None

    def understand(
        self,
        task: str | None = None,
        audio: MediaSource | Sequence[MediaSource] | None = None,
        *,
        video: MediaSource | Sequence[MediaSource] | None = None,
        text: str | None = None,
        question: str | None = None,
        system: str | None = None,
        max_new_tokens: int | None = None,
        history: Sequence[HistoryTurn] | None = None,
        **options: Unpack[UnderstandOptions],
    ) -> JobHandle[TextResult]:
        """Ask about audio, video or text.

        Args:
            task: a single word names a task (transcribe, caption, qa, classify, sources, scene, speakers, gender,
                sarcasm, feedback); anything longer is a free question.
            audio: one recording or up to 8.
            video: one video or up to 4, of which only the frames are seen; give it as `audio` too to have it heard.
            text: what the named task takes, such as the question of `qa`.
            question: a free question, where a single word is one.
            system: system prompt; the checkpoint's own by default.
            max_new_tokens: longest answer, 1 to 4096; 512 by default.
            history: what was said before, as `("user", ...)` and `("assistant", ...)` in turns, an answer last. Audio
                and video are taken as sent with the first turn.
            options: temperature, seed, language, priority, deadline, commercial, idempotency_key; see
                `UnderstandOptions`.

        Raises:
            InvalidJob, UnknownTask, TaskNotSupported, LanguageNotSupported, LicenceRefused: the request.
            MediaError, ForeignURI: the media; `field` names the argument.
            StorageUnavailable, StorageRefused, BrokerUnavailable: the fleet.
            QueueFull: too much waits; `details["retry_after"]` says in how many seconds to come back.
        """
        check_options("understand", options)
        fields: dict[str, Any] = {**asked(task, question, text), "history": turns(history)}
        fields |= {"system": system, "max_new_tokens": max_new_tokens}
        return self._handle(self._send("understand", fields, {}, {"audio": audio, "video": video}, options))

    def generate(
        self,
        task: str,
        text: str | None = None,
        *,
        ref: MediaSource | None = None,
        ref_text: str | None = None,
        audio: MediaSource | None = None,
        video: MediaSource | None = None,
        seconds: float | None = None,
        mux: bool | None = None,
        **options: Unpack[DiffusionOptions],
    ) -> JobHandle[AudioResult]:
        """Make audio.

        Args:
            task: t2a, t2m (sound or music from text), v2a, v2m (for a video), tts (speech), vc (voice conversion).
            text: the description; for tts and vc what is said.
            ref: tts, vc: a recording of the voice to speak with.
            ref_text: what is said in `ref`.
            audio: vc: the speech to convert.
            video: v2a, v2m: the video to make sound for.
            seconds: length; 10 by default, for v2a and v2m that of the video.
            mux: v2a, v2m: True to have the video with the new sound too, as `result().video`.
            options: steps, guidance, seed, format, language, priority, deadline, commercial, idempotency_key; see
                `DiffusionOptions`.

        Raises:
            As `understand`.
        """
        check_options("generate", options)
        fields: dict[str, Any] = {"name": task_name("generate", task), "text": text, "ref_text": ref_text}
        fields |= {"seconds": seconds, "mux": mux}
        media = {"ref": ref, "audio": audio, "video": video}
        return self._handle(self._send("generate", fields, media, {}, options))

    def edit(
        self,
        task: str,
        audio: MediaSource,
        *,
        desc: str | None = None,
        source: str | None = None,
        target: str | None = None,
        **options: Unpack[DiffusionOptions],
    ) -> JobHandle[AudioResult]:
        """Change audio.

        Args:
            task: add, remove, extract, style or speech.
            audio: what to change.
            desc: add, remove, extract: the sound; speech: the instruction.
            source: style: the sound that is there.
            target: style: the sound to make of it.
            options: steps, guidance, seed, format, language, priority, deadline, commercial, idempotency_key; see
                `DiffusionOptions`.

        Raises:
            As `understand`.
        """
        check_options("edit", options)
        fields = {"name": task_name("edit", task), "desc": desc, "source": source, "target": target}
        return self._handle(self._send("edit", fields, {"audio": audio}, {}, options))

    def job(self, job_id: str) -> JobHandle[JobResult]:
        """The handle of a job by its id, from whichever process it was sent. Not looked up before it is used."""
        return self._handle(job_id)

    def close(self) -> None:
        """Close the connections that this client opened."""
        if self._closes_transport:
            self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(
        self,
        namespace: Namespace,
        fields: Mapping[str, Any],
        media: Mapping[str, MediaSource | None],
        media_lists: Mapping[str, MediaSource | Sequence[MediaSource] | None],
        options: Mapping[str, Any],
    ) -> str:
        with (
            traces.span(f"{namespace} {fields['name']}", "client"),
            Uploads(self._storage, self._settings.max_input_bytes) as uploads,
        ):
            ones = {name: uploads.describe(source, name) for name, source in media.items() if source is not None}
            many = {name: uploads.describe_all(some, name) for name, some in media_lists.items() if some is not None}
            job = build_job(namespace, {**fields, **ones, **many}, options)
            key = idempotency_key(job, options)
            # Only now: a request that is refused has uploaded nothing.
            uploads.send()
            return self._transport.submit(job, key)

    def _handle(self, job_id: str) -> JobHandle[Any]:
        return JobHandle(job_id, self._transport, self._storage, self._settings.url_lifetime)


def _settings(settings: FleetSettings | None, overrides: Mapping[str, str | None]) -> FleetSettings:
    given = {name: value for name, value in overrides.items() if value is not None}
    if settings is not None and not given:
        return settings
    return load_settings(FleetSettings, **((settings.model_dump() if settings else {}) | given))
