"""Streamed answers: what is given out is what the answer begins with, whatever is written behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omnifleet_shared.schema.jobs import read_job
from omnifleet_shared.schema.parts import StreamedPart
from omnifleet_shared.storage.folder import FolderStorage
from omnifleet_worker.engine.request import ChatInputs, Request
from omnifleet_worker.jobs.job_context import JobContext
from omnifleet_worker.jobs.streaming.job_stream import JobStream, JobStreams
from omnifleet_worker.jobs.streaming.text import ask_parts_streamed, ask_streamed
from omnifleet_worker.jobs.transcripts import following, join_parts
from omnifleet_worker.models.audio_omni.chat import Chat
from omnifleet_worker.models.audio_omni.tiny import tiny_processor
from omnifleet_worker.settings import WorkerSettings

TOKENIZER = tiny_processor().tokenizer
CHAT = Chat("Be kind.", "Hello")
INPUTS = ChatInputs(chat=CHAT, max_new_tokens=9, temperature=0.0, seed=0)


class Log:
    """Parts in memory."""

    def __init__(self, *texts: str) -> None:
        self.parts = [StreamedPart(number=number, text=text) for number, text in enumerate(texts, 1)]

    def commit(self, job_id: str, tag: str, part: StreamedPart) -> StreamedPart:
        self.parts.append(part)
        return part

    def read(self, job_id: str) -> list[StreamedPart]:
        return list(self.parts)

    @property
    def texts(self) -> list[str]:
        return [str(part.text) for part in self.parts]


class Thinker:
    """Writes each answer in some drafts, in place of an engine."""

    def __init__(self, *answers: Sequence[str] | Callable[[str], Sequence[str]]) -> None:
        self._answers = iter(answers)
        self.asked: list[Chat] = []

    def submit(self, request: Request) -> Request:
        assert isinstance(request.inputs, ChatInputs)
        self.asked.append(request.inputs.chat)
        answer = next(self._answers)
        written = list(answer(request.inputs.chat.begun) if callable(answer) else answer)
        drafts, last = iter(written), ""

        def draft() -> str:
            nonlocal last
            try:
                last = next(drafts)
            except StopIteration:
                request.succeed(last.strip())
            return last

        request.draft = draft
        if len(written) == 1:
            request.succeed(written[0])
        return request


def open_stream(folder: Path, log: Log) -> JobStream:
    streams = JobStreams(FolderStorage(folder), log, WorkerSettings())
    return streams.of("job", 1, "tag", lambda: None)


def context_of(thinker: Thinker) -> JobContext:
    task = {"name": "question", "text": "What is heard?"}
    engine: Any = thinker
    return JobContext(read_job({"schema_version": 1, "namespace": "understand", "task": task}), engine)


def test_an_answer_is_given_out_as_it_grows(folder: Path) -> None:
    log, thinker = (
        Log(),
        Thinker([" It", " It ", " It rains", " It rains 音\N{REPLACEMENT CHARACTER}", " It rains 音楽 "]),
    )

    answer = ask_streamed(context_of(thinker), CHAT, 9, open_stream(folder, log))

    assert answer == "It rains 音楽"
    assert log.texts == ["It", " rains", " 音", "楽"]


def test_a_later_attempt_goes_on_with_what_was_given_out(folder: Path) -> None:
    log, thinker = Log("It", " rains"), Thinker(lambda begun: [f"{begun} a lot"])

    answer = ask_streamed(context_of(thinker), CHAT, 9, open_stream(folder, log))

    assert [chat.begun for chat in thinker.asked] == ["It rains"]
    assert answer == "It rains a lot"
    assert log.texts == ["It", " rains", " a lot"]


def test_an_answer_that_began_anew_with_other_words_is_asked_for_behind_those_that_were_given_out(folder: Path) -> None:
    log, thinker = Log(), Thinker(["It", "Snow", "Snow falls"], lambda begun: [f"{begun} rains"])

    answer = ask_streamed(context_of(thinker), CHAT, 9, open_stream(folder, log))

    assert answer == "It rains"
    assert log.texts == ["It", " rains"]


@pytest.mark.parametrize("before", [[], ["one"], ["one", "", " three"]])
def test_parts_of_a_transcript_are_asked_for_once(folder: Path, before: list[str]) -> None:
    said = ["one", "", "three", "四", "五"]
    log, thinker = Log(*before), Thinker(*([text] for text in said[len(before) :]))
    chats = [Chat("Write.", text) for text in said]

    text = ask_parts_streamed(context_of(thinker), chats, 9, open_stream(folder, log), following)

    assert text == join_parts(said) == "one three 四五"
    assert log.texts == ["one", "", " three", " 四", "五"]
    assert [chat.user for chat in thinker.asked] == said[len(before) :]


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\N{REPLACEMENT CHARACTER}"), max_size=20))
def test_no_draft_ends_within_a_character_or_is_taken_back(text: str) -> None:
    ids, request = TOKENIZER(text)["input_ids"], Request(inputs=INPUTS)
    whole = str(TOKENIZER.decode(ids, skip_special_tokens=True))

    for count in range(len(ids) + 1):
        written = str(TOKENIZER.decode(ids[:count], skip_special_tokens=True))
        request.draft = lambda written=written: written
        assert whole.strip().startswith(request.text_so_far)
