"""`GET /v1/models` and `GET /v1/voices`: what may be named in the other requests."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path
from omnifleet_shared.keys import MODEL
from starlette.exceptions import HTTPException

from ..backend import TheBackend, the_caller
from .speech import DEFAULT_VOICE

PUBLISHED = 1_775_001_600
"""April 2026, when the model was published, as Unix time."""

router = APIRouter(tags=["OpenAI"], dependencies=[Depends(the_caller)])


@router.get("/v1/models")
async def list_models() -> dict[str, Any]:
    """List the models."""
    return {"object": "list", "data": [_model()]}


@router.get("/v1/models/{name}")
async def read_model(name: Annotated[str, Path(examples=[MODEL])]) -> dict[str, Any]:
    """Look a model up."""
    if name != MODEL:
        raise HTTPException(404, f"There is no such model. Use {MODEL}.")
    return _model()


@router.get("/v1/voices")
async def list_voices(backend: TheBackend) -> dict[str, Any]:
    """List the voices that speech may be asked for in: the model's own, and those that were added to the fleet."""
    named = [
        {"id": voice.name, "object": "voice", "name": voice.name, "created_at": int(voice.added_at.timestamp())}
        for voice in await backend.omni.voices.list()
    ]
    own = {"id": DEFAULT_VOICE, "object": "voice", "name": DEFAULT_VOICE, "created_at": PUBLISHED}
    return {"object": "list", "data": [own, *named]}


def _model() -> dict[str, Any]:
    return {"id": MODEL, "object": "model", "created": PUBLISHED, "owned_by": "omnifleet"}
