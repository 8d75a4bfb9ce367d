"""Model cards: what a model can do and may be used for. Producers and workers refuse jobs by them."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Collection

from pydantic import ConfigDict

from ..errors import InvalidJob, LanguageNotSupported, LicenceRefused, TaskNotSupported
from ..keys import MODEL
from .base import Record
from .jobs import Job
from .tasks import TASK_NAMES, Speech, TextToSound, VideoToSound, VoiceConversion

SCRIPTS = {
    "en": {"LATIN"},
    "fr": {"LATIN"},
    "de": {"LATIN"},
    "zh": {"CJK", "BOPOMOFO"},
    "ja": {"HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "CJK"},
}
"""Scripts of each language, as the first words of its letters' Unicode names."""

NEEDS_SYNCHFORMER = frozenset({"generate.v2a", "generate.v2m"})
"""Tasks that a checkpoint without the video-sync encoder cannot do."""

SUPPORTED_TASKS = tuple(f"{namespace}.{name}" for namespace, names in TASK_NAMES.items() for name in names)

COMMERCIAL_MODELS = {
    "understand": ("Qwen2.5-Omni-7B (Apache-2.0)", "Qwen3-Omni-30B-A3B (Apache-2.0)"),
    "generate.t2m": ("ACE-Step (Apache-2.0)",),
    "generate.tts": ("Kokoro-82M (Apache-2.0)", "Chatterbox (MIT)"),
    "generate.vc": ("Chatterbox (MIT)", "OpenVoice V2 (MIT)"),
}
"""Models whose licences allow commercial use, by task or namespace, to name in errors."""


class LicensedPart(Record):
    """A part of a checkpoint that comes under a licence of its own."""

    model_config = ConfigDict(extra="ignore")

    name: str
    """The part, and what it is taken from."""
    licence: str
    """Its licence, as in `under …`."""
    commercial_use: bool = False
    """Whether that allows commercial use; forbidden by default, and where the licence is not known."""


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
        """Refuse a job that this model cannot do.

        Raises:
            LicenceRefused: a commercial job, and weights that are not for that.
            TaskNotSupported: a task that it does not have.
            LanguageNotSupported: a language that it does not know, named or evident from the script of the text.
            InvalidJob: more seconds than it can make.
        """
        self._check_licence(job)
        self._check_task(job)
        self._check_language(job)
        self._check_seconds(job)

    def max_seconds(self, task: TextToSound | VideoToSound) -> float:
        """Give the most seconds that may be asked of a task."""
        return self.max_sync_seconds if task.name == "v2a" else self.max_generate_seconds

    def without_tasks(self, tasks: Collection[str]) -> ModelCard:
        """Copy the card without these tasks."""
        return self.model_copy(update={"tasks": tuple(task for task in self.tasks if task not in tasks)})

    def _check_licence(self, job: Job) -> None:
        forbidding = self._forbidding
        if not job.commercial or not forbidding:
            return
        task = f"{job.namespace}.{job.task.name}"
        others = COMMERCIAL_MODELS.get(task) or COMMERCIAL_MODELS.get(job.namespace) or ()
        first, *more = (f"{name} is under {licence}" for name, licence in forbidding.items())
        problem = f"{first}, which allows no commercial use" + "".join(f"; {one}, nor does that" for one in more)
        instead = f"Models that may serve {task}: {', '.join(others)}" if others else f"We know of none for {task}"
        details = {"licence": self.licence, "models": list(others), "forbidding": forbidding}
        raise LicenceRefused(problem, "commercial", f"Use another model. {instead}", details)

    @property
    def _forbidding(self) -> dict[str, str]:
        """Licences that forbid commercial use, by what is under them."""
        whole = {} if self.commercial_use else {self.name: self.licence}
        return whole | {f"its {part.name}": part.licence for part in self.parts if not part.commercial_use}

    def _check_task(self, job: Job) -> None:
        task = f"{job.namespace}.{job.task.name}"
        if task in self.tasks:
            return
        able = ", ".join(name.partition(".")[2] for name in self.tasks if name.startswith(job.namespace))
        raise TaskNotSupported(f"{self.name} cannot do {task} yet", "task", f"What it can {job.namespace}: {able}")

    def _check_language(self, job: Job) -> None:
        if job.language is not None and job.language not in self.languages:
            raise self._language_error(f"language {job.language!r}", "language")
        if not isinstance(job.task, Speech | VoiceConversion):
            return
        for field in ("text", "ref_text"):
            script = self._foreign_script(getattr(job.task, field) or "")
            if script:
                raise self._language_error(f"text in {script.title()} script", field)

    def _foreign_script(self, text: str) -> str | None:
        # Compatibility forms first: full-width letters are Latin, half-width kana are kana.
        plain = unicodedata.normalize("NFKC", text)
        letters = Counter(unicodedata.name(char, "UNNAMED").split()[0] for char in plain if char.isalpha())
        known = set[str]().union(*(SCRIPTS.get(code, set()) for code in self.languages))
        foreign = Counter({script: count for script, count in letters.items() if script not in known})
        mostly_foreign = foreign.total() * 2 > letters.total()
        return foreign.most_common(1)[0][0] if mostly_foreign else None

    def _language_error(self, what: str, field: str) -> LanguageNotSupported:
        remedy = (
            f"It knows {', '.join(self.languages)}; for others use another model"
            " (XTTS-v2 and Qwen3-Omni, for two, speak Russian)"
        )
        return LanguageNotSupported(f"{self.name} was not trained on {what}", field, remedy)

    def _check_seconds(self, job: Job) -> None:
        if not isinstance(job.task, TextToSound | VideoToSound) or job.task.seconds is None:
            return
        longest = self.max_seconds(job.task)
        if job.task.seconds > longest:
            problem = f"{job.task.seconds:g} s is more than {self.name} makes of {job.task.name} in one job"
            raise InvalidJob(problem, "seconds", f"Ask for at most {longest:g} s")


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
