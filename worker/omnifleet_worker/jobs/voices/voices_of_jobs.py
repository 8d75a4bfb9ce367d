"""Which named voice a job speaks with, and what is kept of it when the job is done."""

from __future__ import annotations

from omnifleet_shared.schema.base import Media
from omnifleet_shared.schema.jobs import Job
from omnifleet_shared.schema.model_card import VOICE_SECONDS
from omnifleet_shared.schema.tasks import Speech, VoiceConversion
from omnifleet_shared.storage import Storage

from ...models.audio_omni.sampling import SAMPLE_RATE
from ..inputs import JobMedia
from .kept_voices import KeptVoice, KeptVoices


class VoicesOfJobs:
    """Finds and keeps the voices that jobs name. Thread-safe.

    Args:
        storage: of the fleet.
        model: what of the model decides what it hears: name, revision, precision.
        keeps: whether what it hears is kept between jobs; else the recording is heard each time.
    """

    def __init__(self, storage: Storage, model: tuple[str, ...], *, keeps: bool) -> None:
        self._kept = KeptVoices(storage, model)
        self._keeps = keeps

    def find(self, job: Job) -> KeptVoice | None:
        """Find what is kept of the job's voice; None where it has none, or nothing is kept. Raises as `KeptVoices`."""
        media = self._voice(job)
        if media is None:
            return None
        if not self._keeps:
            self._kept.require(media)
            return None
        return self._kept.find(media, _track(job))

    def keep(self, job: Job, media: JobMedia) -> None:
        """Keep the job's voice as the job used it, where there is anything new."""
        recording = self._voice(job)
        if recording is None or not self._keeps:
            return
        known = self._kept.known(recording, _track(job))
        text = media.heard.get("ref") or (known.text if known else None)
        if known is None or known.text != text:
            wave = media.mono("ref", SAMPLE_RATE)[-VOICE_SECONDS * SAMPLE_RATE :]
            self._kept.keep(recording, _track(job), KeptVoice(wave.copy(), text))

    def _voice(self, job: Job) -> Media | None:
        media = job.task.ref if isinstance(job.task, Speech | VoiceConversion) else None
        return media if self._kept.name_of(media) is not None else None


def _track(job: Job) -> int | None:
    """The sound track of the reference; where there is audio beside it, the job's is that one's."""
    return None if getattr(job.task, "audio", None) else job.audio_track
