"""What a model's folder says of it: `card.json`, the record itself; else the front matter of its README.md."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, cast

from omnifleet_shared.errors import CheckpointInvalid
from omnifleet_shared.schema.capabilities import Capabilities
from pydantic import ValidationError

CARD, README = "card.json", "README.md"
COMMERCIAL = frozenset(
    {"0bsd", "apache-2.0", "bsd", "bsd-2-clause", "bsd-3-clause", "cc-by-4.0", "cc0-1.0", "isc", "mit", "unlicense"}
)
"""Licences by their names on the Hugging Face hub that allow commercial use of what a model makes, whoever asks."""
_REMEDY = "Write card.json with name, licence, commercial_use and tasks; docs/engines.md has one to begin with"


def read_capabilities(folder: Path, engine: str, *, task: str = "generate.tts", **known: Any) -> Capabilities:
    """Read the card of a folder.

    Args:
        folder: of the model.
        engine: that runs it.
        task: what a model can do that has a README.md alone.
        known: what the engine knows of the model already; what the card says of it is passed over.

    Raises:
        CheckpointInvalid: there is neither card, or it does not say enough.
    """
    source = CARD if (folder / CARD).is_file() else README
    found = read_card(folder) if source == CARD else _read_readme(folder, task)
    try:
        return Capabilities.model_validate({"revision": revision_of(folder), **found, "engine": engine, **known})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise CheckpointInvalid(first["msg"], f"{source}: {field}", _REMEDY) from error


def read_card(folder: Path) -> dict[str, Any]:
    """Read `card.json`, with what only its engine understands. Raises CheckpointInvalid."""
    try:
        value = json.loads((folder / CARD).read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointInvalid(f"{folder / CARD} cannot be read: {error}", CARD, _REMEDY) from error
    if not isinstance(value, dict):
        raise CheckpointInvalid(f"{folder / CARD} is no JSON object", CARD, _REMEDY)
    return cast(dict[str, Any], value)


def revision_of(folder: Path) -> str:
    """Tell one folder's content from another's by its small files, and the names and sizes of the others."""
    hashed = hashlib.sha256()
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        name, size = path.relative_to(folder).as_posix(), path.stat().st_size
        hashed.update(f"{name} {size}\n".encode())
        if size <= 2**20 and path.suffix in (".json", ".txt", ".model"):
            hashed.update(path.read_bytes())
    return f"sha256:{hashed.hexdigest()[:12]}"


def _read_readme(folder: Path, task: str) -> dict[str, Any]:
    """The licence and the languages of a card as the Hugging Face hub has them."""
    if not (folder / README).is_file():
        raise CheckpointInvalid(f"{folder} says nothing of its licence and its languages", CARD, _REMEDY)
    from huggingface_hub import ModelCard  # heavy, and most folders have a card of their own

    try:
        data: Any = ModelCard.load(folder / README, ignore_metadata_errors=True).data
    except ValueError as error:
        raise CheckpointInvalid(f"{folder / README} has no front matter: {error}", README, _REMEDY) from error
    licence, language = data.license, data.language
    if not licence:
        raise CheckpointInvalid(f"{folder / README} names no licence", f"{README}: license", _REMEDY)
    if not language:
        raise CheckpointInvalid(f"{folder / README} names no language", f"{README}: language", _REMEDY)
    named = data.license_name if licence == "other" and data.license_name else licence
    return {
        "name": re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-._") or "speech",
        "licence": named,
        "commercial_use": licence in COMMERCIAL,
        "tasks": {task: {"languages": [language] if isinstance(language, str) else language}},
    }
