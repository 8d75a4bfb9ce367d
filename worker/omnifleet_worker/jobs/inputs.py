"""The media of a job: fetched from storage, checked, decoded within limits."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TypeGuard, cast

import numpy as np
from omnifleet_shared.audio_formats import check_format
from omnifleet_shared.errors import ForeignURI, MediaError, OmnifleetError
from omnifleet_shared.schema.base import Media
from omnifleet_shared.schema.jobs import AudioFormat, EditJob, Job
from omnifleet_shared.schema.model_card import ModelCard
from omnifleet_shared.schema.tasks import NamedUnderstanding, SpeechEdit, VideoToSound
from omnifleet_shared.storage import Storage
from omnifleet_shared.storage.base import verify_sha256

from ..media.decode import AudioForm, DecodedAudio
from ..media.encode import check_samples
from ..media.isolation.processes import MediaProcesses
from ..media.limits import MediaLimits
from ..media.signal import resample, to_mono
from ..media.video import DecodedVideo
from ..models.audio_omni.video import FRAME_SIDE, FRAMES_PER_SECOND, WINDOW_SECONDS

THINKER_SAMPLE_RATE = 16_000
"""Hz of the audio that the thinker takes."""

WATCH_FRAMES_PER_SECOND = 2.0
"""Frames that the thinker sees of each second; what Qwen2.5-Omni takes by default."""

LENGTH_TOLERANCE_SECONDS = 0.2
"""Seconds that a video may be over the limit: videos of ten seconds last some frames more."""

Fetched = Mapping[str, tuple[bytes, ...]]


class JobMedia:
    """Holds decoded media by the task field that named them.

    Args:
        audio: recordings by field.
        video: 2 frames a second, or for `v2a` and `v2m` 25, of 224 x 224 pixels.
        mux_video: the video's file that the new sound is muxed into, if any.
        warnings: what is known already that the result will lack.
    """

    def __init__(
        self,
        audio: Mapping[str, tuple[DecodedAudio, ...]],
        video: tuple[DecodedVideo, ...],
        mux_video: bytes | None = None,
        warnings: tuple[str, ...] = (),
    ) -> None:
        self._audio = audio
        self.video = video
        self.mux_video = mux_video
        self.warnings = warnings
        self.heard: dict[str, str] = {}
        """What the model heard in recordings, by field, as far as it was asked."""

    @property
    def frames(self) -> tuple[np.ndarray, ...]:
        """Every video's frames, uint8 [T, H, W, 3]."""
        return tuple(video.frames for video in self.video)

    @property
    def nbytes(self) -> int:
        """Bytes of everything that it holds."""
        samples = sum(one.samples.nbytes for recordings in self._audio.values() for one in recordings)
        return samples + sum(video.frames.nbytes for video in self.video) + len(self.mux_video or b"")

    def with_recording(self, field: str, recording: DecodedAudio, heard: str | None) -> JobMedia:
        """Copy it with a recording that needed no decoding, and what the model heard in it before."""
        media = JobMedia({**self._audio, field: (recording,)}, self.video, self.mux_video, self.warnings)
        media.heard = {field: heard} if heard is not None else {}
        return media

    def has(self, field: str) -> bool:
        """Whether the job sent audio in that field."""
        return bool(self._audio.get(field))

    def seconds(self, field: str) -> float:
        """Length of the field's only recording."""
        return self._audio[field][0].seconds

    def recording(self, field: str) -> DecodedAudio:
        """The field's only recording at its own rate and channels; of a speech edit float64, else float32."""
        return self._audio[field][0]

    def mono(self, field: str, rate: int) -> np.ndarray:
        """The field's only recording, float32 [n] at `rate`."""
        return self.all_mono(field, rate)[0]

    def all_mono(self, field: str, rate: int) -> tuple[np.ndarray, ...]:
        """The field's recordings, each float32 [n] at `rate`."""
        return tuple(resample(to_mono(audio), rate).samples[0] for audio in self._audio.get(field, ()))


def names_media(job: Job) -> bool:
    """Whether the task names any file."""
    return bool(_media(job))


def fetch(job: Job, storage: Storage, max_bytes: int, without: Collection[str] = ()) -> Fetched:
    """Fetch the bytes of every file that the task names, but for those of the fields that are there already.

    Raises:
        ForeignURI, MediaError, StorageUnavailable, StorageRefused: with the task's field.
    """
    wanted = {name: media for name, media in _media(job) if name not in without}
    return {name: tuple(_fetch(name, one, storage, max_bytes) for one in media) for name, media in wanted.items()}


def fetched_bytes(job: Job, max_bytes: int) -> int:
    """Return the size of all files that the task names; of one whose size is not stated, the most that is fetched."""
    files = [media for _, many in _media(job) for media in many]
    return sum(max_bytes if media.bytes is None else min(media.bytes, max_bytes) for media in files)


def _media(job: Job) -> list[tuple[str, tuple[Media, ...]]]:
    fields = {name: getattr(job.task, name) for name in type(job.task).model_fields}
    found = [(name, value if isinstance(value, tuple) else (value,)) for name, value in fields.items()]
    return [(name, cast(tuple[Media, ...], value)) for name, value in found if value and isinstance(value[0], Media)]


def _fetch(field: str, media: Media, storage: Storage, max_bytes: int) -> bytes:
    try:
        data = storage.get(media.uri, max_bytes=max_bytes)
        verify_sha256(media, data, field)
    except (ForeignURI, MediaError) as error:
        raise _of_field(error, field) from error
    return data


def _of_field(error: OmnifleetError, field: str) -> OmnifleetError:
    return type(error)(error.problem, field, error.remedy, error.details)


