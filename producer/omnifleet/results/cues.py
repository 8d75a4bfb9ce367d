"""Cues of subtitles: which words are shown together, for how long, and on which line.

As people make them: two lines of at most 42 columns, shown for one to seven seconds, and ended where a sentence, a
clause or a pause ends. Where they end is decided for the whole transcript at once, by the least sum of what is bad in
each of them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from omnifleet_shared.schema.transcript import HeardSegment, HeardWord, Transcript, ends_sentence, place_texts

LINE_COLUMNS = 42
"""Most columns of a line; Chinese and Japanese signs take two."""
SHORTEST, LONGEST = 1.0, 7.0
"""Seconds for which a cue is shown."""
PAUSE, LONG_PAUSE = 0.3, 1.0
"""Seconds of silence at which a cue may well end, and at which it does."""

_CLAUSE_END = re.compile(r"[,;:—–，、；：][\"'”’»)\]」』）]*\s*$")
_PIECE = re.compile(r"\S+\s*|\s+")
_SPACES = re.compile(r"[ \t\r\n]+")
_UNBREAKABLE = "\u00a0\u202f"
_MARKS = "!?;:…%"
_SMALL_KANA = "ぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮ"
"""No line begins with one, nor with what closes something or a mark of punctuation."""
_A_CUE, _AN_INNER_SENTENCE, _AN_INNER_PAUSE, _TOO_SHORT = 1.0, 2.0, 0.5, 20.0
_AFTER_CLAUSE, _AFTER_WORD = 1.0, 4.0
_BROKEN_CLAUSE = 10
"""Columns of difference between two lines that a break after a clause is worth."""


@dataclass(frozen=True)
class Cue:
    """What is shown at once: one or two lines, from `start` to `end` in seconds."""

    start: float
    end: float
    lines: tuple[str, ...]


@dataclass(frozen=True)
class _Piece:
    """A part of the text that is never broken, with the space after it, and its time."""

    text: str
    start: float
    end: float


def make_cues(text: str, transcript: Transcript) -> list[Cue]:
    """Lay a transcript out as cues: in order, none overlapping, none beyond the end of the recording.

    Without the times of words, those within a segment follow from their length.

    Args:
        text: all that is said.
        transcript: its times.
    """
    timed = _of_segments(text, transcript.segments) if transcript.words is None else _of_words(text, transcript.words)
    pieces = [part for piece in _unbroken(timed) for part in _fitting(piece)]
    groups = [pieces[first:last] for first, last in _Layout(pieces, transcript.seconds).groups()]
    return _shown([Cue(group[0].start, group[-1].end, _lines(group)) for group in groups], transcript.seconds)


def columns(text: str) -> int:
    """Return how wide a text is: two columns for each sign of full width."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def _of_words(text: str, words: Sequence[HeardWord]) -> list[_Piece]:
    """Pieces that joined are the text: what stands between two words belongs to the first, but for what opens."""
    starts = [_before_opening(text, place) for place in place_texts(text, words)]
    borders = [0, *starts[1:], len(text)] if words else []
    return [_Piece(text[a:b], word.start, word.end) for word, (a, b) in zip(words, pairwise(borders), strict=True)]


def _before_opening(text: str, place: int) -> int:
    """Where a word begins with the brackets and quotation marks that open before it."""
    before = text[:place].rstrip()
    while before and unicodedata.category(before[-1]) in ("Ps", "Pi"):
        place = len(before) - 1
        before = text[:place].rstrip()
    return place


def _of_segments(text: str, segments: Sequence[HeardSegment]) -> list[_Piece]:
    borders = [*place_texts(text, segments), len(text)]
    whole = [_Piece(text[a:b], one.start, one.end) for one, (a, b) in zip(segments, pairwise(borders), strict=True)]
    return [part for piece in whole for part in _divided(piece, list(_breakable(piece.text)))]


def _breakable(text: str) -> Iterator[str]:
    """Parts between which a line may end: at spaces, and between signs of full width."""
    for part in _PIECE.findall(text):
        start = 0
        for at in range(1, len(part)):
            if _may_break(part[:at], part[at:]):
                yield part[start:at]
                start = at
        yield part[start:]


def _may_break(before: str, after: str) -> bool:
    """Whether a line may end between two neighbouring texts."""
    if not before.strip() or not after or after[0].isspace():
        return False
    last, first = before.rstrip()[-1], after[0]
    opens = unicodedata.category(last) in ("Ps", "Pi")
    # French puts a space before some marks.
    closes = unicodedata.category(first) in ("Pe", "Pf") or first in _MARKS
    if opens or closes:
        return False
    if before[-1].isspace():
        return before[-1] not in _UNBREAKABLE
    wide = all(unicodedata.east_asian_width(char) in "WF" for char in (last, first))
    return wide and unicodedata.category(first) not in ("Po", "Pd", "Lm") and first not in _SMALL_KANA


def _unbroken(pieces: Sequence[_Piece]) -> list[_Piece]:
    """The pieces, with those as one between which no line may end: l' and arbre."""
    joined: list[_Piece] = []
    for piece in pieces:
        if joined and not _may_break(joined[-1].text, piece.text):
            joined[-1] = _Piece(joined[-1].text + piece.text, joined[-1].start, piece.end)
        else:
            joined.append(piece)
    return joined


