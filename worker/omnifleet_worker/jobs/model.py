"""What tasks need to know of the loaded checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field

from omnifleet_shared.schema.model_card import ModelCard

from ..models.audio_omni.speech_tokenizer import SpeechTokenizer
from ..models.content_cache import ContentCache
from .prompts import Prompts
from .speech_edit.alignment import WordAligner

TRANSCRIPTS_BYTES = 2**20
"""Characters of reference transcripts kept in memory, about a thousand voices."""


@dataclass(frozen=True, kw_only=True)
class ModelData:
    """Everything but the weights that the tasks of one checkpoint use.

    Attributes:
        card: name, languages and limits of the model.
        prompts: builds the chats of every task.
        precision: what it computes in, and where; with the revision it decides a seed's samples.
        tokenizer: splits text into the tokens that speech is made from.
        aligner: finds words in recordings; None where the worker has none, and speech is not edited.
        transcripts: of reference voices sent without their words, by the voice's content.
    """

    card: ModelCard
    prompts: Prompts
    tokenizer: SpeechTokenizer
    precision: str = ""
    aligner: WordAligner | None = None
    transcripts: ContentCache[str] = field(default_factory=lambda: ContentCache(TRANSCRIPTS_BYTES, len))
