"""What a model can do and may be used for; the producer refuses early by it, the worker by its own checkpoint's."""

from __future__ import annotations

import unicodedata
from collections import Counter

from .errors import InvalidJob, LanguageNotSupported, TaskNotSupported
from .jobs import Job
from .names import MODEL
from .records import Record
from .tasks import TASK_NAMES, Speech, TextToSound, VoiceConversion

SCRIPTS = {
    "en": {"LATIN"},
    "fr": {"LATIN"},
    "de": {"LATIN"},
    "zh": {"CJK", "BOPOMOFO"},
    "ja": {"HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "CJK"},
}
"""First word of a letter's Unicode name, by language."""

NOT_YET = {"generate.v2a", "generate.v2m", "edit.speech"}
"""In the contract, and not yet done by this release's worker."""


SUPPORTED_TASKS = tuple(
    task
    for namespace, names in TASK_NAMES.items()
    for task in (f"{namespace}.{name}" for name in names)
    if task not in NOT_YET
)


class ModelCard(Record):
    """Name, revision, licence and limits of a checkpoint."""

    name: str = MODEL
    revision: str
    licence: str
    languages: tuple[str, ...]
    """ISO 639-1 codes."""
    tasks: tuple[str, ...] = SUPPORTED_TASKS
    """`namespace.task`"""
    max_generate_seconds: float = 10.0
    """Longest clip that is generated."""
    max_edit_seconds: float = 10.0
    """Longest source that is edited."""
    max_listen_seconds: float = 300.0
    """Longest recording that is understood."""
    max_watch_seconds: float = 60.0
    """Longest video that is understood."""

    def check(self, job: Job) -> None:
        """Refuse what this model cannot do.

        Raises:
            TaskNotSupported: a task that it does not have.
            LanguageNotSupported: a language that it does not speak, named or plain from the script of the text.
            InvalidJob: more seconds than it can make.
        """
        self._check_task(job)
        self._check_language(job)
        self._check_seconds(job)

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
        if isinstance(job.task, TextToSound) and job.task.seconds > self.max_generate_seconds:
            problem = f"{job.task.seconds:g} s is more than {self.name} makes in one job"
            raise InvalidJob(problem, "seconds", f"Ask for at most {self.max_generate_seconds:g} s")


AUDIO_OMNI = ModelCard(
    revision="published",
    licence="CC BY-NC 4.0",
    languages=("en", "zh", "ja", "fr", "de"),
)
"""Audio-Omni as published (arXiv 2604.10708), less what this release's worker cannot do yet."""
