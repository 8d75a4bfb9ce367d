"""What each task asks of the model (docs/model.md, "Tasks"): one function a family, all of one shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from omnifleet_shared.errors import MediaTooLong
from omnifleet_shared.schema.answers import ANSWERS
from omnifleet_shared.schema.capabilities import Capabilities
from omnifleet_shared.schema.jobs import Job
from omnifleet_shared.schema.model_card import ModelCard
from omnifleet_shared.schema.tasks import (
    DescribedEdit,
    NamedUnderstanding,
    Question,
    Speech,
    SpeechEdit,
    StyleTransfer,
    TextToSound,
    VideoToSound,
    VoiceConversion,
)

from ..media.video import DecodedVideo
from ..models.audio_omni.chat import Chat
from ..models.audio_omni.sampling import SAMPLE_RATE
from ..models.audio_omni.video import WINDOW_SECONDS, thinker_frames
from .answers import StructuredAnswer, ask_for_record
from .inputs import LENGTH_TOLERANCE_SECONDS, THINKER_SAMPLE_RATE, JobMedia, can_transcribe_in_parts
from .job_context import JobContext
from .model import ModelData
from .sound_edit.sound_editor import EditedSound, edit_sound
from .speech import convert_voice, tts
from .speech_edit.omni_editing import OmniEditing
from .speech_edit.plan import PlannedRecording
from .speech_edit.speech_editor import EditedRecording, edit_speech, plan_speech_edit
from .streaming.text import ask_streamed
from .timestamps.transcripts import TimedTranscript, transcribe_timed
from .transcripts import transcribe_parts
from .windows import continuation_prompt, count_generated, join_generated, newest_generated

if TYPE_CHECKING:
    from ..models.audio_omni.adapters.reader import AdapterReader


@dataclass(frozen=True, eq=False)
class SpokenText:
    """A text that was said.

    Attributes:
        samples: float32 [1, n].
        sample_rate: in Hz.
    """

    samples: np.ndarray
    sample_rate: int


TaskOutput = (
    str
    | StructuredAnswer
    | TimedTranscript
    | np.ndarray
    | EditedSound
    | EditedRecording
    | PlannedRecording
    | SpokenText
)
"""Text, text with its record or times, a clip (float32 [channels, n] at 44.1 kHz), an edit's result or its plan, or
speech."""


class JobModel(Protocol):
    """What jobs need of the loaded model, whichever it is.

    Attributes:
        card: name, revision, licence, and limits of what is decoded for it.
        capabilities: what it can do, as producers route by it.
        precision: what it computes in, and where; with the revision it decides a seed's samples.
        keeps_voices: whether what it hears of a named voice is kept between jobs.
        adapters: reads the adapters that jobs name; None where it takes none.
    """

    @property
    def card(self) -> ModelCard: ...

    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def precision(self) -> str: ...

    @property
    def keeps_voices(self) -> bool: ...

    @property
    def adapters(self) -> AdapterReader | None: ...

    def validate_job(self, job: Job) -> None:
        """Refuse a job that this worker cannot do, before anything of it is fetched. Raises InvalidJob."""
        ...

    def run(self, context: JobContext, media: JobMedia) -> TaskOutput:
        """Ask the engine for what the job's task promises. Raises OmnifleetError."""
        ...


@dataclass(frozen=True, kw_only=True)
class OmniModel(ModelData):
    """What jobs need of Audio-Omni; see `JobModel`."""

    keeps_voices = True

    @property
    def capabilities(self) -> Capabilities:
        """Those of its card, and whether this worker takes adapters."""
        return self.card.capabilities.model_copy(update={"adapters": self.adapters is not None})

    def run(self, context: JobContext, media: JobMedia) -> TaskOutput:
        """See `run_task`."""
        return run_task(context, media, self)


def run_task(context: JobContext, media: JobMedia, model: ModelData) -> TaskOutput:
    """Ask the model for what the job's task promises.

    Raises:
        AnswerUnreadable: the model did not give the record that the task promises.
        TaskNotSupported, InvalidJob, LanguageNotSupported: what only the checkpoint can tell.
        OmnifleetError: of the engine.
    """
    match context.job.task:
        case Question() | NamedUnderstanding() as task:
            return understand(context, task, media, model)
        case TextToSound() as task:
            return generate(context, model.prompts.sound(task.name, task.text), task.seconds)
        case VideoToSound() as task:
            return video_to_audio(context, task, media.video[0], model)
        case Speech() as task:
            return tts(context, task, task.text, "text", media, model)
        case VoiceConversion() as task:
            return convert_voice(context, task, media, model)
        case DescribedEdit() | StyleTransfer() as task:
            return edit_sound(context, task, media, model)
        case SpeechEdit() as task:
            edit_or_plan = plan_speech_edit if task.dry_run else edit_speech
            return edit_or_plan(context, task, media.recording("audio"), OmniEditing(model))


def understand(
    context: JobContext, task: Question | NamedUnderstanding, media: JobMedia, model: ModelData
) -> str | StructuredAnswer | TimedTranscript:
    """Answer a question with the thinker; for tasks that promise a record or times, with them."""
    waves = media.all_mono("audio", THINKER_SAMPLE_RATE)
    if isinstance(task, NamedUnderstanding) and task.timestamps is not None:
        return transcribe_timed(context, task, waves[0], model)
    if can_transcribe_in_parts(task) and len(waves[0]) > model.card.max_listen_seconds * THINKER_SAMPLE_RATE:
        return transcribe_parts(context, task, waves[0], model)
    chat = model.prompts.question(task, audio=waves, video=media.frames)
    if isinstance(task, NamedUnderstanding) and task.name in ANSWERS:
        return ask_for_record(context, task, chat)
    if context.stream is not None:
        return ask_streamed(context, chat, task.max_new_tokens, context.stream)
    return context.ask(chat, task.max_new_tokens)


def generate(context: JobContext, prompt: Chat, seconds: float, video: np.ndarray | None = None) -> np.ndarray:
    """Generate sound or music of that length: one window, and each further one in continuation of the one before.

    Args:
        video: frames that every window is made for; docs/model.md tells nothing else of those after the first 10 s.
    """
    samples = round(seconds * SAMPLE_RATE)
    count = count_generated(samples)
    context.plan(count)
    clips: list[np.ndarray] = []
    for index in range(count):
        heard = continuation_prompt(clips[-1]) if clips else None
        clips.append(context.sample(prompt, video=video, audio=heard, index=index))
        if count > 1:
            context.give_out(newest_generated(clips, samples))
    return join_generated(clips)[:, :samples]


def video_to_audio(context: JobContext, task: VideoToSound, video: DecodedVideo, model: ModelData) -> np.ndarray:
    """Generate sound or music for the video, as long as it is or as was requested; music may outlast the video.

    Raises:
        MediaTooLong: the video is longer than the model watches, and no length was requested.
    """
    seconds = task.seconds or _seconds_of(task, video, model.card)
    prompt = model.prompts.video_to_audio(task.name, task.text, thinker_frames(video.frames))
    return generate(context, prompt, seconds, video.frames)


def _seconds_of(task: VideoToSound, video: DecodedVideo, card: ModelCard) -> float:
    longest = card.max_seconds(task)
    limit = min(longest, WINDOW_SECONDS)
    if video.seconds >= limit + LENGTH_TOLERANCE_SECONDS:
        problem = f"it is longer than the {limit:g} s that {card.name} watches for its sound"
        remedy = f"Send a shorter video, or give seconds, at most {longest:g}, to have sound for its beginning"
        raise MediaTooLong(problem, "video", remedy, {"max_seconds": limit})
    return min(video.seconds, limit)
