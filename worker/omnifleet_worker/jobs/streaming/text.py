"""Answers and transcripts that are given out while they are written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ...engine.request import Request
from ...models.audio_omni.chat import Chat
from ..job_context import JobContext
from .job_stream import JobStream


def ask_streamed(context: JobContext, chat: Chat, max_new_tokens: int, stream: JobStream) -> str:
    """Return the thinker's answer, which is given out as it is written.

    What an earlier attempt gave out is where this one goes on: the thinker reads it as the beginning of its answer.

    Args:
        context: of the job.
        chat: what is asked.
        max_new_tokens: longest answer, what was given out before included.
        stream: of the job.
    """

    def watch(requests: Sequence[Request]) -> None:
        stream.extend_text(requests[0].text_so_far)

    while True:
        begun = replace(chat, begun=stream.text)
        (answer,) = context.ask_all([begun], max_new_tokens, watch)
        # One that had to give its memory back began anew, and may have come to other words than were given out.
        if answer.startswith(stream.text):
            stream.extend_text(answer)
            return answer


def ask_parts_streamed(
    context: JobContext,
    chats: Sequence[Chat],
    max_new_tokens: int,
    stream: JobStream,
    following: Callable[[str, str], str],
) -> str:
    """Return the answers joined, each of which is given out as soon as those before it are; see `ask_streamed`.

    Args:
        context: of the job.
        chats: what is asked. Those whose answers were given out in an earlier attempt are not asked again.
        max_new_tokens: longest answer.
        stream: of the job.
        following: makes what comes behind a text of the next answer, which may be empty.
    """
    context.expect_parts(len(chats))
    first = len(stream.texts)

    def watch(requests: Sequence[Request]) -> None:
        for request in requests[len(stream.texts) - first :]:
            if not request.outcome.done():
                return
            stream.add_text(following(stream.text, str(request.outcome.result())))

    if left := chats[first:]:
        context.ask_all(left, max_new_tokens, watch)
    return stream.text
