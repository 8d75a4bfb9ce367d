"""Examples to learn from: lines of JSON, checked with the files that they name before anything is computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import av
from omnifleet_shared.errors import InvalidTrainingData, MediaEmpty, MediaNotFound, MediaTooLong, MediaUnreadable
from omnifleet_shared.schema.base import Record, Text
from omnifleet_shared.schema.model_card import VOICE_SECONDS
from pydantic import Field, ValidationError, model_validator

from ...jobs.speech import CLIP_SECONDS
from .audio_edit import example_of, is_audio_edit
from .data_files import DataFile, find_file

TrainedTask = Literal["t2a", "t2m", "v2a", "v2m", "tts", "vc", "add", "remove", "extract", "style"]
"""Tasks of the DiT."""

SOURCE_SECONDS = 10.0
"""What the model hears of an edit's source."""
PADDED_SECONDS = 0.1
"""By which a source may be longer, as what was coded in whole frames is; the model does not hear that."""
SAID_WITHIN_SECONDS = 0.1
"""By which a line's `seconds` and the file's header may differ."""
MOST_LINES_SHOWN = 10

_EDIT = ({"audio", "text"}, set[str]())
_INSTRUCTED = ({"audio", "instruction"}, set[str]())
_NEEDED_AND_ALLOWED: dict[str, tuple[set[str], set[str]]] = {
    "t2a": ({"text"}, set()),
    "t2m": ({"text"}, set()),
    "v2a": ({"video"}, {"text"}),
    "v2m": ({"video"}, {"text"}),
    "tts": ({"text"}, {"voice", "transcript"}),
    "vc": ({"text", "voice", "transcript"}, set()),
    "add": _EDIT,
    "remove": _EDIT,
    "extract": _EDIT,
    "style": ({"audio", "text", "replaces"}, set()),
}

_EDITS = ("add", "remove", "extract", "style")


class ExampleLine(Record):
    """One line: what is asked, and the recording that is the right answer."""

    task: TrainedTask
    target: Path
    """The right answer, at most 10.96 s; with a `voice`, that voice's length counts too."""
    text: Text | None = None
    """What the sound, the change (`desc` of an edit; what a `style` turns into) or the words to say are."""
    audio: Path | None = None
    """Source of an edit, at most 10 s."""
    replaces: Text | None = None
    """`style`: the sound of the source that `text` takes the place of."""
    instruction: Text | None = None
    """Edits: the whole instruction, in place of `text` in the checkpoint's own sentence."""
    voice: Path | None = None
    """`tts`, `vc`: a recording of the voice, at most 6 s."""
    transcript: Text | None = None
    """What is said in `voice`."""
    video: Path | None = None
    """`v2a`, `v2m`: its first 10 s are seen."""
    seconds: Annotated[float, Field(gt=0)] | None = None
    """Length of `target`, which its header is held to; needed where that does not say."""
    made: dict[str, Any] | None = None
    """How `make-pairs` made the files, from which it can make them again; nothing is learned from it."""

    @model_validator(mode="before")
    @classmethod
    def _of_audio_edit(cls, values: Any) -> Any:
        return example_of(values) if is_audio_edit(values) else values

    @model_validator(mode="after")
    def _has_what_its_task_takes(self) -> Self:
        is_instructed = self.task in _EDITS and self.instruction is not None
        needed, allowed = _INSTRUCTED if is_instructed else _NEEDED_AND_ALLOWED[self.task]
        given = {name for name in type(self).model_fields if getattr(self, name) is not None}
        for name in sorted(needed - given):
            raise ValueError(f"{name}: {self.task} needs it. Add it")
        for name in sorted(given - needed - allowed - {"task", "target", "seconds", "made"}):
            raise ValueError(f"{name}: {self.task} does not take it. Leave it out")
        if (self.voice is None) != (self.transcript is None):
            raise ValueError("transcript: a voice and what it says go together. Give both or neither")
        return self


@dataclass(frozen=True)
class Example:
    """A checked line.

    Attributes:
        line: as it was read, its paths from the working folder.
        place: file and number of the line, for errors.
        seconds: length of what is learned: the target, behind the voice where there is one.
    """

    line: ExampleLine
    place: str
    seconds: float


