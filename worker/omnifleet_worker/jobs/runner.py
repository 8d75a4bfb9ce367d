"""The main path of a job in a worker: fetch, decode, run the task, encode, store."""

from __future__ import annotations

import hashlib
import io
import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import PurePosixPath
from typing import Any, TypeVar

import numpy as np
import torch
from omnifleet_shared.content_types import CONTENT_TYPES
from omnifleet_shared.errors import DiskFull, MediaError, StorageUnavailable, TransientError
from omnifleet_shared.file_names import file_name
from omnifleet_shared.keys import RESULT_KEY
from omnifleet_shared.schema.adapter import UsedAdapter
from omnifleet_shared.schema.answers import Answer
from omnifleet_shared.schema.base import Media
from omnifleet_shared.schema.jobs import AudioFormat, EditJob, Job, UnderstandJob
from omnifleet_shared.schema.results import Artifact, EditedSpan, EditPlan, JobResult, ModelInfo, VideoArtifact
from omnifleet_shared.schema.transcript import Transcript
from omnifleet_shared.storage import Storage

from ..media.decode import DecodedAudio
from ..media.encode import Subtype
from ..media.isolation.processes import shared_processes
from ..media.limits import MediaLimits
from ..models.audio_omni.sampling import SAMPLE_RATE, to_int16
from ..retry import retry_until
from ..settings import WorkerSettings
from .adapters.kept_adapters import KeptAdapters
from .answers import StructuredAnswer
from .host_memory import Room, host_memory
from .inputs import JobMedia, decode, decoded_bytes, fetch, fetched_bytes, names_media
from .job_context import JobContext
from .parts.finished_parts import FinishedParts
from .parts.job_parts import JobParts
from .sound_edit.sound_editor import EditedSound
from .speech_edit.plan import PlannedRecording
from .speech_edit.speech_editor import EditedRecording
from .streaming.job_stream import JobStreams
from .tasks import JobModel, SpokenText
from .timestamps.transcripts import TimedTranscript
from .voices.voices_of_jobs import VoicesOfJobs

R = TypeVar("R")


