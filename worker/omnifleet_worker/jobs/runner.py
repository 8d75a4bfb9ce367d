"""The main path of a job in a worker: fetch, decode, carry out, encode, store."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from omnifleet_shared.errors import StorageUnavailable
from omnifleet_shared.keys import RESULT_KEY
from omnifleet_shared.schema.answers import Answer
from omnifleet_shared.schema.jobs import AudioFormat, UnderstandJob
from omnifleet_shared.schema.results import Artifact, EditedSpan, JobResult, ModelInfo, VideoArtifact
from omnifleet_shared.storage import Storage

from ..media.encode import CONTENT_TYPES, encode_audio, encode_samples
from ..media.limits import MediaLimits
from ..media.mux import CONTENT_TYPES as VIDEO_CONTENT_TYPES
from ..media.mux import mux
from ..models.audio_omni.sampling import SAMPLE_RATE, to_int16
from ..retry import patiently
from ..settings import WorkerSettings
from .answers import StructuredAnswer
from .inputs import JobMedia, decode, fetch
from .job_context import JobRun
from .model import ModelData
from .speech_edit.speech_editor import EditedSound
from .tasks import carry_out

R = TypeVar("R")


class JobRunner:
    """Runs jobs one at a time for each thread that calls it; the engine batches what they ask for.

    Args:
        model: of the loaded checkpoint.
        storage: where media come from and results go.
        settings: limits and lifetimes.
    """

    def __init__(self, model: ModelData, storage: Storage, settings: WorkerSettings) -> None:
        self._model = model
        self._storage = storage
        self._settings = settings
        self._limits = MediaLimits(max_bytes=settings.max_input_bytes, max_decode_seconds=settings.decode_seconds)

    def run(self, run: JobRun) -> JobResult:
        """Carry the job out.

        Raises:
            PermanentError: the job itself is at fault.
            TransientError: it may succeed when tried again.
        """
        self._model.card.check(run.job)
        run.check_in_time()  # before anything is fetched
        media = self._load(run)
        outcome = carry_out(run, media, self._model)
        if isinstance(outcome, str):
            return self._result(run, text=outcome)
        if isinstance(outcome, StructuredAnswer):
            return self._result(run, text=outcome.text, answer=outcome.answer)
        if isinstance(outcome, EditedSound):
            return self._result(run, artifact=self._store_edited(run, outcome), edits=outcome.edits)
        pcm = to_int16(torch.from_numpy(np.ascontiguousarray(outcome.T))).numpy()
        video = None if media.film is None else self._store_video(run, media.film, pcm)
        return self._result(run, artifact=self._store(run, pcm), video=video)

    def _load(self, run: JobRun) -> JobMedia:
        with run.stage("fetched"):
            fetched = self._patiently(run, lambda: fetch(run.job, self._storage, self._settings.max_input_bytes))
        with run.stage("decoded"):
            return decode(run.job, fetched, self._model.card, self._limits)

    def _store(self, run: JobRun, pcm: np.ndarray) -> Artifact:
        assert not isinstance(run.job, UnderstandJob)
        form = run.job.format
        with run.stage("encoded"):
            data = encode_audio(pcm, SAMPLE_RATE, form)
        return self._artifact(run, data, form, SAMPLE_RATE, pcm.T)

    def _store_edited(self, run: JobRun, edited: EditedSound) -> Artifact:
        assert not isinstance(run.job, UnderstandJob)
        form, rate = run.job.format, edited.source.sample_rate
        with run.stage("encoded"):
            data = encode_samples(edited.samples, rate, form, edited.subtype)
        return self._artifact(run, data, form, rate, edited.samples)

    def _artifact(self, run: JobRun, data: bytes, form: AudioFormat, rate: int, samples: np.ndarray) -> Artifact:
        channels, count = samples.shape
        put = self._put(run, data, form, CONTENT_TYPES[form])
        return Artifact(**put, format=form, sample_rate=rate, channels=channels, seconds=count / rate)

    def _store_video(self, run: JobRun, film: bytes, pcm: np.ndarray) -> VideoArtifact:
        with run.stage("encoded"):
            muxed = mux(film, pcm, SAMPLE_RATE, limits=self._limits)
        put = self._put(run, muxed.data, muxed.format, VIDEO_CONTENT_TYPES[muxed.format])
        return VideoArtifact(**put, format=muxed.format, seconds=muxed.seconds)

    def _put(self, run: JobRun, data: bytes, form: str, content_type: str) -> dict[str, Any]:
        """Write a result to storage, and return what both kinds of artifact tell of it."""
        with run.stage("stored"):
            key = RESULT_KEY.format(job_id=run.job.job_id, attempt=run.attempt, format=form)
            stored = self._patiently(run, lambda: self._storage.put(key, io.BytesIO(data), content_type=content_type))
            url = self._storage.url(stored.uri, self._settings.url_lifetime)
        return {"uri": stored.uri, "url": url, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}

    def _patiently(self, run: JobRun, work: Callable[[], R]) -> R:
        patience = self._settings.storage_patience
        return patiently(work, StorageUnavailable, patience, job_id=run.job.job_id, check=run.check_wanted)

    def _result(
        self,
        run: JobRun,
        *,
        text: str | None = None,
        answer: Answer | None = None,
        artifact: Artifact | None = None,
        video: VideoArtifact | None = None,
        edits: tuple[EditedSpan, ...] | None = None,
    ) -> JobResult:
        card = self._model.card
        return JobResult(
            job_id=run.job.job_id,
            namespace=run.job.namespace,
            task=run.job.task.name,
            text=text,
            answer=answer,
            artifact=artifact,
            video=video,
            edits=edits,
            model=ModelInfo(name=card.name, revision=card.revision, licence=card.licence),
            seed=run.job.seed,
            attempts=run.attempt,
            timings=run.timings,
        )
