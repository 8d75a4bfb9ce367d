"""Calls that are made later: the items of a batch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, cast

from omnifleet_shared.errors import InvalidJob
from omnifleet_shared.schema.tasks import TASK_NAMES, Namespace

from ..client import Client
from ..handle import JobHandle
from ..request.build import OPTIONS

P = ParamSpec("P")
MEDIA = ("audio", "video", "ref")
"""Arguments that are media."""


@dataclass(frozen=True)
class Request:
    """A call of a client's `understand`, `generate` or `edit` that is not made yet, and so not checked either."""

    namespace: Namespace
    arguments: Mapping[str, Any]
    """By their names in that call."""

    def make(self, client: Client) -> JobHandle[Any]:
        """Make the call. Raises as the client's method does."""
        arguments = dict(self.arguments)
        takes = ARGUMENTS[self.namespace]
        for name in arguments:
            if name not in takes:
                remedy = f"{self.namespace} takes: {', '.join(sorted(takes))}"
                raise InvalidJob(f"{self.namespace} takes no {str(name)[:80]}", str(name)[:80], remedy)
        match self.namespace:
            case "understand":
                return client.understand(**arguments)
            case "generate":
                return client.generate(_named(arguments), **arguments)
            case "edit":
                # What is missing is said by the contract, in its own words.
                return client.edit(_named(arguments), arguments.pop("audio", None), **arguments)

    def at(self, folder: Path) -> Request:
        """The same with its local files looked for in that folder."""
        placed = {name: _placed(value, folder) for name, value in self.arguments.items() if name in MEDIA}
        return Request(self.namespace, {**self.arguments, **placed})

    def in_lane(self, priority: str) -> Request:
        """The same with that priority, unless it has one."""
        return Request(self.namespace, {"priority": priority, **self.arguments})


def _later(method: Callable[Concatenate[Client, P], JobHandle[Any]]) -> Callable[P, Request]:
    """The method as something that only notes its arguments: one signature for both, which cannot drift apart."""
    signature = inspect.signature(method)

    def note(*args: P.args, **kwargs: P.kwargs) -> Request:
        given = dict(signature.bind_partial(None, *args, **kwargs).arguments)
        options = given.pop("options", {})
        given.pop("self")
        return Request(cast(Namespace, method.__name__), {**given, **options})

    note.__name__ = method.__name__
    note.__doc__ = f"A call of `Client.{method.__name__}` for a batch: the same arguments, nothing is checked yet."
    return note


understand = _later(Client.understand)
generate = _later(Client.generate)
edit = _later(Client.edit)

METHODS: dict[Namespace, Callable[..., Any]] = {
    "understand": Client.understand,
    "generate": Client.generate,
    "edit": Client.edit,
}
ARGUMENTS = {
    namespace: frozenset(inspect.signature(method).parameters) - {"self", "options"} | OPTIONS[namespace]
    for namespace, method in METHODS.items()
}
"""What each call takes."""


def as_request(item: object) -> Request:
    """The request that an item of a batch is. Raises InvalidJob for what is none."""
    if isinstance(item, Request):
        return item
    if isinstance(item, Mapping):
        return read_request(cast(Mapping[str, Any], item))
    remedy = 'Give omnifleet.batch.edit("Add", "street.wav", desc="rain"), or the same as {"task": "edit.add", ...}'
    raise InvalidJob(f"{type(item).__name__} is no job", "jobs", remedy)


def read_request(fields: Mapping[str, Any]) -> Request:
    """The request in the fields of a line: `task` is `edit.add` or the like, the others are that call's arguments.

    Raises:
        InvalidJob: no task, or none of a namespace. Everything else is said when the call is made.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    named = given.pop("task", None)
    known = f"Name it with its namespace, such as edit.add; namespaces are {', '.join(TASK_NAMES)}"
    if not isinstance(named, str) or not named.strip():
        raise InvalidJob("the task is missing", "task", known)
    spelled, _, task = named.strip().partition(".")
    namespace = spelled.strip().lower()
    if namespace not in TASK_NAMES:
        raise InvalidJob(f"{named[:80]!r} is no task", "task", _with_namespace(named.strip().lower()) or known)
    return Request(namespace, ({"task": task.strip()} if task.strip() else {}) | given)


def _with_namespace(task: str) -> str | None:
    namespaces = [namespace for namespace, names in TASK_NAMES.items() if task in names]
    return f"Write {namespaces[0]}.{task}" if namespaces else None


def _named(arguments: dict[str, Any]) -> str:
    task = arguments.pop("task", None)
    if not isinstance(task, str):
        raise InvalidJob("the task is missing", "task", "Name it, such as edit.add or generate.t2a")
    return task


def _placed(value: Any, folder: Path) -> Any:
    if isinstance(value, list | tuple):
        return [_placed(one, folder) for one in cast(list[Any], value)]
    if isinstance(value, str) and "://" not in value:
        return str(folder / value)
    return value
