"""Fields that OpenAI's requests have in common, checked by what the fleet can honour."""

from __future__ import annotations

from typing import Annotated

from omnifleet_shared.keys import MODEL
from pydantic import AfterValidator, BaseModel, ConfigDict


class OpenAIRequest(BaseModel):
    """Base of OpenAI's requests: what is not known is refused by its name, not left out in silence."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _known_model(name: str) -> str:
    if name != MODEL:
        raise ValueError(f"there is no model {name[:80]!r} here. Use {MODEL!r}, as GET /v1/models lists it")
    return name


ModelName = Annotated[str, AfterValidator(_known_model)]
