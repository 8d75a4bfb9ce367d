"""What each task asks of the model (docs/model.md, "Tasks"): one function a family, all of one shape."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np
import torch
from omnifleet_shared.errors import InvalidJob, LanguageNotSupported, MediaTooLong, TaskNotSupported
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
from ..media.video import Video
from ..models.audio_omni.chat import Chat
from ..models.audio_omni.sampling import CLIP_SAMPLES, SAMPLE_RATE, normalise_peak
from ..models.audio_omni.video import WINDOW_SECONDS, thinker_frames
from .answers import StructuredAnswer, ask_for_record
from .inputs import HEARING_RATE, OVERTIME_SECONDS, JobMedia, may_be_heard_in_parts
from .job_context import Clip, JobRun
from .model import ModelData
from .speech_edit.speech_editor import EditedSound, edit_speech
from .windows import continuation_prompt, count_generated, edit_windows, join_edited, join_generated

VOICE_SECONDS = 6
"""The model speaks with the voice of the reference's last seconds."""
TRANSCRIPT_TOKENS = 256
"""Longest transcript of a voice; what takes more tokens has no room in a clip."""
FASTEST_SPEECH = 25
"""Tokens a second; nobody speaks faster, so a text that needs more would be cut off."""
FASTEST_TALK = 8
"""The thinker's tokens a second; a part in which more is said would have no room in its answer."""
SHORTEST_PART = 30
"""Seconds of a recording that is transcribed in parts, however short the answers may be."""


def carry_out(run: JobRun, media: JobMedia, model: ModelData) -> str | StructuredAnswer | np.ndarray | EditedSound:
    """What the job asks for: text, text with its record, a clip (float32 [2, n] at 44.1 kHz) or an edited recording.

    Raises:
        AnswerUnreadable: the model did not give the record that the task promises.
        TaskNotSupported, InvalidJob, LanguageNotSupported: what only the checkpoint can tell.
        OmnifleetError: of the engine.
    """
    match run.job.task:
        case Question() | NamedUnderstanding() as task:
            return understand(run, task, media, model)
        case TextToSound() as task:
            return generate(run, model.prompts.sound(task.name, task.text), task.seconds)
        case VideoToSound() as task:
            return accompany(run, task, media.video[0], model)
        case Speech() as task:
            return speak(run, task, task.text, "text", media, model)
        case VoiceConversion() as task:
            return convert_voice(run, task, media, model)
        case DescribedEdit() | StyleTransfer() as task:
            return edit(run, task, media, model)
        case SpeechEdit() as task:
            return edit_speech(run, task, media.recording("audio"), model)
        case task:
            raise TaskNotSupported(f"this worker cannot do {task.name}", "task", "Upgrade the worker")


def understand(
    run: JobRun, task: Question | NamedUnderstanding, media: JobMedia, model: ModelData
) -> str | StructuredAnswer:
    """The thinker's answer to the question; for tasks that promise one, with its record."""
    waves = media.all_mono("audio", HEARING_RATE)
    if may_be_heard_in_parts(task) and len(waves[0]) > model.card.max_listen_seconds * HEARING_RATE:
        return transcribe_parts(run, task, waves[0], model)
    chat = model.prompts.question(task, audio=waves, video=media.frames)
    if isinstance(task, NamedUnderstanding) and task.name in ANSWERS:
        return ask_for_record(run, task, chat)
    return run.ask(chat, task.max_new_tokens)


def transcribe_parts(run: JobRun, task: NamedUnderstanding, wave: np.ndarray, model: ModelData) -> str:
    """What is said in a recording that is too long to be heard at once."""
    room = max(task.max_new_tokens / FASTEST_TALK, SHORTEST_PART)
    parts = split_at_pauses(wave, HEARING_RATE, min(room, model.card.max_listen_seconds))
    chats = [model.prompts.question(task, audio=(part,)) for part in parts]
    return join_parts(run.ask_all(chats, task.max_new_tokens))


def join_parts(texts: Sequence[str]) -> str:
    """The texts of parts as one, with spaces between them save after signs that are written without."""
    joined = ""
    for text in filter(None, texts):
        gap = "" if not joined or unicodedata.east_asian_width(joined[-1]) in "WF" else " "
        joined += gap + text
    return joined


def transcribe(run: JobRun, wave: np.ndarray, field: str, model: ModelData) -> str:
    """What is said in a mono 16 kHz wave. Raises InvalidJob where no word is heard."""
    chat = model.prompts.transcription(audio=(wave,))
    text = model.transcripts.get("transcript", chat, lambda: run.ask(chat, TRANSCRIPT_TOKENS))
    if not text:
        known_as = "ref_text" if field == "ref" else "text"
        raise InvalidJob("no words are heard in it", field, f"Send clear speech, or what it says as {known_as}")
    return text


