"""Adapters: what is stored of them, and how jobs name them."""

from __future__ import annotations

from typing import Annotated

from pydantic import AwareDatetime, ConfigDict, Field, StringConstraints

from .base import Record, Sha256

ADAPTER_NAME = r"[a-z0-9][a-z0-9_-]{0,63}"
"""It becomes part of storage keys, of which some storages tell no upper from lower case."""
MOST_SCALE = 4.0

AdapterName = Annotated[str, StringConstraints(pattern=rf"^{ADAPTER_NAME}$")]
Line = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]


class AdapterFile(Record):
    """A file of an adapter's folder."""

    model_config = ConfigDict(extra="ignore")

    sha256: Sha256
    bytes: Annotated[int, Field(ge=1)]


class AdapterManifest(Record):
    """What an adapter is: its files, what it was trained on, and its licence. Its hash is the adapter's."""

    # A newer release may write more.
    model_config = ConfigDict(extra="ignore")

    config: AdapterFile
    """adapter_config.json, as peft writes it."""
    weights: AdapterFile
    """adapter_model.safetensors."""
    base: Line
    """Name of the checkpoint that it was trained on."""
    revision: Line
    """Revision of that checkpoint."""
    rank: Annotated[int, Field(ge=1)]
    licence: Line
    """Licence of the adapter; that of the checkpoint holds besides."""
    commercial_use: bool = False
    """Whether that licence allows commercial use; forbidden by default."""


class Adapter(AdapterManifest):
    """A named adapter."""

    name: AdapterName
    sha256: Sha256
    """Of its manifest."""
    added_by: Line
    added_at: AwareDatetime

    @property
    def reference(self) -> str:
        """What names exactly this adapter in a job, whatever else may come to have its name."""
        return f"{self.name}@sha256:{self.sha256}"


class JobAdapter(Record):
    """The adapter that a job is done with."""

    name: AdapterName
    sha256: Sha256
    """Of its manifest: other weights, or another licence, have another one."""
    scale: Annotated[float, Field(ge=-MOST_SCALE, le=MOST_SCALE)] = 1.0
    """How strongly it is applied: 1 is as it was trained, 0 not at all."""


class UsedAdapter(JobAdapter):
    """The adapter that a result was made with, and the licence that holds besides the model's."""

    licence: str
