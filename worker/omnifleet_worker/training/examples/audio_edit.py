"""Lines of the AudioEdit data set (arXiv 2604.10708), as `meta_total.jsonl` and `meta_transfer.jsonl` hold them.

Each has `type`, `prompt`, `input` and `output`: what is done, the instruction, and the recordings before and after it,
which lie in `mixed.tar`, `residual.tar`, `target.tar` and `transfer.tar` beside the lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TASKS = {"transfer": "style", "style_transfer": "style"}


def is_audio_edit(values: object) -> bool:
    """Whether a line is one of that set's, and none of ours."""
    return isinstance(values, Mapping) and "task" not in values and {"prompt", "input", "output"} <= values.keys()


def example_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Say such a line by the names of an `ExampleLine`; a line without a `type` turns one sound into another."""
    kind = values.get("type", "style")
    return {
        "task": _TASKS.get(kind, kind) if isinstance(kind, str) else kind,
        "instruction": values["prompt"],
        "audio": values["input"],
        "target": values["output"],
    }
