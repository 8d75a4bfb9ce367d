"""What each task asks of the model (MODEL.md, "Tasks"): one function a family, all of one shape."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from omnifleet_shared.errors import InvalidJob, LanguageNotSupported, TaskNotSupported
from omnifleet_shared.model_card import ModelCard
from omnifleet_shared.tasks import (
    DescribedEdit,
    NamedUnderstanding,
    Question,
    Speech,
    StyleTransfer,
    TextToSound,
    VoiceConversion,
)

from ..media.signal import trim_silence
from ..models.sampling import CLIP_SAMPLES, SAMPLE_RATE
from ..models.speech_tokenizer import SpeechTokenizer
from .media import JobMedia
from .prompts import Prompts
from .run import JobRun

HEARING_RATE = 16_000
"""Hz, of what the thinker hears."""
VOICE_SECONDS = 6
"""The model speaks with the voice of the reference's last seconds."""
TRANSCRIPT_TOKENS = 256
"""Longest transcript of a voice; what takes more tokens has no room in a clip."""
FASTEST_SPEECH = 25
"""Tokens a second; nobody speaks faster, so a text that needs more would be cut off."""


@dataclass(frozen=True, kw_only=True)
class ModelData:
    """What tasks need to know of the checkpoint."""

    card: ModelCard
    prompts: Prompts
    tokenizer: SpeechTokenizer


def carry_out(run: JobRun, media: JobMedia, model: ModelData) -> str | np.ndarray:
    """The text or the clip (float32 [2, n] at 44.1 kHz) that the job asks for.

    Raises:
        TaskNotSupported, InvalidJob, LanguageNotSupported: what only the checkpoint can tell.
        OmnifleetError: of the engine.
    """
    match run.job.task:
        case Question() | NamedUnderstanding() as task:
            return understand(run, task, media, model)
        case TextToSound() as task:
            clip = run.sample(model.prompts.sound(task.name, task.text))
            return clip[:, : round(task.seconds * SAMPLE_RATE)]
        case Speech() as task:
            return speak(run, task, task.text, "text", media, model)
        case VoiceConversion() as task:
            return convert_voice(run, task, media, model)
        case DescribedEdit() | StyleTransfer() as task:
            return edit(run, task, media, model)
        case task:
            raise TaskNotSupported(f"this worker cannot do {task.name}", "task", "Upgrade the worker")


def understand(run: JobRun, task: Question | NamedUnderstanding, media: JobMedia, model: ModelData) -> str:
    """The thinker's answer to the question."""
    chat = model.prompts.question(task, audio=media.all_mono("audio", HEARING_RATE), video=media.frames)
    return run.ask(chat, task.max_new_tokens)


def transcribe(run: JobRun, wave: np.ndarray, field: str, model: ModelData) -> str:
    """What is said in a mono 16 kHz wave. Raises InvalidJob where no word is heard."""
    text = run.ask(model.prompts.transcription(audio=(wave,)), TRANSCRIPT_TOKENS)
    if not text:
        known_as = "ref_text" if field == "ref" else "text"
        raise InvalidJob("no words are heard in it", field, f"Send clear speech, or what it says as {known_as}")
    return text


def edit(run: JobRun, task: DescribedEdit | StyleTransfer, media: JobMedia, model: ModelData) -> np.ndarray:
    """The source, edited, and as long as it was."""
    source = media.mono("audio", SAMPLE_RATE)
    clip = run.sample(model.prompts.edit(task), audio=source)
    return clip[:, : len(source)]


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
