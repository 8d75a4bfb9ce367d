"""Named voices, as the storage keeps them."""

from __future__ import annotations

from typing import Annotated

from pydantic import AwareDatetime, ConfigDict, Field, StringConstraints

from .base import Record, Sha256, Text

VOICE_NAME = r"[a-z0-9][a-z0-9_-]{0,63}"
"""It becomes part of storage keys, of which some storages tell no upper from lower case."""


class Voice(Record):
    """A named voice: a recording of somebody who speaks, and under which consent it may be used."""

    # A newer release may write more.
    model_config = ConfigDict(extra="ignore")

    name: Annotated[str, StringConstraints(pattern=rf"^{VOICE_NAME}$")]
    sha256: Sha256
    """Of the recording's bytes."""
    bytes: Annotated[int, Field(ge=1)]
    """Size of the recording."""
    text: Text | None = None
    """What is said in it; the model transcribes it where nobody said."""
    consent: Text
    """Who agreed to what, and where that is written down."""
    added_by: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    added_at: AwareDatetime
