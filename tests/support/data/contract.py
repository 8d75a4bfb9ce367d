"""The JSON Schemas of `schemas/`, for tests that hold real records to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from support import ROOT

FOLDER = ROOT / "schemas"


def load(path: Path) -> Any:
    return json.loads(path.read_text())


REGISTRY: Any = Registry().with_resources(
    [(path.name, Resource.from_contents(load(path))) for path in FOLDER.glob("*.schema.json")]
)


def check(name: str, record: object) -> None:
    """Raise ValidationError unless the record is as the schema says."""
    Draft202012Validator(load(FOLDER / f"{name}.schema.json"), registry=REGISTRY).validate(record)