class JobRunner:
    """Runs jobs one at a time for each thread that calls it; the engine batches what they ask for.

    Args:
        model: that is loaded.
        storage: holds inputs and results.
        settings: limits and lifetimes.
        parts: keeps what long jobs have finished; without it they start anew at every attempt.
        streams: gives out the parts of streamed jobs; without it their results come whole.
    """

    def __init__(
        self,
        model: JobModel,
        storage: Storage,
        settings: WorkerSettings,
        parts: FinishedParts | None = None,
        streams: JobStreams | None = None,
    ) -> None:
        self._model = model
        self._storage = storage
        self._settings = settings
        self._parts = parts
        self._streams = streams
        self.host_memory = host_memory(settings.host_memory)
        """Shared by all jobs."""
        self._limits = MediaLimits(max_bytes=settings.max_input_bytes, max_decode_seconds=settings.decode_seconds)
        self._media = shared_processes()
        about_model = (model.card.name, model.card.revision, model.precision)
        self._adapters = None if model.adapters is None else KeptAdapters(storage, model.adapters)
        self._voices = VoicesOfJobs(storage, about_model, keeps=model.keeps_voices)

    def run(self, context: JobContext) -> JobResult:
        """Run the job from its inputs to its stored result.

        Raises:
            PermanentError: the job itself is at fault.
            TransientError: it may succeed when tried again.
        """
        if self._parts is not None:
            context.parts = JobParts(self._parts, context.job.job_id, context.attempt)
        if self._streams is not None and not isinstance(context.job, EditJob) and context.job.stream:
            about = (context.job.job_id, context.attempt, context.tag)
            context.stream = self._streams.of(*about, context.raise_if_cancelled)
        try:
            return self._run_in_memory(context)
        except TransientError:
            if context.parts is not None:
                context.parts.flush()
            raise

    def delete_parts(self, context: JobContext | None, job_id: str) -> None:
        """Delete what was kept of a job, now that it has its outcome.

        Args:
            context: of the attempt; None where there was none, and an earlier one may have kept something.
            job_id: of the job.
        """
        if self._parts is None:
            return
        if context is None:
            self._parts.delete(job_id, [])
        elif context.parts is not None:
            context.parts.delete()

    def _run_in_memory(self, context: JobContext) -> JobResult:
        self._model.validate_job(context.job)
        context.raise_if_too_late()  # before anything is fetched
        with self.host_memory.room(context.job.job_id, context.raise_if_cancelled) as room:
            media, adapter = self._load(context, room), self._load_adapter(context)
            result = self._run(context, media)
            if adapter is not None:
                result = result.model_copy(update={"adapter": adapter})
            self._voices.keep(context.job, media)
            return result

    def _run(self, context: JobContext, media: JobMedia) -> JobResult:
        outcome = self._model.run(context, media)
        if isinstance(outcome, str):
            return self._result(context, text=outcome)
        if isinstance(outcome, StructuredAnswer):
            return self._result(context, text=outcome.text, answer=outcome.answer)
        if isinstance(outcome, TimedTranscript):
            return self._result(context, text=outcome.text, transcript=outcome.transcript, warnings=outcome.warnings)
        if isinstance(outcome, PlannedRecording):
            return self._result(context, text=outcome.heard, plan=outcome.plan, warnings=media.warnings)
        if isinstance(outcome, EditedSound):
            artifact = self._store_samples(context, outcome.samples, outcome.sample_rate, outcome.subtype)
            return self._result(context, artifact=artifact, warnings=media.warnings + outcome.warnings)
        if isinstance(outcome, EditedRecording):
            artifact = self._store_samples(context, outcome.samples, outcome.source.sample_rate, outcome.subtype)
            warnings = media.warnings + outcome.warnings
            return self._result(context, artifact=artifact, edits=outcome.edits, warnings=warnings)
        made = outcome if isinstance(outcome, SpokenText) else SpokenText(outcome, SAMPLE_RATE)
        given_out = context.stream.pcm if context.stream is not None else None
        pcm = _to_pcm(made.samples) if given_out is None else given_out
        video, lacking = self._store_video(context, media.mux_video, pcm)
        warnings = media.warnings + lacking
        return self._result(
            context, artifact=self._store(context, pcm, made.sample_rate), video=video, warnings=warnings
        )

    def _load(self, context: JobContext, room: Room) -> JobMedia:
        job, card, most = context.job, self._model.card, self._settings.max_input_bytes
        if not names_media(job):  # most questions and all new sound: no wait for room, storage or a media process
            return decode(job, {}, card, self._limits, self._media)
        room.await_fetching(fetched_bytes(job, most))
        with context.stage("fetched"):
            patience = self._settings.storage_patience
            voice = self._retry_storage(context, lambda: self._voices.find(job), patience)
            there = () if voice is None else ("ref",)
            fetched = self._retry_storage(context, lambda: fetch(job, self._storage, most, without=there), patience)
        with context.stage("decoded"):
            room.await_decoding(decoded_bytes(job, fetched, card, self._limits, self._media))
            media = decode(job, fetched, card, self._limits, self._media)
        if voice is not None:
            media = media.with_recording("ref", DecodedAudio(voice.wave[None], SAMPLE_RATE), voice.text)
        room.settle(media.nbytes)
        return media

    def _load_adapter(self, context: JobContext) -> UsedAdapter | None:
        job, adapters = context.job, self._adapters
        if isinstance(job, UnderstandJob) or job.adapter is None or adapters is None:
            return None
        load = partial(adapters.load, job.adapter, commercial=job.commercial)
        with context.stage("fetched"):
            context.adapter, used = self._retry_storage(context, load, self._settings.storage_patience)
        return used

    def _store(self, context: JobContext, pcm: np.ndarray, rate: int) -> Artifact:
        assert not isinstance(context.job, UnderstandJob)
        form = context.job.format
        with context.stage("encoded"):
            data = self._media.encode_audio(pcm, rate, form)
        return self._artifact(context, data, form, rate, pcm.T)

    def _store_samples(self, context: JobContext, samples: np.ndarray, rate: int, subtype: Subtype) -> Artifact:
        assert not isinstance(context.job, UnderstandJob)
        form = context.job.format
        with context.stage("encoded"):
            data = self._media.encode_samples(samples, rate, form, subtype)
        return self._artifact(context, data, form, rate, samples)

    def _artifact(
        self, context: JobContext, data: bytes, form: AudioFormat, rate: int, samples: np.ndarray
    ) -> Artifact:
        channels, count = samples.shape
        put = self._put(context, data, form, CONTENT_TYPES[form])
        return Artifact(**put, format=form, sample_rate=rate, channels=channels, seconds=count / rate)

    def _store_video(
        self, context: JobContext, video: bytes | None, pcm: np.ndarray
    ) -> tuple[VideoArtifact | None, tuple[str, ...]]:
        """Put the sound under the video's pictures; where that fails the sound is kept, with the reason."""
        if video is None:
            return None, ()
        try:
            with context.stage("encoded"):
                muxed = self._media.mux(video, pcm, SAMPLE_RATE, limits=self._limits)
        except MediaError as error:
            return None, (str(error),)
        put = self._put(context, muxed.data, muxed.format, CONTENT_TYPES[muxed.format])
        return VideoArtifact(**put, format=muxed.format, seconds=muxed.seconds), ()

    def _put(self, context: JobContext, data: bytes, form: str, content_type: str) -> dict[str, Any]:
        """Write a result to storage, and return the fields that both kinds of artifact share."""
        with context.stage("stored"):
            key = RESULT_KEY.format(job_id=context.job.job_id, attempt=context.attempt, format=form)
            named = partial(self._storage.put, key, content_type=content_type, filename=_file_name(context.job, form))
            # However long it takes: with the result given up, all of it would have to be made again.
            stored = self._retry_storage(context, lambda: named(io.BytesIO(data)), math.inf)
            url = self._storage.url(stored.uri, self._settings.url_lifetime)
        return {"uri": stored.uri, "url": url, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}

    @staticmethod
    def _retry_storage(context: JobContext, work: Callable[[], R], timeout: float) -> R:
        job_id, check = context.job.job_id, context.raise_if_cancelled
        # A disk stays full until somebody makes room: the worker steps aside meanwhile.
        full = (DiskFull,)
        return retry_until(work, StorageUnavailable, timeout, give_up_on=full, job_id=job_id, before_retry=check)

    def _result(
        self,
        context: JobContext,
        *,
        text: str | None = None,
        answer: Answer | None = None,
        plan: EditPlan | None = None,
        transcript: Transcript | None = None,
        artifact: Artifact | None = None,
        video: VideoArtifact | None = None,
        edits: tuple[EditedSpan, ...] | None = None,
        warnings: tuple[str, ...] = (),
    ) -> JobResult:
        card = self._model.card
        return JobResult(
            job_id=context.job.job_id,
            namespace=context.job.namespace,
            task=context.job.task.name,
            text=text,
            answer=answer,
            plan=plan,
            transcript=transcript,
            artifact=artifact,
            video=video,
            edits=edits,
            warnings=warnings,
            model=ModelInfo(name=card.name, revision=card.revision, licence=card.licence),
            seed=context.job.seed,
            attempts=context.attempt,
            timings=context.timings,
        )


def _to_pcm(samples: np.ndarray) -> np.ndarray:
    pcm: np.ndarray = to_int16(torch.from_numpy(np.ascontiguousarray(samples.T))).numpy()
    return pcm


def _file_name(job: Job, form: str) -> str:
    """Name a result for whoever saves it: by its task and the words of its request, else the name of its input.

    Inputs that were uploaded are named by their hash alone, in whose place the job's id stands, as short as people
    quote it.
    """
    texts = (getattr(job.task, field, None) for field in ("desc", "target", "text"))
    media = (getattr(job.task, field, None) for field in ("audio", "video"))
    named = (PurePosixPath(one.uri).stem for one in media if isinstance(one, Media))
    own = (name for name in named if not re.fullmatch("[0-9a-f]{64}", name))
    short = job.job_id[:8] if re.fullmatch("[0-9a-f]{32}", job.job_id) else job.job_id
    return file_name(job.task.name, next((word for word in (*texts, *own) if word), short), form)