def generate(run: JobRun, prompt: Chat, seconds: float, video: np.ndarray | None = None) -> np.ndarray:
    """So many seconds of sound or music: one window, or each later one in continuation of the one before.

    Args:
        video: frames that every window is made for; docs/model.md tells nothing else of those after the first 10 s.
    """
    samples = round(seconds * SAMPLE_RATE)
    count = count_generated(samples)
    run.plan(count)
    clips = [run.sample(prompt, video=video)]
    for index in range(1, count):
        clips.append(run.sample(prompt, video=video, audio=continuation_prompt(clips[-1]), index=index))
    return join_generated(clips)[:, :samples]


def accompany(run: JobRun, task: VideoToSound, video: Video, model: ModelData) -> np.ndarray:
    """Sound or music for the video, as long as it is or as was asked; music may go on longer than the model watches.

    Raises:
        MediaTooLong: the video is longer than the model watches, and no length was asked.
    """
    seconds = task.seconds or _length_of(task, video, model.card)
    prompt = model.prompts.film(task.name, task.text, thinker_frames(video.frames))
    return generate(run, prompt, seconds, video.frames)


def _length_of(task: VideoToSound, video: Video, card: ModelCard) -> float:
    longest = card.longest(task)
    limit = min(longest, WINDOW_SECONDS)
    if video.seconds >= limit + OVERTIME_SECONDS:
        problem = f"it is longer than the {limit:g} s that {card.name} watches for its sound"
        remedy = f"Send a shorter video, or give seconds, at most {longest:g}, to have sound for its beginning"
        raise MediaTooLong(problem, "video", remedy, {"max_seconds": limit})
    return min(video.seconds, limit)


def edit(run: JobRun, task: DescribedEdit | StyleTransfer, media: JobMedia, model: ModelData) -> np.ndarray:
    """The source, edited, and as long as it was; over 10 s in windows that share the engine's steps.

    Stereo, whatever the source is: the model hears the mean of the channels and places what it makes between left and
    right on its own. A stereo source comes back in stereo, but not with its own image.
    """
    source = media.mono("audio", SAMPLE_RATE)
    windows, prompt = edit_windows(len(source)), model.prompts.edit(task)
    clips = run.sample_all(
        [Clip(prompt=prompt, audio=source[one.start : one.stop], index=index) for index, one in enumerate(windows)]
    )
    if len(clips) == 1:
        return clips[0][:, : len(source)]
    return normalise_peak(torch.from_numpy(join_edited(clips, windows))).numpy()


def convert_voice(run: JobRun, task: VoiceConversion, media: JobMedia, model: ModelData) -> np.ndarray:
    """What the audio says, in the voice of the reference."""
    if task.text is not None:
        return speak(run, task, task.text, "text", media, model)
    text = transcribe(run, media.mono("audio", HEARING_RATE), "audio", model)
    return speak(run, task, text, "audio", media, model)


def speak(
    run: JobRun, task: Speech | VoiceConversion, text: str, field: str, media: JobMedia, model: ModelData
) -> np.ndarray:
    """Speech, in the reference's voice where one is given: what the model says after the reference's own words.

    Args:
        text: what to say.
        field: where the text came from, for errors about it.
    """
    if not media.has("ref"):
        _check_speakable(text, field, CLIP_SAMPLES / SAMPLE_RATE, model)
        return trim_silence(run.sample(model.prompts.speech(), speech=text), SAMPLE_RATE)
    voice = media.mono("ref", SAMPLE_RATE)[-VOICE_SECONDS * SAMPLE_RATE :]
    _check_speakable(text, field, (CLIP_SAMPLES - len(voice)) / SAMPLE_RATE, model)
    heard = media.mono("ref", HEARING_RATE)[-VOICE_SECONDS * HEARING_RATE :]
    ref_text = task.ref_text or transcribe(run, heard, "ref", model)
    clip = run.sample(model.prompts.speech(), speech=join_transcript(ref_text, text), audio=voice)
    return trim_silence(clip[:, len(voice) :], SAMPLE_RATE)


def join_transcript(ref_text: str, text: str) -> str:
    """The reference's words, ended by `. ` as far as that is missing, then the new ones; `。` needs nothing."""
    if ref_text.endswith(("。", ". ")):
        return ref_text + text
    return f"{ref_text}{' ' if ref_text.endswith('.') else '. '}{text}"


def _check_speakable(text: str, field: str, seconds: float, model: ModelData) -> None:
    if model.tokenizer.unknown_share(text) > 0.5:
        remedy = f"{model.card.name} speaks {', '.join(model.card.languages)}; use another model for others"
        raise LanguageNotSupported("most of it is in signs that the model has no sound for", field, remedy)
    needed = len(model.tokenizer.split(text)) / FASTEST_SPEECH
    if needed > seconds:
        problem = f"it takes at least {needed:.0f} s to say, and one clip has room for {seconds:.1f} s"
        raise InvalidJob(problem, field, "Split it into sentences, one job each")
