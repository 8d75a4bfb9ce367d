"""The tasks of each namespace: one record for each kind of task, discriminated by `name`."""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from ..errors import UnknownTask
from .base import Media, Record, Text

Namespace = Literal["understand", "generate", "edit"]

NamedQuestion = Literal[
    "transcribe", "caption", "qa", "classify", "sources", "scene", "speakers", "gender", "sarcasm", "feedback"
]
HEARING_ONLY = frozenset({"transcribe", "speakers", "gender", "sarcasm", "feedback"})
"""Named questions about sound, which the frames of a video cannot answer."""
Timestamps = Literal["word", "segment"]
Moment = Annotated[float, Field(ge=0)]
"""Seconds from the beginning of a recording."""


class Turn(Record):
    """One turn of a conversation before the job's own question."""

    role: Literal["user", "assistant"]
    text: Text


class _Conversation(Record):
    history: Annotated[tuple[Turn, ...], Field(max_length=32)] = ()
    """Earlier turns: user and assistant alternate, the user first, the assistant last. The job's audio and video belong
    to the first turn."""

    @model_validator(mode="after")
    def _alternates(self) -> Self:
        roles = [turn.role for turn in self.history]
        if roles != ["user", "assistant"] * (len(roles) // 2):
            remedy = "Give pairs of a user's turn and the assistant's answer; the next question is the job's own"
            raise ValueError(f"history: user and assistant do not take turns. {remedy}")
        return self


class Question(_Conversation):
    """A free question (`understand`), about media or about text alone."""

    name: Literal["question"] = "question"
    text: Text
    """The question."""
    audio: Annotated[tuple[Media, ...], Field(max_length=8)] = ()
    video: Annotated[tuple[Media, ...], Field(max_length=4)] = ()
    """Only the frames are used; for its sound, give the same file as `audio` too."""
    system: Text | None = None
    """System prompt; the checkpoint's own when absent."""
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] = 512


class NamedUnderstanding(_Conversation):
    """A named question (`understand`), for which the worker has the prompt."""

    name: NamedQuestion
    text: Text | None = None
    """`qa`: the question. `feedback`: what the learner meant to say. Others: context."""
    audio: Annotated[tuple[Media, ...], Field(max_length=8)] = ()
    video: Annotated[tuple[Media, ...], Field(max_length=4)] = ()
    system: Text | None = None
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] = 512
    # Left out where there are none: workers of older schema versions refuse the field.
    timestamps: Annotated[Timestamps | None, Field(exclude_if=lambda one: one is None)] = None
    """`transcribe`: `word` gives the time of every word, by workers with an aligner; `segment` that of what is said
    between pauses. Since schema version 5."""

    @model_validator(mode="after")
    def _times_one_recording(self) -> Self:
        one_recording = self.name == "transcribe" and len(self.audio) == 1 and not self.video
        if self.timestamps is not None and not one_recording:
            raise ValueError("timestamps: are of what one recording says. Transcribe one alone, or leave them out")
        return self

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        if self.name in HEARING_ONLY and not self.audio:
            raise ValueError(f"audio: {self.name} needs audio. Give audio")
        if not self.audio and not self.video:
            raise ValueError(f"audio: {self.name} needs audio or video. Give either")
        if self.name == "qa" and self.text is None:
            raise ValueError("text: qa needs the question as text. Give text")
        return self


class TextToSound(Record):
    """Sound (`t2a`) or music (`t2m`) from a description (`generate`)."""

    name: Literal["t2a", "t2m"]
    text: Text
    seconds: Annotated[float, Field(ge=0.1)] = 10.0


class VideoToSound(Record):
    """Sound (`v2a`) or music (`v2m`) for a video (`generate`)."""

    name: Literal["v2a", "v2m"]
    video: Media
    text: Annotated[str, StringConstraints(strip_whitespace=True, max_length=10_000)] = ""
    seconds: Annotated[float, Field(ge=0.1)] | None = None
    """Length of the sound; that of the video when absent. Needed where the video is longer than the model's clips."""
    mux: bool = False
    """Whether to make a second file: the video's pictures with the new sound in place of its own."""


class Speech(Record):
    """Speech from text (`generate`, `tts`), in the reference's voice where one is given."""

    name: Literal["tts"] = "tts"
    text: Text
    ref: Media | None = None
    """A recording of the voice to speak with; its last 6 seconds are used."""
    ref_text: Text | None = None
    """Transcript of `ref`; the model transcribes it when absent."""
    # Each left out where it is the default: workers of older schema versions refuse the fields.
    speed: Annotated[float, Field(ge=0.25, le=4, exclude_if=lambda speed: speed == 1)] = 1.0
    """How fast it is said: 2 is twice as fast as the model speaks by itself. Since schema version 9."""
    seconds: Annotated[float | None, Field(ge=0.1, exclude_if=lambda seconds: seconds is None)] = None
    """How long it takes to say; in place of `speed`. Since schema version 9."""

    @model_validator(mode="after")
    def _pace_is_one(self) -> Self:
        if self.seconds is not None and self.speed != 1:
            raise ValueError("speed: seconds say already how fast the text is said. Give speed, or seconds")
        return self

    @model_validator(mode="after")
    def _transcript_has_its_voice(self) -> Self:
        if self.ref_text is not None and self.ref is None:
            raise ValueError("ref_text: is the transcript of ref, and there is no ref. Give ref, or no ref_text")
        return self


