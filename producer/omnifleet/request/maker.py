"""Jobs of requests: checked as far as is possible without a worker, their media uploaded."""

from __future__ import annotations

from typing import Any, NamedTuple

from omnifleet_shared.audio_formats import check_format
from omnifleet_shared.schema.idempotency import IdempotencyKey
from omnifleet_shared.schema.jobs import EditJob, Job
from omnifleet_shared.schema.results import Route
from omnifleet_shared.schema.tasks import SpeechEdit
from omnifleet_shared.settings import FleetSettings
from omnifleet_shared.storage import Storage
from omnifleet_shared.storage.voices import VoiceFiles
from omnifleet_shared.webhooks.allow_list import CallbackHosts

from ..results.audio_files import sound_form
from ..routing.router import Router, Workers, routed
from .adapters import NamedAdapters
from .build import OPTIONS, build_job, check_arguments, task_fields
from .idempotency import idempotency_key
from .request import MEDIA, Request
from .uploads import Pending, Uploads


class MadeJob(NamedTuple):
    """A job that is ready to be sent."""

    job: Job
    key: IdempotencyKey | None
    """None where the request has none."""
    route: Route | None
    """None where there was no choice of a model."""


class JobMaker:
    """Makes jobs of requests, chooses their models, and uploads their media. Blocks; safe to share between threads.

    Args:
        settings: limits, models and the allow list.
        storage: where the media go.
        pending_deletion: see `Uploads`.
        workers: see `Router`.

    Raises:
        InvalidSetting: an allow list that is none.
    """

    def __init__(
        self,
        settings: FleetSettings,
        storage: Storage,
        pending_deletion: Pending = lambda _: False,
        workers: Workers = lambda _: (),
    ) -> None:
        self._pending_deletion = pending_deletion
        self.router = Router(settings, workers)
        self._max_bytes = settings.max_input_bytes
        self._storage = storage
        self._voices = VoiceFiles(storage)
        self._adapters = NamedAdapters(storage)
        self._callback_hosts = CallbackHosts(settings.callback_hosts)

    def make(self, request: Request, *, job_id: str | None = None) -> MadeJob:
        """Check a request and upload its media.

        Args:
            request: what to make a job of.
            job_id: the job's id; drawn by default.

        Raises:
            As `Calls.understand`; besides, TypeError and the like for arguments that Python itself cannot use.
        """
        with Uploads(self._storage, self._max_bytes, self._pending_deletion) as uploads:
            made = self._build(request, uploads, job_id)
            # Only now: a request that is refused has uploaded nothing.
            uploads.send()
        return made

    def check(self, request: Request) -> None:
        """Check a request as `make` does, but look for local media alone: to hash ten thousand clips takes minutes."""
        with Uploads(self._storage, self._max_bytes, look_only=True) as uploads:
            self._build(request, uploads, None)

    def _build(self, request: Request, uploads: Uploads, job_id: str | None) -> MadeJob:
        check_arguments(request.namespace, request.arguments)
        arguments = {name: value for name, value in request.arguments.items() if value is not None}
        options = {name: arguments.pop(name) for name in OPTIONS[request.namespace] & arguments.keys()}
        adapter, scale = options.pop("adapter", None), options.pop("adapter_scale", None)
        options["adapter"] = self._adapters.find(adapter, scale, commercial=bool(options.get("commercial")))
        fields = task_fields(request.namespace, arguments)
        media = _media(request, uploads)
        job = build_job(request.namespace, fields | media | self._voice(request), options, job_id)
        pinned = self.router.wish(options.get("model"))
        route = self.router.route(job, pinned=pinned, wait=options.get("wait") is not False)
        self._check_callback(job)
        _check_format(job, uploads)
        return MadeJob(routed(job, route), idempotency_key(job, options, pinned), route)

    def _voice(self, request: Request) -> dict[str, Any]:
        """The recording of the voice that a request names, and what is said in it. Raises VoiceNotFound."""
        if request.voice is None:
            return {}
        voice = self._voices.read(request.voice)
        return {"ref": self._voices.media(voice), "ref_text": request.arguments.get("ref_text") or voice.text}

    def _check_callback(self, job: Job) -> None:
        # A producer without the list does not know; the workers do.
        if job.callback is not None and self._callback_hosts:
            self._callback_hosts.find(job.callback)


def _check_format(job: Job, uploads: Uploads) -> None:
    """Refuse a format that cannot hold what a word edit gives back: the recording's own rate and channels.

    Only where the recording is a local file that libsndfile knows; of all others the worker sees to it, before it
    edits. All other jobs make 44.1 kHz stereo, which every format holds.
    """
    if not isinstance(job, EditJob) or not isinstance(job.task, SpeechEdit) or job.format == "wav":
        return
    stream = uploads.local(job.task.audio)
    found = None if stream is None else sound_form(stream)
    if found is not None:
        check_format(job.format, *found)


def _media(request: Request, uploads: Uploads) -> dict[str, Any]:
    describe: Any = uploads.describe_all if request.namespace == "understand" else uploads.describe
    named = [name for name in MEDIA[request.namespace] if name != "ref" or request.voice is None]
    sources = {name: request.arguments.get(name) for name in named}
    return {name: describe(source, name) for name, source in sources.items() if source is not None}
