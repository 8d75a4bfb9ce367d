"""The code of Markdown pages: fenced blocks, and what stands between backticks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<code>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    """Number of its first line of code in the page, from 1."""
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """The project's pages: those at the root, those of the site, and the examples'."""
    return [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md")), ROOT / "examples" / "README.md"]


def blocks(*languages: str) -> list[Block]:
    """Fenced blocks of all pages in these languages; all blocks where none is named."""
    found = [block for page in pages() for block in blocks_of(page)]
    return [block for block in found if not languages or block.language in languages]


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text()
    return [_block(page, text, match) for match in FENCE.finditer(text)]


def inline_code(page: Path) -> list[str]:
    """What stands between backticks in a page's prose."""
    return INLINE.findall(FENCE.sub("", page.read_text()))


def _block(page: Path, text: str, match: re.Match[str]) -> Block:
    indent = match["indent"]
    lines = [line.removeprefix(indent) for line in match["code"].splitlines(keepends=True)]
    return Block(page, text.count("\n", 0, match.start("code")) + 1, match["language"], "".join(lines))