def read_examples(paths: Sequence[Path]) -> list[Example]:
    """Read and check all lines of some files, and the length of every recording that they name.

    Raises:
        InvalidTrainingData: a file cannot be read or holds no example, or lines are wrong; the error names the first
            one and its field, `details["lines"]` has the first ten.
        MediaNotFound, MediaEmpty, MediaUnreadable, MediaTooLong: a recording, named with its line and field.
    """
    placed = [one for path in paths for one in _read_lines(path)]
    wrong = [problem for _, problem in placed if isinstance(problem, dict)]
    if wrong:
        first = wrong[0]
        more = f", and {len(wrong) - 1} more lines are wrong" if len(wrong) > 1 else ""
        details = {"lines": wrong[:MOST_LINES_SHOWN]}
        raise InvalidTrainingData(f"{first['problem']}{more}", first["field"], "Correct the line", details)
    return [_checked(place, line) for place, line in placed if isinstance(line, ExampleLine)]


def _read_lines(path: Path) -> Iterator[tuple[str, ExampleLine | dict[str, str]]]:
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise InvalidTrainingData(f"{path} cannot be read: {error.strerror}", path.name) from error
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise InvalidTrainingData(f"{path} holds no example", path.name, "Write one JSON object a line")
    for number, line in numbered:
        place = f"{path.name}:{number}"
        try:
            yield place, _below(path.parent, ExampleLine.model_validate_json(line))
        except ValidationError as error:
            yield place, _problem(place, error)


def _problem(place: str, error: ValidationError) -> dict[str, str]:
    first = error.errors()[0]
    field, words = ".".join(str(part) for part in first["loc"]), first["msg"]
    if first["type"] == "value_error":
        field, _, words = words.removeprefix("Value error, ").partition(": ")
    return {"field": f"{place}: {field}" if field else place, "problem": words}


def _below(folder: Path, line: ExampleLine) -> ExampleLine:
    return line.model_copy(update={name: folder / path for name, path in files_of(line).items()})


def files_of(line: ExampleLine) -> dict[str, Path]:
    """The files that a line names, by field."""
    named: dict[str, Any] = {name: getattr(line, name) for name in ("target", "audio", "voice", "video")}
    return {name: path for name, path in named.items() if path is not None}


def _checked(place: str, line: ExampleLine) -> Example:
    seconds: dict[str, float] = {}
    for name, path in files_of(line).items():
        field = f"{place}: {name}"
        file = _find_file(path, field)
        seconds[name] = _measure_seconds(file, path, field, said=line.seconds if name == "target" else None)
    learned = seconds["target"] + seconds.get("voice", 0.0)
    _check_seconds(seconds.get("audio", 0.0), SOURCE_SECONDS, f"{place}: audio", PADDED_SECONDS)
    _check_seconds(seconds.get("voice", 0.0), VOICE_SECONDS, f"{place}: voice")
    _check_seconds(learned, CLIP_SECONDS, f"{place}: target")
    return Example(line, place, learned)


def _find_file(path: Path, field: str) -> DataFile:
    file = find_file(path)
    if file is None:
        raise MediaNotFound(f"there is no file {path}", field, "Correct the path; it is taken from the list's folder")
    if file.size == 0:
        raise MediaEmpty(f"{path} holds no bytes", field, "Leave the line out, or make the file again")
    return file


def _check_seconds(seconds: float, most: float, field: str, more: float = 0.0) -> None:
    if seconds > most + more:
        problem = f"it takes {seconds:.2f} s of the model's window, and {most:.2f} s are allowed"
        raise MediaTooLong(problem, field, "Cut it", {"seconds": seconds, "max_seconds": most})


def _measure_seconds(file: DataFile, path: Path, field: str, *, said: float | None) -> float:
    """Length in seconds: as the header tells, which the line is held to, or else as the line says."""
    found = _header_seconds(file, path, field)
    if found <= 0 and said is None:
        remedy = "Give `seconds`, or write it as wav or flac"
        raise MediaUnreadable(f"{path} does not say how long it is", field, remedy)
    if found > 0 and said is not None and abs(found - said) > SAID_WITHIN_SECONDS:
        problem = f"the line says {said:g} s, and {path} is {found:.2f} s long"
        raise InvalidTrainingData(problem, field.replace("target", "seconds"), "Correct it, or leave it out")
    return found if found > 0 else said or 0.0


def _header_seconds(file: DataFile, path: Path, field: str) -> float:
    try:
        with file.open() as opened, av.open(opened, "r") as container:
            streams = [*container.streams.audio, *container.streams.video]
            timed = [float(one.duration * one.time_base) for one in streams if one.duration and one.time_base]
            return timed[0] if timed else (container.duration or 0) / av.time_base
    except (av.FFmpegError, ValueError) as error:
        raise MediaUnreadable(f"{path} is no audio or video: {error}", field, "Make the file again") from error
