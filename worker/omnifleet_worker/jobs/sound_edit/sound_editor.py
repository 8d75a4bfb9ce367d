"""Runs one edit of sounds: windows of the source go to the model, and come back at its level and in its places."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from omnifleet_shared.audio_formats import LIMITS
from omnifleet_shared.schema.jobs import AudioFormat, UnderstandJob
from omnifleet_shared.schema.tasks import DescribedEdit, StyleTransfer

from ...media.decode import DecodedAudio
from ...media.encode import Subtype, exact_subtype
from ...media.signal import resample
from ...models.audio_omni.sampling import SAMPLE_RATE, normalise_peak
from ..inputs import JobMedia
from ..job_context import Clip, JobContext
from ..model import ModelData
from ..windows import edit_windows, join_edited
from .image import place
from .levels import level_windows

Samples = NDArray[np.float32]

_SAME = 4e-6
"""Of full scale, -108 dB: a sample that is changed by no more keeps all of its bits."""


@dataclass(frozen=True, eq=False)
class EditedSound:
    """A sound that was changed, as loud as its source.

    Args:
        samples: float32 [channels, n].
        subtype: sample format that holds the source's samples.
        warnings: what the result lacks.
        sample_rate: in Hz.
    """

    samples: Samples
    subtype: Subtype
    warnings: tuple[str, ...] = ()
    sample_rate: int = SAMPLE_RATE


def edit_sound(
    context: JobContext, task: DescribedEdit | StyleTransfer, media: JobMedia, model: ModelData
) -> Samples | EditedSound:
    """Edit a source at its own length; over 10 s in windows that share the engine's steps.

    The model hears one channel. A stereo source keeps its image; of others the model places what it makes.

    Returns:
        The edited sound; with a `loudness` of `peak` the model's own clip, float32 [channels, n] with a peak of 1.
    """
    heard = media.mono("audio", SAMPLE_RATE)
    windows, prompt = edit_windows(len(heard)), model.prompts.edit(task)
    clips = context.sample_all(
        [Clip(prompt=prompt, audio=heard[one.start : one.stop], index=index) for index, one in enumerate(windows)]
    )
    clips = [clip[:, : len(one)] for clip, one in zip(clips, windows, strict=True)]
    recording = media.recording("audio")
    if task.loudness == "source":
        assert not isinstance(context.job, UnderstandJob)
        return _finish(_join_at_source(clips, windows, heard, recording, task), recording, context.job.format)
    made = clips[0] if len(clips) == 1 else _join_at_peak(clips, windows, heard, task)
    return made.mean(axis=0, keepdims=True, dtype=np.float32) if task.channels == 1 else made


def _join_at_peak(
    clips: list[Samples], windows: list[range], heard: Samples, task: DescribedEdit | StyleTransfer
) -> Samples:
    gains = level_windows([clip.mean(axis=0, dtype=np.float32) for clip in clips], windows, heard, task.name)
    levelled = [clip * np.float32(gain) for clip, gain in zip(clips, gains, strict=True)]
    joined: Samples = normalise_peak(torch.from_numpy(join_edited(levelled, windows))).numpy()
    return joined


def _join_at_source(
    clips: list[Samples],
    windows: list[range],
    heard: Samples,
    recording: DecodedAudio,
    task: DescribedEdit | StyleTransfer,
) -> Samples:
    """The windows as one recording at the source's level and, where it is stereo, with its image."""
    mids = [clip.mean(axis=0, dtype=np.float32) for clip in clips]
    gains = [np.float32(gain) for gain in level_windows(mids, windows, heard, task.name)]
    source = heard[None]
    if task.channels == 1:
        clips = [mid[None] * gain for mid, gain in zip(mids, gains, strict=True)]
    elif len(recording.samples) == 2:
        source = resample(recording, SAMPLE_RATE).samples.astype(np.float32, copy=False)
        for k, (one, gain) in enumerate(zip(windows, gains, strict=True)):
            part = np.s_[one.start : one.stop]
            clips[k] = place(mids[k] * gain, heard[part], source[:, part], task.name)
    else:
        clips = [clip * gain for clip, gain in zip(clips, gains, strict=True)]
    joined = join_edited(clips, windows)
    return np.where(np.abs(joined - source) <= _SAME, source, joined)


def _finish(samples: Samples, recording: DecodedAudio, form: AudioFormat) -> EditedSound:
    """Choose the depth, and make room for what would go above full scale where the format has none."""
    subtype = depth_of(recording)
    peak = float(np.abs(samples).max())
    if peak <= 1 or (subtype == "FLOAT" and LIMITS[form].keeps_floats):
        return EditedSound(samples, subtype)
    problem = f"the result is {20 * np.log10(peak):.1f} dB quieter than its source, or it would go above full scale"
    return EditedSound(samples / np.float32(peak), subtype, (f"loudness: {problem}. Lower the recording first.",))


def depth_of(recording: DecodedAudio) -> Subtype:
    """Tell the sample format of a source, as far as it is computed with: float32 holds 24 bits; lossy ones have 16."""
    if recording.lossy:
        return "PCM_16"
    exact = exact_subtype(recording.samples)
    return exact if exact in ("PCM_16", "PCM_24") else "FLOAT"
