"""Structured answers: requested as JSON, parsed leniently, and requested once more where they cannot be parsed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_origin

import json_repair
from omnifleet_shared.errors import AnswerUnreadable
from omnifleet_shared.schema.answers import ANSWERS, Answer
from omnifleet_shared.schema.tasks import NamedUnderstanding
from pydantic import ValidationError

from ..models.audio_omni.chat import Chat
from .job_context import JobContext
from .prompts import REPAIR_PROMPT, SHAPES


@dataclass(frozen=True)
class StructuredAnswer:
    """The model's text, and the record parsed from it."""

    text: str
    answer: Answer


def ask_for_record(context: JobContext, task: NamedUnderstanding, chat: Chat) -> StructuredAnswer:
    """Ask for the task's record, once more where the first answer cannot be parsed.

    Raises:
        AnswerUnreadable: neither answer holds the record; `details` hold both, the first one as `text`.
        OmnifleetError: of the engine.
    """
    texts = [context.ask(chat, task.max_new_tokens)]
    if (answer := read_answer(task.name, texts[0])) is None:
        again = chat.followed_by(texts[0], REPAIR_PROMPT.replace("{shape}", SHAPES[task.name]))
        texts.append(context.ask(again, task.max_new_tokens))
        answer = read_answer(task.name, texts[1])
    if answer is None:
        problem = f"the model's answer is not what {task.name} promises"
        remedy = "Ask again with another seed and a temperature, or read details['text']"
        raise AnswerUnreadable(problem, "task", remedy, {"text": texts[0], "repair": texts[1]})
    return StructuredAnswer(texts[-1], answer)


def read_answer(kind: str, text: str) -> Answer | None:
    """Parse the record from a text of JSON or nearly JSON, with or without prose; None where it holds none."""
    for found in _candidates(kind, text):
        try:
            return ANSWERS[kind].model_validate(found | {"kind": kind})
        except ValidationError:
            continue
    return None


def _candidates(kind: str, text: str) -> Iterator[dict[Any, Any]]:
    """Yield everything in the text that could be the record, the likeliest first."""
    try:
        found = json_repair.loads(text)
    except (RecursionError, ValueError):  # brackets without end
        return
    # Prose around the record may hold brackets too, each of which is a value of its own.
    parts = [found, *reversed(found)] if isinstance(found, list) else [found]
    for part in parts:
        if isinstance(part, dict):
            yield part
        elif isinstance(part, list) and (field := _only_list(kind)):
            yield {field: part}


def _only_list(kind: str) -> str | None:
    """The field of a record that is nothing but one list; models give the bare list for it."""
    fields = {name: info for name, info in ANSWERS[kind].model_fields.items() if name != "kind"}
    lists = [name for name, info in fields.items() if get_origin(info.annotation) is tuple]
    return lists[0] if len(lists) == len(fields) == 1 else None
