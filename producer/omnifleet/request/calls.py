"""The calls that all clients have in common, whether they block or are awaited."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, Unpack

from omnifleet_shared.schema.jobs import Job
from omnifleet_shared.schema.tasks import Namespace, task_name
from omnifleet_shared.settings import FleetSettings
from omnifleet_shared.storage import Storage
from omnifleet_shared.webhooks.allow_list import CallbackHosts

from .build import DiffusionOptions, HistoryTurn, UnderstandOptions, asked, build_job, check_options, turns
from .idempotency import idempotency_key
from .uploads import MediaSource, Uploads

TextJob = TypeVar("TextJob")
AudioJob = TypeVar("AudioJob")


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call, as it was made: nothing of it is checked yet."""

    namespace: Namespace
    title: str
    """What operators read of it in traces, such as `generate t2a`."""
    fields: Callable[[], Mapping[str, Any]]
    """Those of the task that are no media. May raise InvalidJob and UnknownTask."""
    options: Mapping[str, Any]
    media: Mapping[str, MediaSource | None] = field(default_factory=dict[str, MediaSource | None])
    media_lists: Mapping[str, MediaSource | Sequence[MediaSource] | None] = field(
        default_factory=dict[str, MediaSource | Sequence[MediaSource] | None]
    )


class Calls(ABC, Generic[TextJob, AudioJob]):
    """The model's three namespaces. What a call gives is the client's own: a handle, or a coroutine of one."""

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
    ) -> TextJob:
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
            options: temperature, seed, language, priority, deadline, commercial, idempotency_key, callback; see
                `UnderstandOptions`.

        Raises:
            InvalidJob, UnknownTask, TaskNotSupported, LanguageNotSupported, LicenceRefused: the request.
            CallbackRefused: its callback; where this process does not know the allow list, the job fails with it.
            MediaError, ForeignURI: the media; `field` names the argument.
            StorageUnavailable, StorageRefused, BrokerUnavailable: the fleet.
            QueueFull: too much waits; `details["retry_after"]` says in how many seconds to come back.
        """

        def fields() -> Mapping[str, Any]:
            said = {"history": turns(history), "system": system, "max_new_tokens": max_new_tokens}
            return {**asked(task, question, text), **said}

        media_lists = {"audio": audio, "video": video}
        title = f"understand {task if task is not None and len(task.split()) == 1 else 'question'}"
        call = Call(namespace="understand", title=title, fields=fields, media_lists=media_lists, options=options)
        job: TextJob = self._carry(call)
        return job

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
    ) -> AudioJob:
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
            options: steps, quality, guidance, seed, format, language, priority, deadline, commercial, idempotency_key,
                callback; see `DiffusionOptions`.

        Raises:
            As `understand`.
        """

        def fields() -> Mapping[str, Any]:
            said = {"text": text, "ref_text": ref_text, "seconds": seconds, "mux": mux}
            return {"name": task_name("generate", task), **said}

        media = {"ref": ref, "audio": audio, "video": video}
        call = Call(namespace="generate", title=f"generate {task}", fields=fields, media=media, options=options)
        job: AudioJob = self._carry(call)
        return job

    def edit(
        self,
        task: str,
        audio: MediaSource,
        *,
        desc: str | None = None,
        source: str | None = None,
        target: str | None = None,
        **options: Unpack[DiffusionOptions],
    ) -> AudioJob:
        """Change audio.

        Args:
            task: add, remove, extract, style or speech.
            audio: what to change.
            desc: add, remove, extract: the sound; speech: the instruction.
            source: style: the sound that is there.
            target: style: the sound to make of it.
            options: steps, quality, guidance, seed, format, language, priority, deadline, commercial, idempotency_key,
                callback; see `DiffusionOptions`.

        Raises:
            As `understand`.
        """

        def fields() -> Mapping[str, Any]:
            return {"name": task_name("edit", task), "desc": desc, "source": source, "target": target}

        media = {"audio": audio}
        call = Call(namespace="edit", title=f"edit {task}", fields=fields, media=media, options=options)
        job: AudioJob = self._carry(call)
        return job

    @abstractmethod
    def _carry(self, call: Call) -> Any:
        """Make a job of the call and send it."""


class JobMaker:
    """Makes jobs of calls, and uploads their media. Blocks; safe to share between threads.

    Args:
        settings: limits and the allow list.
        storage: where the media go.

    Raises:
        InvalidSetting: an allow list that is none.
    """

    def __init__(self, settings: FleetSettings, storage: Storage) -> None:
        self._max_bytes = settings.max_input_bytes
        self._storage = storage
        self._callback_hosts = CallbackHosts(settings.callback_hosts)

    def make(self, call: Call) -> tuple[Job, str | None]:
        """The job and its idempotency key; its media are in the storage then. Raises as `Calls.understand`."""
        check_options(call.namespace, call.options)
        fields = call.fields()
        with Uploads(self._storage, self._max_bytes) as uploads:
            ones = {name: uploads.describe(source, name) for name, source in call.media.items() if source is not None}
            lists = call.media_lists.items()
            many = {name: uploads.describe_all(some, name) for name, some in lists if some is not None}
            job = build_job(call.namespace, {**fields, **ones, **many}, call.options)
            self._check_callback(job)
            key = idempotency_key(job, call.options)
            # Only now: a request that is refused has uploaded nothing.
            uploads.send()
        return job, key

    def _check_callback(self, job: Job) -> None:
        # A producer without the list does not know; the workers do.
        if job.callback is not None and self._callback_hosts:
            self._callback_hosts.find(job.callback)
