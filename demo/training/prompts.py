"""What is asked for, and what is right: single sounds, one after the other, two at once, and edits."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .sounds import NAMES, TEXTS, Levels, Random, make

FRAMES = 236
HALF = 118
EDIT_FRAMES = 214
"""Of a source: just under ten seconds."""
Form = Literal["one", "then", "and"]


@dataclass(frozen=True)
class Asked:
    """A text to make a sound of, and the names of the sounds in it."""

    text: str
    form: Form
    names: tuple[str, ...]


def is_held_out(first: str, second: str) -> bool:
    """Whether nothing is learned of these two sounds one after the other; of a fifth of all pairs."""
    return (first, second) == ("low", "rain") or zlib.crc32(f"{first} {second}".encode()) % 5 == 0


def ask(random: Random, *, held_out: bool, form: Form | None = None) -> Asked:
    """Draw a request, of the pairs that are held out or of the others."""
    form = form or ("one", "then", "and")[random.choice(3, p=(0.3, 0.5, 0.2))]
    while True:
        first, second = (NAMES[place] for place in random.choice(len(NAMES), 2, replace=False))
        if form == "one" or (is_held_out(*_order(first, second, form)) == held_out):
            break
    a, b = (str(random.choice(TEXTS[name])) for name in (first, second))
    text = {"one": a, "then": f"{a}, then {b}", "and": f"{a} with {b}"}[form]
    return Asked(text, form, (first,) if form == "one" else (first, second))


def answer(asked: Asked, random: Random) -> Levels:
    """Levels [236, 64] of a right answer."""
    if asked.form != "then":
        return sum((make(name, random, FRAMES) for name in asked.names), np.zeros((FRAMES, 64)))
    return np.concatenate([make(name, random, HALF) for name in asked.names])


def _order(first: str, second: str, form: Form) -> tuple[str, str]:
    """Two at once are the same either way round."""
    return (first, second) if form == "then" else (min(first, second), max(first, second))
