"""Speech: a text said in a voice, in as many clips as it takes (docs/model.md, "Tasks")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from omnifleet_shared.errors import InvalidJob, LanguageNotSupported
from omnifleet_shared.schema.model_card import VOICE_SECONDS
from omnifleet_shared.schema.tasks import Speech, VoiceConversion

from ..media.signal import trim_silence
from ..models.audio_omni.sampling import CLIP_SAMPLES, SAMPLE_RATE
from .inputs import THINKER_SAMPLE_RATE, JobMedia
from .job_context import Clip, JobContext
from .model import ModelData
from .speech_parts import join_speech, split_text, streamed_speech
from .transcripts import transcribe

CLIP_SECONDS = CLIP_SAMPLES / SAMPLE_RATE
MAX_SPEECH_TOKENS_PER_SECOND = 25
"""Nobody speaks faster, so a clip with more of them would be cut off."""
SPEECH_TOKENS_PER_SECOND = 12
"""Those of an unhurried speaker, by which a text that fits no single clip is cut into parts."""


@dataclass(frozen=True, eq=False)
class Voice:
    """Whom the model is to sound like.

    Attributes:
        wave: float32 [n], mono at 44.1 kHz, at most `VOICE_SECONDS`.
        text: what is said in it.
    """

    wave: np.ndarray
    text: str

    @classmethod
    def of_clip(cls, clip: np.ndarray, text: str) -> Voice:
        """Take the end of a clip [channels, n] that says the text; of a longer one, the words that are likely there."""
        samples = VOICE_SECONDS * SAMPLE_RATE
        missing = max(0, clip.shape[1] - samples) / clip.shape[1]
        words = text[round(missing * len(text)) :].strip()
        return cls(clip.mean(axis=0, dtype=np.float32)[-samples:], words or text)


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

    A text over one clip is cut at sentences; without a reference they have
    the voice of the first part.

    Args:
        text: what to say.
        field: where the text came from, for errors about it.
    """
    _check_speakable(text, field, model)
    voice_seconds = min(VOICE_SECONDS, media.seconds("ref")) if media.has("ref") else 0
    if _fits(text, (CLIP_SECONDS - voice_seconds) * MAX_SPEECH_TOKENS_PER_SECOND, model):
        parts = [text]
    else:
        _check_length(text, field, model)
        parts = _split(text, model)
    voice = _reference(context, task, media, model) if media.has("ref") else None
    if len(parts) > 1:
        context.plan(len(parts))
        if context.stream is not None:
            return _stream_parts(context, parts, voice, model)
    return join_speech(_speak_parts(context, parts, voice, model), parts, SAMPLE_RATE)


def join_transcript(ref_text: str, text: str) -> str:
    """Join the reference's words, ended by `. ` as far as that is missing, then the new ones; `。` needs nothing."""
    if ref_text.endswith(("。", ". ")):
        return ref_text + text
    return f"{ref_text}{' ' if ref_text.endswith('.') else '. '}{text}"


def _reference(context: JobContext, task: Speech | VoiceConversion, media: JobMedia, model: ModelData) -> Voice:
    heard = media.mono("ref", THINKER_SAMPLE_RATE)[-VOICE_SECONDS * THINKER_SAMPLE_RATE :]
    text = task.ref_text or media.heard.get("ref")
    if text is None:
        text = media.heard["ref"] = transcribe(context, heard, "ref", model)
    return Voice(media.mono("ref", SAMPLE_RATE)[-VOICE_SECONDS * SAMPLE_RATE :], text)


def _speak_parts(context: JobContext, parts: list[str], voice: Voice | None, model: ModelData) -> list[np.ndarray]:
    if voice is not None or len(parts) == 1:
        return _speak(context, parts, voice, model)
    first = _speak(context, parts[:1], None, model)
    return first + _speak(context, parts[1:], Voice.of_clip(first[0], parts[0]), model, index=1)


def _stream_parts(context: JobContext, parts: list[str], voice: Voice | None, model: ModelData) -> np.ndarray:
    """Speak the parts, and give each out as it is done: while it is heard, the next one is made."""
    pieces: list[np.ndarray] = []
    first: np.ndarray | None = None
    for number, part in enumerate(parts):
        (clip,) = _speak(context, [part], voice, model, index=number)
        first = clip if first is None else first
        voice = voice or Voice.of_clip(first, parts[0])
        pieces.append(streamed_speech(clip, first, part, SAMPLE_RATE, is_last=number == len(parts) - 1))
        context.give_out(pieces[-1])
    return np.concatenate(pieces, axis=1)


def _speak(
    context: JobContext, parts: Sequence[str], voice: Voice | None, model: ModelData, index: int = 0
) -> list[np.ndarray]:
    """A clip of each part, without the voice that it begins with and without silence at its ends."""
    wave = None if voice is None else voice.wave
    words = [part.strip() if voice is None else join_transcript(voice.text, part.strip()) for part in parts]
    prompt = model.prompts.speech()
    clips = context.sample_all(
        [Clip(prompt=prompt, speech=text, audio=wave, index=number) for number, text in enumerate(words, index)]
    )
    skipped = 0 if wave is None else len(wave)
    return [trim_silence(clip[:, skipped:], SAMPLE_RATE) for clip in clips]


def _split(text: str, model: ModelData) -> list[str]:
    """Parts that leave room for any voice, each short enough to be the voice of those after it."""
    tokens = min(CLIP_SECONDS - VOICE_SECONDS, VOICE_SECONDS) * SPEECH_TOKENS_PER_SECOND
    return [part for part in split_text(text, lambda part: _fits(part, tokens, model)) if part.strip()]


def _fits(text: str, tokens: float, model: ModelData) -> bool:
    return len(model.tokenizer.split(text)) <= tokens


def _check_speakable(text: str, field: str, model: ModelData) -> None:
    if model.tokenizer.unknown_share(text) > 0.5:
        remedy = f"{model.card.name} speaks {', '.join(model.card.languages)}; use another model for others"
        raise LanguageNotSupported("most of it is in signs that the model has no sound for", field, remedy)


def _check_length(text: str, field: str, model: ModelData) -> None:
    seconds, longest = len(model.tokenizer.split(text)) / SPEECH_TOKENS_PER_SECOND, model.card.max_speech_seconds
    if seconds > longest:
        problem = (
            f"it takes about {seconds:.0f} s to say, and {model.card.name} speaks at most {longest:g} s in one job"
        )
        raise InvalidJob(problem, field, "Split it, one job a chapter")
