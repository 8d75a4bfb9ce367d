"""What is said in recordings, however long they are."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np
from omnifleet_shared.errors import InvalidJob
from omnifleet_shared.schema.tasks import NamedUnderstanding

from ..media.signal import split_at_pauses
from .inputs import THINKER_SAMPLE_RATE
from .job_context import JobContext
from .model import ModelData
from .streaming.text import ask_parts_streamed

TRANSCRIPT_TOKENS = 256
"""Longest transcript of a voice, or of one part of a recording that is spoken again."""
MAX_TRANSCRIPT_TOKENS_PER_SECOND = 8
"""Thinker tokens a second; a part in which more is said would have no room in its answer."""
MIN_PART_SECONDS = 30
"""Seconds of a recording that is transcribed in parts, however short the answers may be."""


def transcribe_parts(context: JobContext, task: NamedUnderstanding, wave: np.ndarray, model: ModelData) -> str:
    """Transcribe a recording that is too long for one request, part by part."""
    parts = split_at_pauses(wave, THINKER_SAMPLE_RATE, part_seconds(task, model))
    chats = [model.prompts.question(task, audio=(part,)) for part in parts]
    if context.stream is not None:
        return ask_parts_streamed(context, chats, task.max_new_tokens, context.stream, following)
    return join_parts(context.ask_all(chats, task.max_new_tokens))


def part_seconds(task: NamedUnderstanding, model: ModelData) -> float:
    """Return the longest part whose transcript has room in one answer."""
    room = max(task.max_new_tokens / MAX_TRANSCRIPT_TOKENS_PER_SECOND, MIN_PART_SECONDS)
    return min(room, model.card.max_listen_seconds)


def join_parts(texts: Sequence[str]) -> str:
    """Join the texts of parts, with spaces between them save after scripts that are written without."""
    joined = ""
    for text in texts:
        joined += following(joined, text)
    return joined


def following(joined: str, text: str) -> str:
    """Return what comes behind the parts so far of the next one: its text with the space before it."""
    if not text or not joined:
        return text
    return text if unicodedata.east_asian_width(joined[-1]) in "WF" else f" {text}"


def transcribe(context: JobContext, wave: np.ndarray, field: str, model: ModelData) -> str:
    """Transcribe a mono 16 kHz wave, a long one in parts. Raises InvalidJob where no word is heard."""
    parts = split_at_pauses(wave, THINKER_SAMPLE_RATE, MIN_PART_SECONDS)
    context.expect_parts(len(parts))
    text = join_parts([_transcribe_part(context, part, model) for part in parts])
    if not text:
        known_as = "ref_text" if field == "ref" else "text"
        raise InvalidJob("no words are heard in it", field, f"Send clear speech, or what it says as {known_as}")
    return text


def _transcribe_part(context: JobContext, wave: np.ndarray, model: ModelData) -> str:
    chat = model.prompts.transcription(audio=(wave,))
    return model.transcripts.get("transcript", chat, lambda: context.ask(chat, TRANSCRIPT_TOKENS))
