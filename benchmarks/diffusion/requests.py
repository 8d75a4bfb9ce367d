"""The clips and answers that are measured."""

from __future__ import annotations

from omnifleet_worker.engine.request import ChatInputs, DiffusionInputs, Request
from omnifleet_worker.models.audio_omni.chat import Chat

GUIDANCE = 7.0


def clip(number: int, steps: int) -> Request:
    """Make a request for a guided clip, whose context has some 300 tokens."""
    prompt = Chat(system="Make the sound that the text tells of.", user=f"rain on roof number {number}.")
    return Request(inputs=DiffusionInputs(prompt=prompt, steps=steps, guidance=GUIDANCE, seed=number))


def answer(number: int, tokens: int) -> Request:
    """Make a request for an answer of so many tokens, the likeliest ones."""
    chat = Chat(system="Listen and answer.", user=f"what is number {number}?")
    return Request(inputs=ChatInputs(chat=chat, max_new_tokens=tokens, temperature=0.0, seed=number))
