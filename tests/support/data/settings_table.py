"""The README's table of settings, made from the settings themselves: `python tests/support/data/settings_table.py`."""

from __future__ import annotations

import sys
from pathlib import Path

from omnifleet_shared.settings import FleetSettings
from omnifleet_worker.settings import WorkerSettings
from pydantic.fields import FieldInfo


def rows() -> list[str]:
    """One line of Markdown a setting: variable, who reads it, default, meaning."""
    fleet = FleetSettings.model_fields
    return [
        _row(name, field, "both" if name in fleet else "worker") for name, field in WorkerSettings.model_fields.items()
    ]


def _row(name: str, field: FieldInfo, reader: str) -> str:
    default = "none" if field.default is None else str(field.default).replace(str(Path.home()), "~")
    meaning = (field.description or "").replace("\n", " ").replace("|", "\\|")
    return f"| `OMNIFLEET_{name.upper()}` | {reader} | `{default}` | {meaning} |"


if __name__ == "__main__":
    sys.stdout.write("\n".join(["| variable | read by | default | meaning |", "|---|---|---|---|", *rows(), ""]))