def decode(job: Job, fetched: Fetched, card: ModelCard, limits: MediaLimits, processes: MediaProcesses) -> JobMedia:
    """Decode the fetched files, and look whether what is made of them can be written.

    Args:
        job: what is asked.
        fetched: files by field.
        card: of the model.
        limits: what is allowed of each file.
        processes: where they are decoded.

    Raises:
        MediaError: with the field, also where a recording is too long for the task.
        InvalidJob: the job's format cannot hold the edited recording.
    """
    audio = {
        field: tuple(_decode_audio(data, field, job, _limited(limits, job, field, card), processes) for data in files)
        for field, files in fetched.items()
        if field != "video"
    }
    video = tuple(_decode_video(data, job, card, limits, processes) for data in fetched.get("video", ()))
    if isinstance(job, EditJob) and isinstance(job.task, SpeechEdit):
        return JobMedia(audio, video, warnings=check_edited(audio["audio"][0], job.format))
    if isinstance(job.task, VideoToSound) and job.task.mux:
        reason = processes.why_not_muxed(fetched["video"][0], limits=limits)
        return JobMedia(audio, video, None if reason else fetched["video"][0], (reason,) if reason else ())
    return JobMedia(audio, video)


def check_edited(source: DecodedAudio, form: AudioFormat) -> tuple[str, ...]:
    """Look whether a format holds a recording that is edited at its own rate and depth; see `check_samples`.

    Returns:
        Warnings of what it does not keep.

    Raises:
        InvalidJob: it cannot hold that rate, that many channels, or samples above full scale.
    """
    check_format(form, source.sample_rate, len(source.samples))
    warning = check_samples(source.samples.astype(np.float64, copy=False), form, lossy=source.lossy)
    return (warning,) if warning else ()


def decoded_bytes(job: Job, fetched: Fetched, card: ModelCard, limits: MediaLimits, processes: MediaProcesses) -> int:
    """Return the bytes that decoding the fetched files takes at once, as their headers tell; reads nothing else.

    A file that declares no length counts as the longest of its size, one that declares a wrong length as it declares:
    that it fills no more than `limits.max_decoded_bytes` is held while it is decoded. Raises MediaError as `decode`.
    """
    sizes = [
        processes.measure_audio(data, field=field, limits=_limited(limits, job, field, card), **_audio_form(job, field))
        for field, files in fetched.items()
        if field != "video"
        for data in files
    ]
    sizes += [_measure_video(data, job, card, limits, processes) for data in fetched.get("video", ())]
    files = [len(data) for many in fetched.values() for data in many]
    # One file at a time is on its way to the process that decodes it, twice. While the pieces of what it holds are
    # joined, or on their way back, there are two copies of them.
    return sum(files) + 2 * max(files, default=0) + sum(sizes) + max(sizes, default=0)


def _measure_video(data: bytes, job: Job, card: ModelCard, limits: MediaLimits, processes: MediaProcesses) -> int:
    if isinstance(job.task, VideoToSound):
        seconds = WINDOW_SECONDS + LENGTH_TOLERANCE_SECONDS
        return round(seconds * FRAMES_PER_SECOND) * 3 * FRAME_SIDE**2
    watched = replace(limits, max_seconds=card.max_watch_seconds)
    return processes.measure_video(data, frames_per_second=WATCH_FRAMES_PER_SECOND, limits=watched)


def _decode_audio(data: bytes, field: str, job: Job, limits: MediaLimits, processes: MediaProcesses) -> DecodedAudio:
    return processes.decode_audio(data, field=field, limits=limits, **_audio_form(job, field))


def _audio_form(job: Job, field: str) -> AudioForm:
    # Of `audio`, and of a voice where that is all there is to hear.
    named = "audio" if getattr(job.task, "audio", None) else "ref"
    return {
        "exact": isinstance(job.task, SpeechEdit),
        "mono_rate": THINKER_SAMPLE_RATE if can_transcribe_in_parts(job.task) else None,
        "track": job.audio_track if field == named else None,
    }


def _decode_video(
    data: bytes, job: Job, card: ModelCard, limits: MediaLimits, processes: MediaProcesses
) -> DecodedVideo:
    if isinstance(job.task, VideoToSound):
        # A little more than is looked at, so that a video is seen to be too long.
        seen = WINDOW_SECONDS + LENGTH_TOLERANCE_SECONDS
        size = (FRAME_SIDE, FRAME_SIDE)
        pace = FRAMES_PER_SECOND
        return processes.decode_video(data, frames_per_second=pace, max_seconds=seen, size=size, limits=limits)
    longest = card.max_watch_seconds
    watched = replace(limits, max_seconds=longest)
    return processes.decode_video(data, frames_per_second=WATCH_FRAMES_PER_SECOND, max_seconds=longest, limits=watched)


def _limited(limits: MediaLimits, job: Job, field: str, card: ModelCard) -> MediaLimits:
    if isinstance(job, EditJob) and field == "audio" and not isinstance(job.task, SpeechEdit):
        return replace(limits, max_seconds=card.max_edit_seconds)
    in_parts = can_transcribe_in_parts(job.task)
    return replace(limits, max_seconds=card.max_transcribe_seconds if in_parts else card.max_listen_seconds)


def can_transcribe_in_parts(task: object) -> TypeGuard[NamedUnderstanding]:
    """Whether the task transcribes a single recording, which can be cut into parts."""
    if not isinstance(task, NamedUnderstanding):
        return False
    return task.name == "transcribe" and len(task.audio) == 1 and not task.video
