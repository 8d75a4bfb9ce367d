"""A streamed job's parts: given out as they are done, each once, whichever attempts make them.

What was given out stays. A later attempt makes the same samples from the same seed and gives out what follows; where
it made others, because its device computes otherwise, those that were given out are the ones that count. So all parts
joined are the result, to the sample.
"""

from __future__ import annotations

import hashlib
import io
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from omnifleet_shared.content_types import CONTENT_TYPES
from omnifleet_shared.errors import BrokerError, DiskFull, StorageUnavailable
from omnifleet_shared.keys import STREAMED_KEY
from omnifleet_shared.schema.parts import StreamedPart
from omnifleet_shared.schema.results import Artifact
from omnifleet_shared.storage import Storage

from ...media.encode import encode_audio
from ...models.audio_omni.sampling import SAMPLE_RATE, to_int16
from ...retry import retry_until
from ...settings import WorkerSettings

logger = logging.getLogger(__name__)
R = TypeVar("R")
Pcm = NDArray[np.int16]

INTERVAL = 0.25
"""Seconds between two parts of an answer that is being written."""


class PartLog(Protocol):
    """Where parts are announced; see `PartCommits`."""

    def commit(self, job_id: str, tag: str, part: StreamedPart) -> StreamedPart:
        """Give out a part, unless there is one of its number; gives the one that counts."""
        ...

    def read(self, job_id: str) -> Sequence[StreamedPart]:
        """Read all parts that were given out."""
        ...


class JobStreams:
    """Opens the streams of a process's jobs.

    Args:
        storage: holds the samples.
        log: where parts are announced.
        settings: patience and lifetimes.
    """

    def __init__(self, storage: Storage, log: PartLog, settings: WorkerSettings) -> None:
        self.storage = storage
        self.log = log
        self.settings = settings

    def of(self, job_id: str, attempt: int, tag: str, check: Callable[[], None]) -> JobStream:
        """Open the stream of one attempt at a job; see `JobStream`."""
        return JobStream(self, job_id, attempt, tag, check)


class JobStream:
    """The stream of one attempt at a job; used by the job's thread alone. It looks at first what was given out before.

    Args:
        streams: of the process.
        job_id: of the job.
        attempt: its number.
        tag: of the lease of the job's message.
        check: raises where the job is to end; called while Redis or the storage is waited for.

    Raises, as its methods do:
        EngineStopped: another worker has the job.
        BrokerUnavailable: Redis did not come back in time.
        StorageRefused, DiskFull: the storage.
    """

    def __init__(self, streams: JobStreams, job_id: str, attempt: int, tag: str, check: Callable[[], None]) -> None:
        self._streams = streams
        self._job_id = job_id
        self._attempt = attempt
        self._tag = tag
        self._check = check
        self._parts = list(self._retry_redis(lambda: streams.log.read(job_id)))
        self._pcm: list[Pcm] = []

    @property
    def pcm(self) -> Pcm | None:
        """All samples so far, int16 [n, channels]; None where none were added."""
        return np.concatenate(self._pcm) if self._pcm else None

    @property
    def texts(self) -> list[str]:
        """The text of every part so far, those of earlier attempts too."""
        return [part.text for part in self._parts if part.text is not None]

    @property
    def text(self) -> str:
        """All text so far."""
        return "".join(self.texts)

    def add_audio(self, samples: NDArray[np.float32], sample_rate: int = SAMPLE_RATE) -> None:
        """Give out the next samples, unless they were given out before.

        Args:
            samples: float32 [channels, n], in ±1; nothing will change them any more.
            sample_rate: in Hz.
        """
        pcm: Pcm = to_int16(torch.from_numpy(np.ascontiguousarray(samples.T))).numpy()
        data, number = encode_audio(pcm, sample_rate, "wav"), len(self._pcm) + 1
        sha256 = hashlib.sha256(data).hexdigest()
        if number > len(self._parts):
            self._commit(StreamedPart(number=number, audio=self._store(number, data, pcm, sample_rate, sha256)))
        given = self._parts[number - 1].audio
        assert given is not None, "a job that makes audio gives out audio"
        self._pcm.append(pcm if given.sha256 == sha256 else self._read(given))

    def add_text(self, text: str) -> None:
        """Give out the next text; it may be empty where it stands for something in which nothing is said."""
        self._commit(StreamedPart(number=len(self._parts) + 1, text=text))

    def extend_text(self, text: str) -> None:
        """Give out what a text has more than was given out; nothing where it does not begin with that."""
        given = self.text
        if len(text) > len(given) and text.startswith(given):
            self.add_text(text[len(given) :])

    def _commit(self, part: StreamedPart) -> None:
        log = self._streams.log
        self._parts.append(self._retry_redis(lambda: log.commit(self._job_id, self._tag, part)))

    def _store(self, number: int, data: bytes, pcm: Pcm, sample_rate: int, sha256: str) -> Artifact:
        storage = self._streams.storage
        key = STREAMED_KEY.format(job_id=self._job_id, attempt=self._attempt, number=number)
        put = self._retry_storage(lambda: storage.put(key, io.BytesIO(data), content_type=CONTENT_TYPES["wav"]))
        return Artifact(
            uri=put.uri,
            url=storage.url(put.uri, self._streams.settings.url_lifetime),
            sha256=sha256,
            bytes=len(data),
            seconds=len(pcm) / sample_rate,
            format="wav",
            sample_rate=sample_rate,
            channels=pcm.shape[1],
        )

    def _read(self, given: Artifact) -> Pcm:
        extra = {"action": "part_differs", "job_id": self._job_id, "uri": given.uri}
        logger.warning("this attempt made other samples than were given out, which count: %s", given.uri, extra=extra)
        data = self._retry_storage(lambda: self._streams.storage.get(given.uri, max_bytes=given.bytes))
        samples: Any = soundfile.read(io.BytesIO(data), dtype="int16", always_2d=True)[0]
        return cast(Pcm, samples)

    def _retry_redis(self, work: Callable[[], R]) -> R:
        patience = self._streams.settings.redis_patience
        return retry_until(work, BrokerError, patience, job_id=self._job_id, before_retry=self._check)

    def _retry_storage(self, work: Callable[[], R]) -> R:
        # However long it takes, as with results: what comes next cannot be given out without it.
        full, job_id, check = (DiskFull,), self._job_id, self._check
        return retry_until(work, StorageUnavailable, math.inf, give_up_on=full, job_id=job_id, before_retry=check)
