"""Quotations in a request, in the marks of English, Chinese, Japanese, French and German."""

from __future__ import annotations

import re

from .words import DENSE

# Each quoted text is masked by one private-use character, so that nothing in it is read as grammar.
_FIRST, _LAST = 0xE000, 0xF8FF
MARK = "[\ue000-\uf8ff]"
"""Regular expression of a masked quotation."""

_LETTER = rf"[^\W{DENSE}]"
# An apostrophe stands between two letters; a single quotation mark does not. Chinese and Japanese need no space there.
_QUOTATION = re.compile(
    rf"(?<!{_LETTER})['‘’‚‛＇](?=\S)((?:[^'‘’‚‛＇]|(?<={_LETTER})['’＇](?={_LETTER}))+)['‘’＇](?!{_LETTER})"
    r"|[\"“”„‟＂〝]([^\"“”„‟＂〝〞〟]+)[\"“”＂〞〟]"
    r"|[«»]([^«»]+)[«»]|[‹›]([^‹›]+)[‹›]|[「｢]([^」｣]+)[」｣]|『([^』]+)』|`([^`]+)`"
)


class MaskedText:
    """A request whose quotations are masked.

    Args:
        text: the request as it was written.
    """

    def __init__(self, text: str) -> None:
        self._quotes: list[str] = []
        masked = _QUOTATION.sub(self._mask, re.sub(MARK, "", text))
        self.plain = " ".join(masked.split())
        """The request with a private-use character for each quotation, and single spaces."""

    def _mask(self, found: re.Match[str]) -> str:
        inside = next(part for part in found.groups() if part is not None).strip()
        if not inside or len(self._quotes) > _LAST - _FIRST:
            return found.group()
        self._quotes.append(inside)
        return chr(_FIRST + len(self._quotes) - 1)

    @property
    def has_quotes(self) -> bool:
        """Whether anything in it is quoted."""
        return bool(self._quotes)

    def restore(self, part: str) -> str:
        """Return a part of `plain` with the words that were quoted, without their marks."""
        return re.sub(MARK, lambda mark: self._quote(mark.group()), part)

    def _quote(self, mark: str) -> str:
        return self._quotes[ord(mark) - _FIRST]
