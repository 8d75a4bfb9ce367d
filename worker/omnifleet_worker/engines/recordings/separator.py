"""What a separator makes of a job: a described sound taken out of a recording, or what is left without it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from omnifleet_shared.audio_formats import LIMITS
from omnifleet_shared.schema.capabilities import Capabilities
from omnifleet_shared.schema.jobs import AudioFormat, EditJob
from omnifleet_shared.schema.tasks import DescribedEdit

from ...jobs.inputs import JobMedia, check_edited
from ...jobs.job_context import JobContext
from ...jobs.sound_edit.sound_editor import EditedSound, depth_of
from ...jobs.windows import edit_windows, join_edited
from ...media.decode import DecodedAudio
from ...media.encode import Subtype
from ...media.signal import resample, to_mono
from ...models.recording_model import RecordingInputs
from ...models.speech_model import Samples
from ..described_model import DescribedModel
from .residual import divide

WINDOW_SECONDS, FADE_SECONDS = 10, 1
"""Longest wave that is worked on at once, and what neighbours share at least."""


class Separator(DescribedModel):
    """See `JobModel`.

    Each channel is separated by itself: what lies in one alone stays there, and channels that are alike stay alike.

    Args:
        capabilities: of the model; `edit.extract` and `edit.remove` are all that is done of its tasks.
        sample_rate: of the waves that it takes and gives, in Hz.
        precision: what it computes in, and where.
    """

    def __init__(self, capabilities: Capabilities, *, sample_rate: int, precision: str) -> None:
        super().__init__(capabilities, precision=precision)
        self._rate = sample_rate

    def run(self, context: JobContext, media: JobMedia) -> EditedSound:
        """Extract or remove a sound, at the source's rate. Raises the engine's typed errors, InvalidJob for a format.

        What is extracted and what is left add up to the source, sample by sample.
        """
        job, task = context.job, context.job.task
        assert isinstance(job, EditJob) and isinstance(task, DescribedEdit)
        source = media.recording("audio")
        if task.channels == 1:
            source = replace(to_mono(source), lossy=source.lossy)
        warnings = check_edited(source, job.format)
        subtype = _subtype(source, job.format)
        taken, left = divide(source.samples, self._take(context, source, task.desc), subtype)
        made = taken if task.name == "extract" else left
        if task.loudness == "peak" and made.any():
            made = made / np.abs(made).max()
        return EditedSound(made, subtype, warnings, source.sample_rate)

    def _take(self, context: JobContext, source: DecodedAudio, about: str) -> Samples:
        """What is described, float32 [channels, n] at the source's rate and as long as it."""
        heard = resample(source, self._rate).samples.astype(np.float32, copy=False)
        fade = FADE_SECONDS * self._rate
        windows = edit_windows(heard.shape[1], WINDOW_SECONDS * self._rate, fade)
        waves = [wave[one.start : one.stop] for one in windows for wave in heard]
        taken = self._take_each(context, waves, about)
        clips = [np.stack([next(taken) for _ in heard]) for _ in windows]
        back = resample(DecodedAudio(join_edited(clips, windows, fade), self._rate), source.sample_rate).samples
        short = max(0, source.samples.shape[1] - back.shape[1])
        return np.pad(back, ((0, 0), (0, short)))[:, : source.samples.shape[1]].astype(np.float32, copy=False)

    @staticmethod
    def _take_each(context: JobContext, waves: list[Samples], about: str) -> Iterator[Samples]:
        """What is taken out of each wave; nothing out of silence, of which the model is not asked."""
        asked = [RecordingInputs(wave=wave, about=about) for wave in waves if wave.any()]
        context.plan_steps(len(asked), 1)
        outcomes = iter(context.work_all(asked)) if asked else iter(())
        return (next(outcomes)[0] if wave.any() else wave for wave in waves)


def _subtype(source: DecodedAudio, form: AudioFormat) -> Subtype:
    """The sample format that both parts of the source are rounded to."""
    depth = depth_of(source)
    return "PCM_24" if depth == "FLOAT" and not LIMITS[form].keeps_floats else depth
