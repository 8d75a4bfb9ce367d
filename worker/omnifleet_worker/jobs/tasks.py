"""What each task asks of the model (docs/model.md, "Tasks"): one function a family, all of one shape."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np
import torch
from omnifleet_shared.errors import InvalidJob, LanguageNotSupported, MediaTooLong
from omnifleet_shared.schema.answers import ANSWERS
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

from ..media.signal import split_at_pauses, trim_silence
from ..media.video import DecodedVideo
from ..models.audio_omni.chat import Chat
from ..models.audio_omni.sampling import CLIP_SAMPLES, SAMPLE_RATE, normalise_peak
from ..models.audio_omni.video import WINDOW_SECONDS, thinker_frames
from .answers import StructuredAnswer, ask_for_record
from .inputs import LENGTH_TOLERANCE_SECONDS, THINKER_SAMPLE_RATE, JobMedia, can_transcribe_in_parts
from .job_context import Clip, JobContext
from .model import ModelData
from .speech_edit.speech_editor import EditedRecording, edit_speech
from .windows import continuation_prompt, count_generated, edit_windows, join_edited, join_generated

VOICE_SECONDS = 6
"""The model speaks with the voice of the reference's last seconds."""
TRANSCRIPT_TOKENS = 256
"""Longest transcript of a voice; what takes more tokens has no room in a clip."""
MAX_SPEECH_TOKENS_PER_SECOND = 25
"""Speech tokens a second; nobody speaks faster, so a text that needs more would be cut off."""
MAX_TRANSCRIPT_TOKENS_PER_SECOND = 8
"""Thinker tokens a second; a part in which more is said would have no room in its answer."""
MIN_PART_SECONDS = 30
"""Seconds of a recording that is transcribed in parts, however short the answers may be."""


TaskOutput = str | StructuredAnswer | np.ndarray | EditedRecording
"""Text, text with its record, a clip (float32 [2, n] at 44.1 kHz) or an edited recording."""


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
            return edit(context, task, media, model)
        case SpeechEdit() as task:
            return edit_speech(context, task, media.recording("audio"), model)


def understand(
    context: JobContext, task: Question | NamedUnderstanding, media: JobMedia, model: ModelData
) -> str | StructuredAnswer:
    """Answer a question with the thinker; for tasks that promise a record, with it."""
    waves = media.all_mono("audio", THINKER_SAMPLE_RATE)
    if can_transcribe_in_parts(task) and len(waves[0]) > model.card.max_listen_seconds * THINKER_SAMPLE_RATE:
        return transcribe_parts(context, task, waves[0], model)
    chat = model.prompts.question(task, audio=waves, video=media.frames)
    if isinstance(task, NamedUnderstanding) and task.name in ANSWERS:
        return ask_for_record(context, task, chat)
    return context.ask(chat, task.max_new_tokens)


def transcribe_parts(context: JobContext, task: NamedUnderstanding, wave: np.ndarray, model: ModelData) -> str:
    """Transcribe a recording that is too long for one request, part by part."""
    room = max(task.max_new_tokens / MAX_TRANSCRIPT_TOKENS_PER_SECOND, MIN_PART_SECONDS)
    parts = split_at_pauses(wave, THINKER_SAMPLE_RATE, min(room, model.card.max_listen_seconds))
    chats = [model.prompts.question(task, audio=(part,)) for part in parts]
    return join_parts(context.ask_all(chats, task.max_new_tokens))


def join_parts(texts: Sequence[str]) -> str:
    """Join the texts of parts, with spaces between them save after scripts that are written without."""
    joined = ""
    for text in filter(None, texts):
        gap = "" if not joined or unicodedata.east_asian_width(joined[-1]) in "WF" else " "
        joined += gap + text
    return joined


def transcribe(context: JobContext, wave: np.ndarray, field: str, model: ModelData) -> str:
    """Transcribe a mono 16 kHz wave. Raises InvalidJob where no word is heard."""
    chat = model.prompts.transcription(audio=(wave,))
    text = model.transcripts.get("transcript", chat, lambda: context.ask(chat, TRANSCRIPT_TOKENS))
    if not text:
        known_as = "ref_text" if field == "ref" else "text"
        raise InvalidJob("no words are heard in it", field, f"Send clear speech, or what it says as {known_as}")
    return text


