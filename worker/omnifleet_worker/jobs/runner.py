"""The main path of a job in a worker: fetch, decode, carry out, encode, store."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import torch
from omnifleet_shared.jobs import UnderstandJob
from omnifleet_shared.names import RESULT_KEY
from omnifleet_shared.results import Artifact, JobResult, ModelInfo
from omnifleet_shared.storage import Storage

from ..media.encode import CONTENT_TYPES, encode_audio
from ..media.limits import MediaLimits
from ..models.sampling import SAMPLE_RATE, to_int16
from ..settings import WorkerSettings
from .media import JobMedia, decode, fetch
from .run import JobRun
from .tasks import ModelData, carry_out


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
        outcome = carry_out(run, self._load(run), self._model)
        if isinstance(outcome, str):
            return self._result(run, text=outcome)
        return self._result(run, artifact=self._store(run, outcome))

    def _load(self, run: JobRun) -> JobMedia:
        with run.stage("fetched"):
            fetched = fetch(run.job, self._storage, self._settings.max_input_bytes)
        with run.stage("decoded"):
            return decode(run.job, fetched, self._model.card, self._limits)

    def _store(self, run: JobRun, clip: np.ndarray) -> Artifact:
        assert not isinstance(run.job, UnderstandJob)
        form = run.job.format
        with run.stage("encoded"):
            pcm = to_int16(torch.from_numpy(np.ascontiguousarray(clip.T))).numpy()
            data = encode_audio(pcm, SAMPLE_RATE, form)
        with run.stage("stored"):
            key = RESULT_KEY.format(job_id=run.job.job_id, format=form)
            stored = self._storage.put(key, io.BytesIO(data), content_type=CONTENT_TYPES[form])
            url = self._storage.url(stored.uri, self._settings.url_lifetime)
        return Artifact(
            uri=stored.uri,
            url=url,
            sha256=hashlib.sha256(data).hexdigest(),
            bytes=len(data),
            format=form,
            sample_rate=SAMPLE_RATE,
            channels=pcm.shape[1],
            seconds=len(pcm) / SAMPLE_RATE,
        )

    def _result(self, run: JobRun, *, text: str | None = None, artifact: Artifact | None = None) -> JobResult:
        card = self._model.card
        return JobResult(
            job_id=run.job.job_id,
            namespace=run.job.namespace,
            task=run.job.task.name,
            text=text,
            artifact=artifact,
            model=ModelInfo(name=card.name, revision=card.revision, licence=card.licence),
            seed=run.job.seed,
            attempts=run.attempt,
            timings=run.timings,
        )
