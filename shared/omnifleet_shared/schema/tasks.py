"""What each namespace can be asked to do: one record a kind of task, told apart by `name`."""

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
"""Named questions about sound, which a video's frames alone cannot answer."""


class Turn(Record):
    """One thing said in a conversation before the job's own question."""

    role: Literal["user", "assistant"]
    text: Text


class _Conversation(Record):
    history: Annotated[tuple[Turn, ...], Field(max_length=32)] = ()
    """What was said before, the user first, then in turns, an answer last. The job's audio and video were sent with
    the first turn."""

    @model_validator(mode="after")
    def _is_said_in_turns(self) -> Self:
        roles = [turn.role for turn in self.history]
        if roles != ["user", "assistant"] * (len(roles) // 2):
            remedy = "Give pairs of a user's turn and the assistant's answer; the next question is the job's own"
            raise ValueError(f"history: user and assistant do not take turns. {remedy}")
        return self


class Question(_Conversation):
    """understand: a free question, about media or about text alone."""

    name: Literal["question"] = "question"
    text: Text
    """The question."""
    audio: Annotated[tuple[Media, ...], Field(max_length=8)] = ()
    video: Annotated[tuple[Media, ...], Field(max_length=4)] = ()
    """Only the frames are seen; to have its sound heard, give the same file as `audio` too."""
    system: Text | None = None
    """System prompt; the checkpoint's own when absent."""
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] = 512


class NamedUnderstanding(_Conversation):
    """understand: a question that the worker knows how to put."""

    name: NamedQuestion
    text: Text | None = None
    """`qa`: the question. `feedback`: what the learner meant to say. Others: anything worth knowing beforehand."""
    audio: Annotated[tuple[Media, ...], Field(max_length=8)] = ()
    video: Annotated[tuple[Media, ...], Field(max_length=4)] = ()
    system: Text | None = None
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] = 512

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
    """generate: sound (`t2a`) or music (`t2m`) from a description."""

    name: Literal["t2a", "t2m"]
    text: Text
    seconds: Annotated[float, Field(ge=0.1)] = 10.0


class VideoToSound(Record):
    """generate: sound (`v2a`) or music (`v2m`) for a video."""

    name: Literal["v2a", "v2m"]
    video: Media
    text: Annotated[str, StringConstraints(strip_whitespace=True, max_length=10_000)] = ""
    seconds: Annotated[float, Field(ge=0.1)] | None = None
    """As long as the video when absent; needed where the video is longer than the model's clips."""
    mux: bool = False
    """Put the new sound under the video's pictures as a second file; sound that the video has is left out."""


class Speech(Record):
    """generate: `tts`, speech from text, in the reference's voice where one is given."""

    name: Literal["tts"] = "tts"
    text: Text
    ref: Media | None = None
    """A recording of the voice to speak with; its last 6 seconds are used."""
    ref_text: Text | None = None
    """What is said in `ref`; transcribed by the model when absent."""

    @model_validator(mode="after")
    def _transcript_has_its_voice(self) -> Self:
        if self.ref_text is not None and self.ref is None:
            raise ValueError("ref_text: is the transcript of ref, and there is no ref. Give ref, or no ref_text")
        return self


class VoiceConversion(Record):
    """generate: `vc`, what `audio` says (or `text`) in the voice of `ref`."""

    name: Literal["vc"] = "vc"
    ref: Media
    ref_text: Text | None = None
    audio: Media | None = None
    text: Text | None = None
    """What `audio` says, where it is known; transcribed by the model when absent."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.audio is None and self.text is None:
            raise ValueError("audio: vc needs the speech to convert, as audio or as its text. Give either")
        return self


class DescribedEdit(Record):
    """edit: `add`, `remove` or `extract` the sound that `desc` names."""

    name: Literal["add", "remove", "extract"]
    audio: Media
    desc: Text


class StyleTransfer(Record):
    """edit: `style`, make the sound of `source` that of `target`."""

    name: Literal["style"] = "style"
    audio: Media
    source: Text
    target: Text


class SpeechEdit(Record):
    """edit: `speech`, change the words that are said."""

    name: Literal["speech"] = "speech"
    audio: Media
    desc: Text
    """`replace 'hello' with 'goodbye'`"""


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
    """The contract's name of a task: any case, `-` and `_` for spaces, the published spellings too.

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
