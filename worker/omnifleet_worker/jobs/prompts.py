"""Prompts: the checkpoint's own where it was trained on them, this project's elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from omnifleet_shared.errors import CheckpointInvalid
from omnifleet_shared.schema.tasks import DescribedEdit, NamedUnderstanding, Question, StyleTransfer, Turn

from ..models.audio_omni.chat import VIDEO_MARKS, Chat

QUESTIONS = {
    "caption": "Describe what is heard and seen here in one or two sentences.",
    "qa": "Answer this question about what is heard and seen here: {text}",
    "classify": "Which sound events are in this clip? List each one with a category.",
    "sources": "Which sound sources can be heard? List each one and from which second to which it is heard.",
    "scene": "In what kind of place was this recorded? Name the place and what tells it.",
    "speakers": "How many people speak, and who speaks from which second to which? Describe each voice.",
    "gender": "Does each speaker's voice sound male, female or unclear? Answer for each speaker.",
    "sarcasm": "Is the speaker sarcastic? Say what in words or tone tells it.",
    "feedback": (
        "A language learner says this. Compare the pronunciation with a native speaker's, phoneme by phoneme: "
        "name each word that is off, the phonemes said and expected in IPA, and how to improve it."
    ),
}
SHAPES = {
    "classify": '{"labels": [{"name": "what sounds", "category": "its kind", "confidence": 0.9}]}',
    "sources": '{"sources": [{"name": "what sounds", "start": 0.0, "end": 2.5}]}',
    "scene": '{"place": "kind of place", "evidence": "what tells it"}',
    "speakers": (
        '{"count": 1, "speakers": [{"name": "Speaker 1", "description": "how the voice sounds", '
        '"turns": [{"start": 0.0, "end": 2.5}]}]}'
    ),
    "gender": '{"speakers": [{"name": "Speaker 1", "gender": "unclear"}]}',
    "sarcasm": '{"sarcastic": true, "evidence": "what tells it"}',
    "feedback": (
        '{"words": [{"word": "the word", "said": "IPA", "expected": "IPA", "advice": "how to improve it"}], '
        '"overall": "how it sounds as a whole"}'
    ),
}
"""The JSON that a task's answer is asked for in; what `answers.ANSWERS` takes, shown by an example."""
JSON_ONLY = "Answer with JSON alone, of the shape of this example: {shape}"
REPAIR_PROMPT = "That cannot be read. Give the same answer again, as JSON alone, of the shape of this example: {shape}"
NOTES = {"feedback": " The learner meant to say: {text}"}
"""Sentence around a text beside the media; tasks not named here take the text as it is."""


class Prompts:
    """Builds the chats of every task of one checkpoint.

    Args:
        sentences: the checkpoint's `prompts.json`: `system`, `edit` and `transcribe`.
    """

    def __init__(self, sentences: Mapping[str, Any]) -> None:
        self._sentences = sentences

    def sound(self, task: str, text: str) -> Chat:
        """`t2a` and `t2m`: the full stop is added even where the text ends in one (docs/model.md, "Tasks")."""
        return Chat(system=self._sentence("system", task.upper()), user=f"{text}.")

    def video_to_audio(self, task: str, text: str, frames: np.ndarray) -> Chat:
        """`v2a` and `v2m`: what is said of the video (the line stays where nothing is), then its frames."""
        return Chat(system=self._sentence("system", task.upper()), user=f"{text}\n{VIDEO_MARKS}", video=(frames,))

    def speech(self) -> Chat:
        """`tts` and `vc`: the text goes another way, so the user says nothing."""
        return Chat(system=self._sentence("system", "TTS"), user="")

    def edit(self, task: DescribedEdit | StyleTransfer) -> Chat:
        """Fill in the checkpoint's edit sentence."""
        words = {key: value for key, value in task.model_dump().items() if key in ("desc", "source", "target")}
        sentence = self._sentence("edit", task.name.capitalize())
        return Chat(system=self._sentence("system", "EDITING"), user=sentence.format(**words))

    def instruction(self, text: str) -> Chat:
        """An edit that is said in words of its own."""
        return Chat(system=self._sentence("system", "EDITING"), user=text)

    def transcription(self, **media: Any) -> Chat:
        """Ask for a transcript and nothing else."""
        return Chat(system=self._sentence("transcribe", "system"), user=self._sentence("transcribe", "user"), **media)

    def question(self, task: Question | NamedUnderstanding, **media: Any) -> Chat:
        """Ask the task's question, under the caller's system prompt where there is one."""
        earlier = _pairs(task.history)
        if task.name == "transcribe":
            chat = self.transcription(**media)
            note = f"\n{task.text}" if task.text else ""
            return Chat(system=task.system or chat.system, user=chat.user + note, earlier=earlier, **media)
        system = task.system or self._sentence("system", "UNDERSTANDING")
        return Chat(system=system, user=_question(task), earlier=earlier, **media)

    def _sentence(self, kind: str, name: str) -> str:
        try:
            return str(self._sentences[kind][name])
        except KeyError as error:
            remedy = "Convert the checkpoint again"
            raise CheckpointInvalid(f"prompts.json has no {kind}.{name}", "prompts.json", remedy) from error


def _question(task: Question | NamedUnderstanding) -> str:
    if task.name == "question":
        return task.text
    shape = SHAPES.get(task.name)
    return _in_words(task) + (f"\n{JSON_ONLY.replace('{shape}', shape)}" if shape else "")


def _in_words(task: NamedUnderstanding) -> str:
    sentence = QUESTIONS[task.name]
    if task.text is None:
        return sentence
    if "{text}" in sentence:
        return sentence.replace("{text}", task.text)
    return sentence + NOTES.get(task.name, "\n{text}").replace("{text}", task.text)


def _pairs(history: tuple[Turn, ...]) -> tuple[tuple[str, str], ...]:
    return tuple((question.text, answer.text) for question, answer in zip(history[::2], history[1::2], strict=True))
