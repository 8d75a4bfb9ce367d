"""The media of a job: fetched from storage, checked, decoded within limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import numpy as np
from omnifleet_shared.errors import ForeignURI, MediaError, OmnifleetError
from omnifleet_shared.jobs import EditJob, Job
from omnifleet_shared.model_card import ModelCard
from omnifleet_shared.records import Media
from omnifleet_shared.storage import Storage
from omnifleet_shared.storage.base import check_content

from ..media.decode import Audio, decode_audio
from ..media.limits import MediaLimits
from ..media.signal import resample, to_mono
from ..media.video import Video, decode_video

WATCH_FRAMES_PER_SECOND = 2.0
"""Frames that the thinker sees of each second; what Qwen2.5-Omni takes by default."""

Fetched = Mapping[str, tuple[bytes, ...]]


class JobMedia:
    """Decoded media by the field of the task that named them."""

    def __init__(self, audio: Mapping[str, tuple[Audio, ...]], video: tuple[Video, ...]) -> None:
        self._audio = audio
        self._video = video

    @property
    def frames(self) -> tuple[np.ndarray, ...]:
        """Every video's frames, uint8 [T, H, W, 3] at 2 a second."""
        return tuple(video.frames for video in self._video)

    def has(self, field: str) -> bool:
        """Whether the job sent audio in that field."""
        return bool(self._audio.get(field))

    def seconds(self, field: str) -> float:
        """Length of the field's only recording."""
        return self._audio[field][0].seconds

    def mono(self, field: str, rate: int) -> np.ndarray:
        """The field's only recording, float32 [n] at `rate`."""
        return self.all_mono(field, rate)[0]

    def all_mono(self, field: str, rate: int) -> tuple[np.ndarray, ...]:
        """The field's recordings, each float32 [n] at `rate`."""
        return tuple(resample(to_mono(audio), rate).samples[0] for audio in self._audio.get(field, ()))


def fetch(job: Job, storage: Storage, max_bytes: int) -> Fetched:
    """The bytes of every file that the task names.

    Raises:
        ForeignURI, MediaError, StorageUnavailable, StorageRefused: with the task's field.
    """
    fields = {name: getattr(job.task, name) for name in type(job.task).model_fields}
    return {name: tuple(_fetch(name, one, storage, max_bytes) for one in media) for name, media in _media(fields)}


def _media(fields: Mapping[str, object]) -> list[tuple[str, tuple[Media, ...]]]:
    found = [(name, value if isinstance(value, tuple) else (value,)) for name, value in fields.items()]
    return [(name, cast(tuple[Media, ...], value)) for name, value in found if value and isinstance(value[0], Media)]


def _fetch(field: str, media: Media, storage: Storage, max_bytes: int) -> bytes:
    try:
        data = storage.get(media.uri, max_bytes=max_bytes)
        check_content(media, data, field)
    except (ForeignURI, MediaError) as error:
        raise _of_field(error, field) from error
    return data


def _of_field(error: OmnifleetError, field: str) -> OmnifleetError:
    return type(error)(error.problem, field, error.remedy, error.details)


def decode(job: Job, fetched: Fetched, card: ModelCard, limits: MediaLimits) -> JobMedia:
    """Decode what was fetched. Raises MediaError with the field, also where a recording is too long for the task."""
    audio = {
        field: tuple(decode_audio(data, field=field, limits=_limited(limits, job, field, card)) for data in files)
        for field, files in fetched.items()
        if field != "video"
    }
    watched = replace(limits, max_seconds=card.max_watch_seconds)
    video = tuple(
        decode_video(
            data, frames_per_second=WATCH_FRAMES_PER_SECOND, max_seconds=card.max_watch_seconds, limits=watched
        )
        for data in fetched.get("video", ())
    )
    return JobMedia(audio, video)


def _limited(limits: MediaLimits, job: Job, field: str, card: ModelCard) -> MediaLimits:
    edited = isinstance(job, EditJob) and field == "audio"
    return replace(limits, max_seconds=card.max_edit_seconds if edited else card.max_listen_seconds)
