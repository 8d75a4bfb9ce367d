"""`GET /v1/models`, `GET /v1/voices` and `GET /v1/adapters`: what may be named in the other requests."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path
from omnifleet_shared.keys import MODEL
from omnifleet_shared.schema.adapter import Adapter
from starlette.exceptions import HTTPException

from ...routing.route import KnownModel, model_record
from ..backend import TheBackend, the_caller
from .speech import DEFAULT_VOICE

PUBLISHED = 1_775_001_600
"""April 2026, when Audio-Omni was published, as Unix time."""

router = APIRouter(tags=["OpenAI"], dependencies=[Depends(the_caller)])


@router.get("/v1/models")
async def list_models(backend: TheBackend) -> dict[str, Any]:
    """List the models that jobs may be sent to, the preferred ones first: licence, tasks, and whether one is ready."""
    return {"object": "list", "data": [_model(one) for one in await backend.omni.models()]}


@router.get("/v1/models/{name}")
async def read_model(name: Annotated[str, Path(examples=[MODEL])], backend: TheBackend) -> dict[str, Any]:
    """Look a model up."""
    known = {one.name: one for one in await backend.omni.models()}
    if name not in known:
        raise HTTPException(404, f"There is no such model. Use {', '.join(known)}.")
    return _model(known[name])


@router.get("/v1/voices")
async def list_voices(backend: TheBackend) -> dict[str, Any]:
    """List the voices that speech may be asked for in: the model's own, and those that were added to the fleet."""
    named = [
        {"id": voice.name, "object": "voice", "name": voice.name, "created_at": int(voice.added_at.timestamp())}
        for voice in await backend.omni.voices.list()
    ]
    own = {"id": DEFAULT_VOICE, "object": "voice", "name": DEFAULT_VOICE, "created_at": PUBLISHED}
    return {"object": "list", "data": [own, *named]}


@router.get("/v1/adapters")
async def list_adapters(backend: TheBackend) -> dict[str, Any]:
    """List the adapters that jobs may name: what each was trained on, and its licence."""
    return {"object": "list", "data": [_adapter(one) for one in await backend.omni.adapters.list()]}


def _adapter(adapter: Adapter) -> dict[str, Any]:
    about = {"id": adapter.name, "object": "adapter", "created_at": int(adapter.added_at.timestamp())}
    return about | adapter.model_dump(include={"sha256", "rank", "base", "revision", "licence", "commercial_use"})


def _model(known: KnownModel) -> dict[str, Any]:
    about = model_record(known)
    own = {"id": about.pop("name"), "object": "model", "created": PUBLISHED, "owned_by": "omnifleet"}
    return own | about