class VoiceConversion(Record):
    """Voice conversion (`generate`, `vc`): the words of `audio` (or `text`) in the voice of `ref`."""

    name: Literal["vc"] = "vc"
    ref: Media
    ref_text: Text | None = None
    audio: Media | None = None
    text: Text | None = None
    """Transcript of `audio`; the model transcribes it when absent."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.audio is None and self.text is None:
            raise ValueError("audio: vc needs the speech to convert, as audio or as its text. Give either")
        return self


Loudness = Literal["source", "peak"]


class _SoundEdit(Record):
    audio: Media
    # Left out where they are the default: workers of older schema versions refuse the fields.
    loudness: Annotated[Loudness, Field(exclude_if=lambda loudness: loudness == "source")] = "source"
    """`source`: what is kept is as loud as it was, and stays where it was between left and right. `peak`: as the
    published model gives it, with a peak of full scale, and placed by the model. Since schema version 7."""
    channels: Annotated[int, Field(ge=1, le=2, exclude_if=lambda channels: channels == 2)] = 2
    """1 for a mono result; 2, the default, for stereo. Since schema version 7."""


class DescribedEdit(_SoundEdit):
    """An edit that adds, removes or extracts the sound that `desc` names."""

    name: Literal["add", "remove", "extract"]
    desc: Text


class StyleTransfer(_SoundEdit):
    """An edit (`style`) that turns the sound `source` into `target`."""

    name: Literal["style"] = "style"
    source: Text
    target: Text


class SpeechEdit(Record):
    """An edit (`speech`) of spoken words."""

    name: Literal["speech"] = "speech"
    audio: Media
    # Each left out where it is none: workers of older schema versions need `desc`, and refuse the others.
    desc: Annotated[Text | None, Field(exclude_if=lambda desc: desc is None)] = None
    """The instruction, such as `replace 'hello' with 'goodbye'`; needed where there is no span."""
    span: Annotated[tuple[Moment, Moment] | None, Field(exclude_if=lambda span: span is None)] = None
    """In place of `desc`: seconds between which `text` is said instead of the words whose middle lies there. Since
    schema version 5."""
    text: Annotated[Text | None, Field(exclude_if=lambda text: text is None)] = None
    """The words to say in `span`; without any, those in it are deleted. Since schema version 5."""
    # Left out where it is none: workers of older schema versions refuse the field.
    dry_run: Annotated[bool, Field(exclude_if=lambda dry: not dry)] = False
    """Whether to say which words would change, and when they are said, and make nothing. Since schema version 4."""

    @model_validator(mode="after")
    def _says_what_changes(self) -> Self:
        if self.desc is None and self.span is None:
            raise ValueError("desc: speech needs the instruction, or a span of seconds. Give desc, or span")
        if self.desc is not None and self.span is not None:
            raise ValueError("span: an instruction and a span are two requests. Give desc, or span with text")
        if self.text is not None and self.span is None:
            raise ValueError("text: is what to say in a span, and there is no span. Give span, or no text")
        if self.span is not None and self.span[1] < self.span[0]:
            raise ValueError("span: it ends before it begins. Give the earlier second first")
        return self


Understanding = Annotated[Question | NamedUnderstanding, Field(discriminator="name")]
Generation = Annotated[TextToSound | VideoToSound | Speech | VoiceConversion, Field(discriminator="name")]
Edit = Annotated[DescribedEdit | StyleTransfer | SpeechEdit, Field(discriminator="name")]

TASK_NAMES: dict[Namespace, tuple[str, ...]] = {
    "understand": (
        *("question", "transcribe", "caption", "qa", "classify", "sources"),
        *("scene", "speakers", "gender", "sarcasm", "feedback"),
    ),
    "generate": ("t2a", "t2m", "v2a", "v2m", "tts", "vc"),
    "edit": ("add", "remove", "extract", "style", "speech"),
}

OTHER_SPELLINGS = {
    "text to audio": "t2a",
    "text to music": "t2m",
    "video to audio": "v2a",
    "video to music": "v2m",
    "text to speech": "tts",
    "voice conversion": "vc",
    "style transfer": "style",
    "speech editing": "speech",
}


def task_name(namespace: Namespace, spelling: str) -> str:
    """Normalise the name of a task: any case, `-` and `_` for spaces, and the published spellings are accepted.

    Raises:
        UnknownTask: no such task in the namespace; names the nearest one, or the namespace that has it.
    """
    words = re.sub(r"[\s_-]+", " ", spelling).strip().lower()
    name = OTHER_SPELLINGS.get(words, words)
    if name in TASK_NAMES[namespace]:
        return name
    raise UnknownTask(f"{namespace} has no task {spelling[:80]!r}", "task", _suggestion(namespace, name[:80]))


def _suggestion(namespace: Namespace, name: str) -> str:
    elsewhere = [other for other, names in TASK_NAMES.items() if name in names]
    if elsewhere:
        return f"It is a task of {elsewhere[0]}"
    nearest = difflib.get_close_matches(name, TASK_NAMES[namespace], n=1)
    ask = f"Did you mean {nearest[0]!r}? " if nearest else ""
    return f"{ask}{namespace} knows: {', '.join(TASK_NAMES[namespace])}"
