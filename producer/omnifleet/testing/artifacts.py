"""The audio and video files of a fake fleet."""

from __future__ import annotations

import io
from typing import Any

import soundfile
from omnifleet_shared.keys import RESULT_KEY
from omnifleet_shared.schema.jobs import AudioFormat, EditJob, GenerateJob
from omnifleet_shared.schema.results import Artifact, VideoArtifact
from omnifleet_shared.schema.tasks import VideoToSound
from omnifleet_shared.storage import Storage

from ..results.audio_files import FORMATS
from .audio import make_tone

MAX_VIDEO_BYTES = 2**40


def make_artifact(storage: Storage, job: GenerateJob | EditJob, answer: object) -> Artifact:
    """Store the audio that a job makes: the answer's bytes, or a tone. Raises TypeError for an answer in words."""
    if answer is not None and not isinstance(answer, bytes):
        raise TypeError(f"the fake's answer to {job.namespace}.{job.task.name} is a text; it makes audio: use bytes")
    data = make_tone(job) if answer is None else answer
    info: Any = soundfile.info(io.BytesIO(data))
    made: AudioFormat = next(known for known in FORMATS if known == info.format.lower())
    return Artifact(
        **_store(storage, job, data, made, f"audio/{made}"),
        format=made,
        sample_rate=info.samplerate,
        channels=info.channels,
        seconds=info.duration,
    )


def make_video(storage: Storage, job: GenerateJob | EditJob) -> VideoArtifact | None:
    """Store the job's video as it was sent, where the job asks for one."""
    if not isinstance(job.task, VideoToSound) or not job.task.mux:
        return None
    data = storage.get(job.task.video.uri, max_bytes=MAX_VIDEO_BYTES)
    return VideoArtifact(**_store(storage, job, data, "mp4", "video/mp4"), format="mp4", seconds=1.0)


def _store(storage: Storage, job: GenerateJob | EditJob, data: bytes, suffix: str, content_type: str) -> dict[str, Any]:
    key = RESULT_KEY.format(attempt=1, job_id=job.job_id, format=suffix)
    stored = storage.put(key, io.BytesIO(data), content_type=content_type)
    sha256 = storage.describe_input(io.BytesIO(data)).sha256 or ""
    return {"uri": stored.uri, "url": storage.url(stored.uri, 3600), "sha256": sha256, "bytes": stored.bytes}