def generate(context: JobContext, prompt: Chat, seconds: float, video: np.ndarray | None = None) -> np.ndarray:
    """Generate sound or music of that length: one window, and each further one in continuation of the one before.

    Args:
        video: frames that every window is made for; docs/model.md tells nothing else of those after the first 10 s.
    """
    samples = round(seconds * SAMPLE_RATE)
    count = count_generated(samples)
    context.plan(count)
    clips = [context.sample(prompt, video=video)]
    for index in range(1, count):
        clips.append(context.sample(prompt, video=video, audio=continuation_prompt(clips[-1]), index=index))
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


def edit(context: JobContext, task: DescribedEdit | StyleTransfer, media: JobMedia, model: ModelData) -> np.ndarray:
    """Edit the source at its own length; over 10 s in windows that share the engine's steps.

    Stereo, whatever the source is: the model hears the mean of the channels and places what it makes between left and
    right on its own. A stereo source comes back in stereo, but not with its own image.
    """
    source = media.mono("audio", SAMPLE_RATE)
    windows, prompt = edit_windows(len(source)), model.prompts.edit(task)
    clips = context.sample_all(
        [Clip(prompt=prompt, audio=source[one.start : one.stop], index=index) for index, one in enumerate(windows)]
    )
    if len(clips) == 1:
        return clips[0][:, : len(source)]
    return normalise_peak(torch.from_numpy(join_edited(clips, windows))).numpy()


def convert_voice(context: JobContext, task: VoiceConversion, media: JobMedia, model: ModelData) -> np.ndarray:
    """Say what the audio says in the voice of the reference."""
    if task.text is not None:
        return tts(context, task, task.text, "text", media, model)
    text = transcribe(context, media.mono("audio", THINKER_SAMPLE_RATE), "audio", model)
    return tts(context, task, text, "audio", media, model)


def tts(
    context: JobContext, task: Speech | VoiceConversion, text: str, field: str, media: JobMedia, model: ModelData
) -> np.ndarray:
    """Speak a text, in the reference's voice where there is one, as continuation of the reference's own words.

    Args:
        text: what to say.
        field: where the text came from, for errors about it.
    """
    if not media.has("ref"):
        _check_speakable(text, field, CLIP_SAMPLES / SAMPLE_RATE, model)
        return trim_silence(context.sample(model.prompts.speech(), speech=text), SAMPLE_RATE)
    voice = media.mono("ref", SAMPLE_RATE)[-VOICE_SECONDS * SAMPLE_RATE :]
    _check_speakable(text, field, (CLIP_SAMPLES - len(voice)) / SAMPLE_RATE, model)
    heard = media.mono("ref", THINKER_SAMPLE_RATE)[-VOICE_SECONDS * THINKER_SAMPLE_RATE :]
    ref_text = task.ref_text or transcribe(context, heard, "ref", model)
    clip = context.sample(model.prompts.speech(), speech=join_transcript(ref_text, text), audio=voice)
    return trim_silence(clip[:, len(voice) :], SAMPLE_RATE)


def join_transcript(ref_text: str, text: str) -> str:
    """Join the reference's words, ended by `. ` as far as that is missing, then the new ones; `。` needs nothing."""
    if ref_text.endswith(("。", ". ")):
        return ref_text + text
    return f"{ref_text}{' ' if ref_text.endswith('.') else '. '}{text}"


def _check_speakable(text: str, field: str, seconds: float, model: ModelData) -> None:
    if model.tokenizer.unknown_share(text) > 0.5:
        remedy = f"{model.card.name} speaks {', '.join(model.card.languages)}; use another model for others"
        raise LanguageNotSupported("most of it is in signs that the model has no sound for", field, remedy)
    needed = len(model.tokenizer.split(text)) / MAX_SPEECH_TOKENS_PER_SECOND
    if needed > seconds:
        problem = f"it takes at least {needed:.0f} s to say, and one clip has room for {seconds:.1f} s"
        raise InvalidJob(problem, field, "Split it into sentences, one job each")
