"""Fields that every line of a job list has in common, with placeholders for the line's own values."""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any

from omnifleet_shared.errors import InvalidJob


class Template:
    """Fills fields such as `{"task": "edit.add", "desc": "{sound}"}` from a line; `{{` and `}}` are braces.

    Args:
        fields: texts with placeholders, by the field's name.

    Raises:
        InvalidJob: a placeholder that is not just the name of a column.
    """

    def __init__(self, fields: Mapping[str, str] | None = None) -> None:
        self.fields = dict(fields or {})
        self._parts = {name: _parse(name, text) for name, text in self.fields.items()}
        self.columns = frozenset(column for parts in self._parts.values() for _, column in parts if column is not None)
        """Columns that a placeholder names."""

    def fill(self, line: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields that the line does not have itself, filled from it.

        A field whose text names its own column is filled too: the line's own value is in it.

        Raises:
            InvalidJob: the line has no value for a placeholder, or one that is neither text nor number.
        """
        return {
            name: _fill(name, parts, line)
            for name, parts in self._parts.items()
            if line.get(name) is None or any(column == name for _, column in parts)
        }


def _parse(name: str, text: str) -> list[tuple[str, str | None]]:
    """Split a text into pairs of plain text and the column that comes after it."""
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError as error:
        raise InvalidJob(f"{text[:80]!r}: {error}", name, "Write {{ and }} for braces") from error
    for _, column, form, conversion in parts:
        if column is not None and (not column.strip() or form or conversion or set(column) & set("[]")):
            raise InvalidJob(f"{text[:80]!r} names no column", name, "Write {sound} to put in the column sound")
    return [(before, None if column is None else column.strip()) for before, column, _, _ in parts]


def _fill(name: str, parts: list[tuple[str, str | None]], line: Mapping[str, Any]) -> str:
    return "".join(before + ("" if column is None else _value(name, column, line)) for before, column in parts)


def _value(name: str, column: str, line: Mapping[str, Any]) -> str:
    value = line.get(column)
    if value is None:
        raise InvalidJob(
            f"there is no value for {{{column}}}", name, f"Give the line a {column}, or a {name} of its own"
        )
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InvalidJob(f"{{{column}}} is neither a text nor a number", name, "Put texts and numbers into templates")
    return str(value)
