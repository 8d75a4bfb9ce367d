"""Speech longer than one clip: where its text is cut, and how the clips of its parts become one recording."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from .windows import level_step

Samples = NDArray[np.float32]

SENTENCE_PAUSE, CLAUSE_PAUSE, WORD_PAUSE = 0.4, 0.2, 0.05
"""Seconds of silence after a part that ends a sentence, a clause, or neither."""
FADE_SECONDS = 0.01
"""Length of the fade at both ends of a part, so that no joint clicks."""

# A full stop between digits or within a name ends nothing: signs of Latin scripts count before a space alone.
_SENTENCE_END = r"(?:[.!?…]+[\"'”’»)\]]*(?=\s|$)|[。！？]+[」』”’）]*|\n)"
_CLAUSE_END = r"(?:[,;:—–]+[\"'”’»)\]]*(?=\s|$)|[，、；：]+[」』”’）]*)"
_CUTS = [re.compile(rf".*?(?:{end})\s*|.+$", re.DOTALL) for end in (_SENTENCE_END, _CLAUSE_END, r"(?<=\S)(?=\s)")]
_ENDS_SENTENCE = re.compile(rf"{_SENTENCE_END}\s*$")
_ENDS_CLAUSE = re.compile(rf"{_CLAUSE_END}\s*$")


def split_text(text: str, fits: Callable[[str], bool]) -> list[str]:
    """Cut a text into as few parts as fill up one after the other: at sentences, else clauses, words, characters.

    Args:
        text: what to say.
        fits: whether a part of it is short enough; must hold for a single character.

    Returns:
        Parts that joined are the text again; one where all of it fits.
    """
    parts: list[str] = []
    for piece in _pieces(text, fits, _CUTS):
        if parts and fits(parts[-1] + piece):
            parts[-1] += piece
        else:
            parts.append(piece)
    return parts


def _pieces(text: str, fits: Callable[[str], bool], cuts: Sequence[re.Pattern[str]]) -> Iterator[str]:
    if fits(text) or len(text) == 1:
        yield text
    elif not cuts:
        yield from text
    else:
        for found in cuts[0].finditer(text):
            yield from _pieces(found[0], fits, cuts[1:])


def pause_after(part: str) -> float:
    """Return the seconds of silence that a speaker leaves after such a part."""
    if _ENDS_SENTENCE.search(part):
        return SENTENCE_PAUSE
    return CLAUSE_PAUSE if _ENDS_CLAUSE.search(part) else WORD_PAUSE


def join_speech(clips: Sequence[Samples], parts: Sequence[str], sample_rate: int) -> Samples:
    """Join the clips of a text's parts, as loud as the first, with the pauses that their texts ask for.

    Args:
        clips: float32 [channels, n], without silence at their ends.
        parts: what each says.
        sample_rate: samples per second and channel.

    Returns:
        float32 [channels, n], with a peak of at most 1; a single clip as it is.
    """
    if len(clips) == 1:
        return clips[0]
    pieces: list[Samples] = []
    for clip, part in zip(clips, parts, strict=True):
        pieces.append(_fade_ends(clip * np.float32(level_step(clips[0], clip)), sample_rate))
        pieces.append(silence_after(clip, part, sample_rate))
    joined: Samples = np.concatenate(pieces[:-1], axis=1)
    joined /= max(1.0, float(np.abs(joined).max()))
    return joined


def streamed_speech(clip: Samples, first: Samples, part: str, sample_rate: int, *, is_last: bool) -> Samples:
    """Make the piece of one part of a text, for those who hear it before the others are made.

    As `join_speech` it is as loud as the first part and ends with the pause that its text asks for. But as nobody knows
    how loud the parts after it will be, it is only raised as far as full scale allows it alone.

    Args:
        clip: float32 [channels, n], without silence at its ends.
        first: the clip of the text's first part.
        part: what it says.
        sample_rate: samples per second and channel.
        is_last: the last part has no pause behind it.
    """
    most = 1 / max(float(np.abs(clip).max(initial=0)), 1e-9)
    piece = _fade_ends(clip * np.float32(min(level_step(first, clip), most)), sample_rate)
    return piece if is_last else np.concatenate([piece, silence_after(clip, part, sample_rate)], axis=1)


def silence_after(clip: Samples, part: str, sample_rate: int) -> Samples:
    """Make the silence that a speaker leaves after a part, in as many channels as its clip has."""
    return np.zeros((len(clip), round(pause_after(part) * sample_rate)), np.float32)


def _fade_ends(clip: Samples, sample_rate: int) -> Samples:
    length = min(round(FADE_SECONDS * sample_rate), clip.shape[1] // 2)
    rise = np.linspace(0, 1, length, dtype=np.float32)
    gain = np.ones(clip.shape[1], np.float32)
    gain[:length], gain[clip.shape[1] - length :] = rise, rise[::-1]
    return clip * gain
