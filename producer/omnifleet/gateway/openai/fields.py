"""Fields that OpenAI's requests have in common, checked by what the fleet can honour."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints


class OpenAIRequest(BaseModel):
    """Base of OpenAI's requests: what is not known is refused by its name, not left out in silence."""

    model_config = ConfigDict(extra="forbid", frozen=True)


AUTO = "auto"
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=64)]
"""One of `GET /v1/models`, or `auto` for the first of them that can do it."""


def wished_model(name: str) -> str | None:
    """Give the model that a caller insists on; None for `auto`."""
    return None if name == AUTO else name