def _fitting(piece: _Piece) -> list[_Piece]:
    """The piece, cut where it is wider than a line."""
    if columns(piece.text.strip()) <= LINE_COLUMNS:
        return [piece]
    parts = [""]
    for char in piece.text:
        if columns(parts[-1] + char) > LINE_COLUMNS and not char.isspace():
            parts.append("")
        parts[-1] += char
    return _divided(piece, parts)


def _divided(piece: _Piece, parts: Sequence[str]) -> list[_Piece]:
    """A piece as its parts, each as long as it is wide."""
    widths = list(accumulate((max(1, columns(part.strip())) for part in parts), initial=0))
    length = piece.end - piece.start
    times = [piece.start + length * width / widths[-1] for width in widths[:-1]] + [piece.end]
    return [_Piece(part, start, end) for part, (start, end) in zip(parts, pairwise(times), strict=True)]


class _Layout:
    """Finds where cues end."""

    def __init__(self, pieces: Sequence[_Piece], seconds: float) -> None:
        self._pieces = pieces
        self._widths = list(accumulate((columns(piece.text) for piece in pieces), initial=0))
        self._spaces = [columns(piece.text) - columns(piece.text.rstrip()) for piece in pieces]
        self._starts = [*(piece.start for piece in pieces), seconds]
        self._ends = [*(_end_cost(piece, after) for piece, after in pairwise(pieces)), 0.0]

    def groups(self) -> list[tuple[int, int]]:
        """First piece, and one past the last, of each cue."""
        best: list[tuple[float, int]] = [(0.0, 0)]
        for last in range(1, len(self._pieces) + 1):
            best.append(min((best[first][0] + cost, first) for first, cost in self._candidates(last)))
        groups: list[tuple[int, int]] = []
        last = len(self._pieces)
        while last:
            first = best[last][1]
            groups.append((first, last))
            last = first
        return groups[::-1]

    def _candidates(self, last: int) -> Iterator[tuple[int, float]]:
        """Where a cue that ends before piece `last` may begin, and what it costs then."""
        inner = 0.0
        # The second line as long as can be: then the first one fits if it does at all.
        second = next(at for at in range(max(0, last - LINE_COLUMNS), last) if self._width(at, last) <= LINE_COLUMNS)
        for first in range(last - 1, -1, -1):
            seconds = self._pieces[last - 1].end - self._pieces[first].start
            if first < last - 1 and (seconds > LONGEST or self._pause(first) >= LONG_PAUSE):
                return
            if first < last - 1:
                inner += _AN_INNER_SENTENCE * (self._ends[first] == 0) + _AN_INNER_PAUSE * (self._pause(first) >= PAUSE)
            if first < second and self._width(first, second) > LINE_COLUMNS:
                return
            missing = max(0.0, SHORTEST - (self._starts[last] - self._pieces[first].start))
            yield first, _A_CUE + inner + self._ends[last - 1] + _TOO_SHORT * missing

    def _width(self, first: int, last: int) -> int:
        return self._widths[last] - self._widths[first] - (self._spaces[last - 1] if last > first else 0)

    def _pause(self, piece: int) -> float:
        return self._pieces[piece + 1].start - self._pieces[piece].end


def _end_cost(piece: _Piece, after: _Piece) -> float:
    """How bad it is to end a cue after a piece."""
    if ends_sentence(piece.text) or after.start - piece.end >= LONG_PAUSE:
        return 0.0
    good = _CLAUSE_END.search(piece.text) or after.start - piece.end >= PAUSE
    return _AFTER_CLAUSE if good else _AFTER_WORD


def _lines(group: Sequence[_Piece]) -> tuple[str, ...]:
    """One line, or two of about the same width that part where a clause ends, if that is near."""
    texts = [piece.text for piece in group]
    whole = _line(texts)
    if columns(whole) <= LINE_COLUMNS:
        return (whole,)
    pairs = [(_line(texts[:at]), _line(texts[at:])) for at in range(1, len(texts))]
    return min((pair for pair in pairs if max(map(columns, pair)) <= LINE_COLUMNS), key=_unevenness)


def _unevenness(pair: tuple[str, str]) -> int:
    return abs(columns(pair[0]) - columns(pair[1])) - _BROKEN_CLAUSE * bool(
        _CLAUSE_END.search(pair[0]) or ends_sentence(pair[0])
    )


def _line(texts: Sequence[str]) -> str:
    return _SPACES.sub(" ", "".join(texts)).strip()


def _shown(cues: Sequence[Cue], seconds: float) -> list[Cue]:
    """The cues, each for a second at least where the ones beside it leave the room."""
    shown: list[Cue] = []
    following = [cue.start for cue in cues[1:]] + [seconds]
    for cue, after in zip(cues, following, strict=False):  # of no cues, none follows
        end = min(max(cue.end, cue.start + SHORTEST), after, cue.start + LONGEST)
        earliest = shown[-1].end if shown else 0.0
        shown.append(replace(cue, start=max(earliest, min(cue.start, end - SHORTEST)), end=end))
    return shown
