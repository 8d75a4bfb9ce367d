"""Capabilities of models: what a model can do and may be used for. Jobs are routed by them, and refused by workers."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from ..errors import InvalidJob, LanguageNotSupported, LicenceRefused, TaskNotSupported
from .base import Record
from .jobs import Job, Language
from .tasks import Speech, TextToSound, VideoToSound, VoiceConversion

_LATIN = ("da", "de", "en", "es", "fi", "fr", "id", "it", "ms", "nl", "no", "pl", "pt", "sv", "sw", "tl", "tr", "vi")
SCRIPTS = {
    **dict.fromkeys(_LATIN, ("LATIN",)),
    "ar": ("ARABIC",),
    "el": ("GREEK",),
    "he": ("HEBREW",),
    "hi": ("DEVANAGARI",),
    "ja": ("HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "CJK"),
    "km": ("KHMER",),
    "ko": ("HANGUL", "CJK"),
    "lo": ("LAO",),
    "my": ("MYANMAR",),
    "ru": ("CYRILLIC",),
    "th": ("THAI",),
    "zh": ("CJK", "BOPOMOFO"),
}
"""Scripts of languages, as the first words of their letters' Unicode names. A model that knows a language which is not
here is not asked whether it knows a text's script."""

COMMERCIAL_MODELS = {
    "understand.transcribe": ("Whisper (MIT)",),
    "understand": ("Qwen2.5-Omni-7B (Apache-2.0)", "Qwen3-Omni-30B-A3B (Apache-2.0)"),
    "generate.t2m": ("ACE-Step (Apache-2.0)",),
    "generate.tts": ("VoxCPM2 (Apache-2.0)", "Kokoro-82M (Apache-2.0)", "Chatterbox (MIT)"),
    "generate.vc": ("VoxCPM2 (Apache-2.0)", "Chatterbox (MIT)", "OpenVoice V2 (MIT)"),
    "edit.extract": ("AudioSep (MIT)",),
    "edit.remove": ("AudioSep (MIT)",),
    "edit.speech": ("VoxCPM2 (Apache-2.0) with Whisper (MIT)",),
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


class TaskCapability(Record):
    """What a model can do of one task. Unknown fields, of a later release, are ignored."""

    model_config = ConfigDict(extra="ignore")

    languages: tuple[Language, ...] | None = None
    """BCP 47, without script and region; None for any."""
    max_seconds: Annotated[float, Field(gt=0)] | None = None
    """Longest output in seconds; None where the task has none, or where only the text limits it."""
    max_text: Annotated[int, Field(ge=1)] | None = None
    """Longest text, in characters; None for as long as a job's text may be."""


class Capabilities(Record):
    """What a model can do and may be used for. Unknown fields, of a later release, are ignored."""

    model_config = ConfigDict(extra="ignore")

    name: Annotated[str, StringConstraints(min_length=1)]
    """Of the model."""
    engine: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    """Engine of the worker that runs it. Jobs for `audio-omni` are done by every checkpoint of that engine, whatever
    its own name."""
    revision: str | None = None
    """Revision of the checkpoint; None where no worker says it."""
    licence: str
    """SPDX id or name of the licence of the model as a whole."""
    commercial_use: bool = False
    """Whether that licence allows commercial use; forbidden by default."""
    parts: tuple[LicensedPart, ...] = ()
    """Parts under licences of their own, which must all allow what a job is for."""
    tasks: Mapping[str, TaskCapability]
    """What it can do, by `namespace.task`."""
    sample_rate: Annotated[int, Field(ge=1)] | None = None
    """Of what it makes, in Hz; None where it makes no sound, or keeps the rate of its source."""
    cloning: bool = False
    """Whether it speaks in the voice of a recording (`ref`)."""
    voice_seconds: Annotated[float, Field(gt=0)] | None = None
    """Seconds of that recording that are used; None for all."""
    needs_transcript: bool = False
    """Whether it needs `ref_text` with a recording."""
    streaming: bool = False
    """Whether it gives out its result in parts, as they are done."""
    speed: bool = False
    """Whether it says a text as fast as it is told (`speed`)."""
    timed: bool = False
    """Whether it says a text in as many seconds as it is told (`seconds`)."""
    adapters: bool = False
    """Whether it takes adapters, such as `omnifleet-worker train` makes for it."""
    seeded: bool = True
    """Whether the same request with the same seed gives the same result."""

    @property
    def editing(self) -> bool:
        """Whether it can edit recordings."""
        return any(task.startswith("edit.") for task in self.tasks)

    @property
    def commercial(self) -> bool:
        """Whether it, with all its parts, may be used commercially."""
        return not self._forbidding

    def validate_job(self, job: Job) -> None:
        """Refuse a job that this model cannot do.

        Raises:
            LicenceRefused: a commercial job, and weights that are not for that.
            TaskNotSupported: a task that it does not have, a voice where it speaks with its own alone, speed or seconds
                where it speaks as fast as it likes, or an adapter where it takes none.
            LanguageNotSupported: a language that it does not know, named or evident from the script of the text.
            InvalidJob: more seconds or text than it can make, parts from a model that gives none, or a job of another
                model.
        """
        if job.model not in (self.name, self.engine):
            remedy = "Give each model's workers a queue of their own, the one that OMNIFLEET_MODELS of producers names"
            raise InvalidJob(f"the job is for {job.model}, and this worker runs {self.name}", "model", remedy)
        for refusal in self.refusals(job):
            raise refusal

    def refusals(self, job: Job) -> Iterator[InvalidJob]:
        """Iterate over the errors of all that it cannot do of a job; none of a job that it can do."""
        yield from self._licence_refusals(job)
        task = f"{job.namespace}.{job.task.name}"
        if (capability := self.tasks.get(task)) is None:
            able = ", ".join(name.partition(".")[2] for name in self.tasks if name.startswith(f"{job.namespace}."))
            remedy = f"What it can {job.namespace}: {able or 'nothing'}"
            yield TaskNotSupported(f"{self.name} cannot do {task} yet", "task", remedy)
            return
        yield from self._language_refusals(job, capability)
        yield from self._voice_refusals(job)
        yield from self._pace_refusals(job)
        yield from self._length_refusals(job, capability)
        if getattr(job, "adapter", None) is not None and not self.adapters:
            yield TaskNotSupported(
                f"{self.name} takes no adapters", "adapter", "Leave adapter out, or use another model"
            )
        if getattr(job, "stream", False) and not self.streaming:
            yield InvalidJob(f"{self.name} gives out nothing before it is done", "stream", "Leave stream out")

    def _licence_refusals(self, job: Job) -> Iterator[InvalidJob]:
        forbidding = self._forbidding
        if not job.commercial or not forbidding:
            return
        task = f"{job.namespace}.{job.task.name}"
        others = COMMERCIAL_MODELS.get(task) or COMMERCIAL_MODELS.get(job.namespace) or ()
        first, *more = (f"{name} is under {licence}" for name, licence in forbidding.items())
        problem = f"{first}, which allows no commercial use" + "".join(f"; {one}, nor does that" for one in more)
        instead = f"Models that may serve {task}: {', '.join(others)}" if others else f"We know of none for {task}"
        details = {"licence": self.licence, "models": list(others), "forbidding": forbidding}
        yield LicenceRefused(problem, "commercial", f"Use another model. {instead}", details)

    @property
    def _forbidding(self) -> dict[str, str]:
        """Licences that forbid commercial use, by what is under them."""
        whole = {} if self.commercial_use else {self.name: self.licence}
        return whole | {f"its {part.name}": part.licence for part in self.parts if not part.commercial_use}

    def _language_refusals(self, job: Job, capability: TaskCapability) -> Iterator[InvalidJob]:
        languages = capability.languages
        if languages is None:
            return
        if job.language is not None and job.language not in languages:
            yield self._language_error(f"language {job.language!r}", "language", languages)
            return
        if not isinstance(job.task, Speech | VoiceConversion):
            return
        for field in ("text", "ref_text"):
            script = _foreign_script(getattr(job.task, field) or "", languages)
            if script:
                yield self._language_error(f"text in {script.title()} script", field, languages)

    def _language_error(self, what: str, field: str, languages: tuple[str, ...]) -> LanguageNotSupported:
        remedy = (
            f"It knows {', '.join(languages)}; for others use another model"
            " (VoxCPM2 and XTTS-v2, for two, speak Russian)"
        )
        return LanguageNotSupported(f"{self.name} was not trained on {what}", field, remedy)

    def _voice_refusals(self, job: Job) -> Iterator[InvalidJob]:
        task = job.task
        if not isinstance(task, Speech | VoiceConversion) or task.ref is None:
            return
        if not self.cloning:
            remedy = "Leave ref out, or use another model"
            yield TaskNotSupported(f"{self.name} does not speak in the voice of a recording", "ref", remedy)
        elif self.needs_transcript and task.ref_text is None:
            problem = f"{self.name} needs what is said in ref"
            yield InvalidJob(problem, "ref_text", "Give ref_text, or add the voice with its text")

    def _pace_refusals(self, job: Job) -> Iterator[InvalidJob]:
        task = job.task
        if not isinstance(task, Speech):
            return
        remedy = "Leave {} out, or use another model"
        if task.speed != 1 and not self.speed:
            yield TaskNotSupported(f"{self.name} speaks as fast as it likes", "speed", remedy.format("speed"))
        if task.seconds is not None and not self.timed:
            problem = f"{self.name} takes as long to speak as it likes"
            yield TaskNotSupported(problem, "seconds", remedy.format("seconds"))

    def _length_refusals(self, job: Job, capability: TaskCapability) -> Iterator[InvalidJob]:
        task, longest, most = job.task, capability.max_seconds, capability.max_text
        seconds = task.seconds if isinstance(task, TextToSound | VideoToSound | Speech) else None
        if longest is not None and seconds is not None and seconds > longest:
            problem = f"{seconds:g} s is more than {self.name} makes of {task.name} in one job"
            yield InvalidJob(problem, "seconds", f"Ask for at most {longest:g} s")
        text = getattr(task, "text", None) or ""
        if most is not None and len(text) > most:
            problem = f"{len(text)} characters are more than {self.name} takes in one job"
            yield InvalidJob(problem, "text", f"Give at most {most} characters")


def _foreign_script(text: str, languages: tuple[str, ...]) -> str | None:
    """The script of most of a text, where it is of none of these languages; None where that is not known."""
    if not all(code in SCRIPTS for code in languages):
        return None
    # Compatibility forms first: full-width letters are Latin, half-width kana are kana.
    plain = unicodedata.normalize("NFKC", text)
    letters = Counter(unicodedata.name(char, "UNNAMED").split()[0] for char in plain if char.isalpha())
    known = set[str]().union(*(SCRIPTS[code] for code in languages))
    foreign = Counter({script: count for script, count in letters.items() if script not in known})
    mostly_foreign = foreign.total() * 2 > letters.total()
    return foreign.most_common(1)[0][0] if mostly_foreign else None
