"""What tasks need to know of the loaded checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from omnifleet_shared.errors import TaskNotSupported
from omnifleet_shared.schema.jobs import Job
from omnifleet_shared.schema.model_card import ModelCard
from omnifleet_shared.schema.tasks import NamedUnderstanding, SpeechEdit

from ..models.audio_omni.speech_tokenizer import SpeechTokenizer
from ..models.content_cache import ContentCache
from .prompts import Prompts
from .speech_edit.alignment import WordAligner

if TYPE_CHECKING:  # a checkpoint is checked before the model's libraries are imported
    from ..models.audio_omni.adapters.reader import AdapterReader

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
        aligner: finds words in recordings; None where the worker has none, and does no job that needs it.
        transcripts: of reference voices sent without their words, by the voice's content.
        adapters: reads those that jobs name; None where the worker takes none.
    """

    card: ModelCard
    prompts: Prompts
    tokenizer: SpeechTokenizer
    precision: str = ""
    aligner: WordAligner | None = None
    adapters: AdapterReader | None = None
    transcripts: ContentCache[str] = field(default_factory=lambda: ContentCache(TRANSCRIPTS_BYTES, len))

    def validate_job(self, job: Job) -> None:
        """Refuse a job that this worker cannot do, before anything of it is fetched. Raises as `ModelCard` does."""
        self.card.validate_job(job)
        if getattr(job, "adapter", None) is not None and self.adapters is None:
            remedy = "Start the worker with OMNIFLEET_ADAPTER_CACHE above 0"
            raise TaskNotSupported("this worker takes no adapters", "adapter", remedy)
        task = job.task
        if isinstance(task, SpeechEdit):
            self.require_aligner("task")
        elif isinstance(task, NamedUnderstanding) and task.timestamps == "word":
            self.require_aligner("timestamps")

    def require_aligner(self, field: str = "task") -> WordAligner:
        """Return the aligner. Raises TaskNotSupported where there is none, with the field that needs it."""
        if self.aligner is None:
            remedy = "Start the worker with OMNIFLEET_ALIGNER, the folder of a CTC speech recogniser"
            instead = "; timestamps of segments need none" if field == "timestamps" else ""
            raise TaskNotSupported("this worker has nothing to find words with", field, remedy + instead)
        return self.aligner
