"""Cards of Audio-Omni's checkpoints: `card.json`, of which their capabilities are made."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from typing import Any, cast

from pydantic import ConfigDict

from ..keys import MODEL
from .base import Record
from .capabilities import Capabilities, LicensedPart, TaskCapability
from .jobs import Job
from .tasks import TASK_NAMES, TextToSound, VideoToSound

NEEDS_SYNCHFORMER = frozenset({"generate.v2a", "generate.v2m"})
"""Tasks that a checkpoint without the video-sync encoder cannot do."""

SUPPORTED_TASKS = tuple(f"{namespace}.{name}" for namespace, names in TASK_NAMES.items() for name in names)

SAMPLE_RATE = 44_100
"""Hz, of all audio that goes into or comes out of the diffusion model."""
VOICE_SECONDS = 6
"""The model speaks with the voice of the reference's last seconds."""


class ModelCard(Record):
    """Name, revision, licences and limits of a checkpoint. Unknown fields, of a later conversion, are ignored."""

    model_config = ConfigDict(extra="ignore")

    name: str = MODEL
    revision: str
    licence: str
    """Licence of the checkpoint as a whole."""
    commercial_use: bool = False
    """Whether that licence allows commercial use; forbidden by default."""
    parts: tuple[LicensedPart, ...] = ()
    """Parts under licences of their own, which must all allow what a job is for; none in cards of older conversions."""
    languages: tuple[str, ...]
    """ISO 639-1 codes."""
    tasks: tuple[str, ...] = SUPPORTED_TASKS
    """Tasks that it can do, as `namespace.task`."""
    max_generate_seconds: float = 300.0
    """Longest sound or music that is generated."""
    max_speech_seconds: float = 600.0
    """Longest speech that is made of one text, in clips of its parts."""
    max_sync_seconds: float = 10.0
    """Longest sound that is in sync with a video (`v2a`): the length that the sync encoder sees at once."""
    max_edit_seconds: float = 600.0
    """Longest source that is edited: 67 windows, and 1.7 GB of the worker's memory where it is 48 kHz stereo."""
    max_listen_seconds: float = 300.0
    """Longest recording that is understood."""
    max_transcribe_seconds: float = 7200.0
    """Longest recording that is transcribed, in parts of at most `max_listen_seconds`: two hours, which take half a
    minute of the minute that decoding may take, and a gigabyte of memory."""
    max_watch_seconds: float = 60.0
    """Longest video that is understood."""

    def validate_job(self, job: Job) -> None:
        """Refuse a job that this model cannot do. Raises as `Capabilities.validate_job`."""
        self.capabilities.validate_job(job)

    @property
    def capabilities(self) -> Capabilities:
        """What the checkpoint can do, as workers report it and producers route by it."""
        return _capabilities(cast(Any, self))  # hashable as it is frozen, which type checkers do not see

    def max_seconds(self, task: TextToSound | VideoToSound) -> float:
        """Give the most seconds that may be asked of a task."""
        return self.max_sync_seconds if task.name == "v2a" else self.max_generate_seconds

    def without_tasks(self, tasks: Collection[str]) -> ModelCard:
        """Copy the card without these tasks."""
        return self.model_copy(update={"tasks": tuple(task for task in self.tasks if task not in tasks)})


@lru_cache(maxsize=16)  # every submission asks
def _capabilities(card: ModelCard) -> Capabilities:
    longest = {
        **dict.fromkeys(("generate.t2a", "generate.t2m", "generate.v2m"), card.max_generate_seconds),
        "generate.v2a": card.max_sync_seconds,
        **dict.fromkeys(("generate.tts", "generate.vc"), card.max_speech_seconds),
        **dict.fromkeys((f"edit.{name}" for name in TASK_NAMES["edit"]), card.max_edit_seconds),
    }
    return Capabilities(
        **card.model_dump(include={"name", "revision", "licence", "commercial_use", "parts"}),
        engine=MODEL,
        tasks={task: TaskCapability(languages=card.languages, max_seconds=longest.get(task)) for task in card.tasks},
        sample_rate=SAMPLE_RATE,
        cloning=True,
        voice_seconds=VOICE_SECONDS,
        streaming=True,
        adapters=True,
    )


AUDIO_OMNI = ModelCard(
    revision="published",
    licence="CC BY-NC 4.0",
    commercial_use=False,
    parts=(
        LicensedPart(name="thinker (Qwen2.5-Omni-3B)", licence="Qwen's research licence"),
        LicensedPart(name="video encoder (Synchformer)", licence="a licence that is not known here"),
    ),
    languages=("en", "zh", "ja", "fr", "de"),
)
"""Audio-Omni as published (arXiv 2604.10708), less what this release's worker cannot do yet."""
