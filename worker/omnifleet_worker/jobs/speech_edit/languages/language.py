"""What a table of one language holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Language:
    """The words with which changes are asked for in one language, as regular expressions in lower case.

    Sentences hold slots: OLD is what is said (or where), NEW what is to be said. A group named `all` in one means that
    every place is meant. White space is single; Chinese and Japanese have none.

    Attributes:
        replace: sentences that replace OLD by NEW.
        delete: sentences that cut OLD out.
        before: sentences that put NEW before OLD.
        after: sentences that put NEW after OLD.
        first: sentences that put NEW at the beginning.
        last: sentences that put NEW at the end.
        say: sentences whose NEW, where it is quoted, is a whole new transcript.
        transcript: what stands before a whole new transcript that need not be quoted.
        asking: words of which one makes a text a request, and no transcript.
        starting: words with which, besides those of `asking`, a change begins.
        openings: what may stand before a sentence.
        preambles: parts of a request that ask for nothing: a greeting, an apology, that something is wrong.
        courtesies: words beside a slot that change nothing.
        everywhere: words beside a slot that mean all places.
        listing: what stands between the parts of a list.
        determiners: what may stand before a count.
        counts: which place is meant; digits in what matched are the number itself.
        counts_after: the same, said after the words.
        numbers: how many words.
        kinds: what may stand before the words themselves.
        kinds_after: what may stand after them.
        articles: what people put before a word that is said without it.
        positions: words by their place, with COUNT and SIZE in them.
        ends: words by their place, with SIZE in them: from the beginning (1) or the end (-1).
        unnameable: words by their place that cannot be counted, as they are not written apart.
        nothing: what people say for NEW where OLD is to go.
        sounds: what people say for NEW that is no word, and cannot be made.
        carried: verbs that hold for a clause without one, after a replacement and after a deletion.
    """

    replace: tuple[str, ...]
    delete: tuple[str, ...]
    before: tuple[str, ...]
    after: tuple[str, ...]
    first: tuple[str, ...]
    last: tuple[str, ...]
    say: tuple[str, ...]
    transcript: str
    asking: str
    starting: str
    openings: str
    preambles: str
    courtesies: str
    everywhere: str
    listing: str
    determiners: str = ""
    counts: Mapping[str, int]
    counts_after: Mapping[str, int] = field(default_factory=dict)
    numbers: Mapping[str, int]
    kinds: str
    kinds_after: str = r"(?!)"
    articles: str = r"(?!)"
    positions: tuple[str, ...]
    ends: Mapping[str, int] = field(default_factory=dict)
    unnameable: str = r"(?!)"
    nothing: str
    sounds: str
    carried: tuple[str, str]
