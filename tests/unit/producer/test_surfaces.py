"""`AsyncClient` is `Client` awaited: the same names, arguments and words, so that neither drifts from the other."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from omnifleet import AsyncClient, AsyncJobHandle, Client, JobHandle
from omnifleet.async_voices import AsyncVoices
from omnifleet.testing import FakeAsyncClient, FakeClient
from omnifleet.transport.async_celery import AsyncJobTransport
from omnifleet.transport.celery import JobTransport
from omnifleet.voices import Voices

PAIRS = [
    (Client, AsyncClient),
    (JobHandle, AsyncJobHandle),
    (JobTransport, AsyncJobTransport),
    (FakeClient, FakeAsyncClient),
    (Voices, AsyncVoices),
]
ONLY_ASYNC = {"cancel_job"}
"""Parameters that only make sense where a task may be cancelled."""
OF_BATCHES = {"capacity", "pending_deletion", "watch", "workers"}
"""Methods of a transport that batches, uploads and routing alone use, on the blocking one."""
OTHER_WORDS = {"AsyncJobHandle.result", "AsyncJobHandle.progress"}
"""Methods that have more to say; they begin with the same words."""


def public(cls: type) -> dict[str, Any]:
    return {name: value for name, value in inspect.getmembers(cls) if not name.startswith("_")}


def methods() -> list[Any]:
    return [
        pytest.param(blocking, awaited, name, id=f"{awaited.__name__}.{name}")
        for blocking, awaited in PAIRS
        for name in ["__init__", *sorted(public(blocking).keys() - OF_BATCHES)]
        if inspect.isfunction(getattr(blocking, name))
    ]


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    """Name, kind and default of each; annotations too, but for the transport's, which is each client's own."""
    return [
        (one.name, one.kind, one.default, None if one.name in ("transport", "executor") else one.annotation)  # type: ignore[misc]
        for one in inspect.signature(function).parameters.values()
        if one.name not in ONLY_ASYNC
    ]


@pytest.mark.parametrize(("blocking", "awaited"), PAIRS, ids=lambda cls: cls.__name__)
def test_both_have_the_same_names(blocking: type, awaited: type) -> None:
    assert public(blocking).keys() - OF_BATCHES == public(awaited).keys() - {"blocking"}


@pytest.mark.parametrize(("blocking", "awaited", "name"), methods())
def test_both_take_the_same_arguments(blocking: type, awaited: type, name: str) -> None:
    if (awaited, name) in ((AsyncJobHandle, "__init__"), (AsyncVoices, "__init__")):
        return  # users make none
    assert parameters(getattr(blocking, name)) == parameters(getattr(awaited, name))


@pytest.mark.parametrize(("blocking", "awaited", "name"), methods())
def test_both_say_the_same(blocking: type, awaited: type, name: str) -> None:
    here, there = (inspect.getdoc(getattr(cls, name)) for cls in (blocking, awaited))

    if awaited is AsyncJobTransport:
        assert there == "See `JobTransport`." or name == "__init__"
    elif f"{awaited.__name__}.{name}" in OTHER_WORDS:
        assert here and there and here.splitlines()[0] == there.splitlines()[0]
    else:
        assert here == there


def test_the_calls_themselves_are_one_and_the_same_code() -> None:
    for name in ("understand", "generate", "edit"):
        assert getattr(Client, name) is getattr(AsyncClient, name)


@pytest.mark.parametrize(("blocking", "awaited", "name"), methods())
def test_what_may_take_time_is_awaited(blocking: type, awaited: type, name: str) -> None:
    # A call gives a coroutine, `batch` something that is iterated, and `progress` something that is either.
    at_once = {"__init__", "job", "understand", "generate", "edit", "batch", "of_tenant"}

    if (awaited, name) == (AsyncJobHandle, "stream"):
        assert inspect.isasyncgenfunction(AsyncJobHandle.stream)
    elif name not in at_once and (awaited, name) != (AsyncJobHandle, "progress"):
        assert inspect.iscoroutinefunction(getattr(awaited, name))
