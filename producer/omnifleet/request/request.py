"""Requests: calls of a client as data, before anything of them is checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from omnifleet_shared.errors import InvalidJob
from omnifleet_shared.schema.tasks import TASK_NAMES, Namespace

MEDIA: dict[Namespace, tuple[str, ...]] = {
    "understand": ("audio", "video"),
    "generate": ("ref", "audio", "video"),
    "edit": ("audio",),
}
"""Arguments that are media."""


VOICE = "voice:"
"""What `ref` begins with where it names a voice."""


@dataclass(frozen=True)
class Request:
    """A call of a client's `understand`, `generate` or `edit` that is not made yet, and so not checked either."""

    namespace: Namespace
    arguments: Mapping[str, Any]
    """By their names in that call; None means the default."""

    @classmethod
    def of(cls, namespace: Namespace, options: Mapping[str, Any], **arguments: Any) -> Request:
        """Make the request of a call; arguments that are None are left out."""
        named = {name: value for name, value in arguments.items() if value is not None}
        return cls(namespace, {**named, **options})

    @property
    def title(self) -> str:
        """What operators read of it in traces, such as `generate t2a`; the text of a free question is left out."""
        task = self.arguments.get("task")
        is_question = self.namespace == "understand" and (task is None or len(str(task).split()) != 1)
        return f"{self.namespace} {'question' if is_question else task}"

    def resolve_paths(self, folder: Path) -> Request:
        """Return the same request with its local files looked for in `folder`."""
        media = MEDIA[self.namespace]
        local = {name: value for name, value in self.arguments.items() if name in media and not self._is_voice(name)}
        resolved = {name: _resolve(value, folder) for name, value in local.items()}
        return Request(self.namespace, {**self.arguments, **resolved})

    @property
    def voice(self) -> str | None:
        """Name of the voice that is its reference; None where it names none."""
        return str(self.arguments["ref"]).removeprefix(VOICE) if self._is_voice("ref") else None

    def _is_voice(self, argument: str) -> bool:
        value = self.arguments.get(argument)
        return argument == "ref" and isinstance(value, str) and value.startswith(VOICE)

    def with_default(self, **arguments: Any) -> Request:
        """Return the same request with these arguments, where it has none of their names."""
        return Request(self.namespace, {**arguments, **self.arguments})


def as_request(item: object) -> Request:
    """Read an item of a batch as a request. Raises InvalidJob where it is neither a request nor a mapping of one."""
    if isinstance(item, Request):
        return item
    if isinstance(item, Mapping):
        return read_request(cast(Mapping[str, Any], item))
    remedy = 'Give omnifleet.batch.edit("Add", "street.wav", desc="rain"), or the same as {"task": "edit.add", ...}'
    raise InvalidJob(f"{type(item).__name__} is no job", "jobs", remedy)


def read_request(fields: Mapping[str, Any]) -> Request:
    """Read a request from fields: `task` is `edit.add` or the like, the others are that call's arguments.

    Raises:
        InvalidJob: no task, or none of a namespace. Everything else is checked when the job is made.
    """
    arguments = {name: value for name, value in fields.items() if value is not None}
    named = arguments.pop("task", None)
    known = f"Name it with its namespace, such as edit.add; namespaces are {', '.join(TASK_NAMES)}"
    if not isinstance(named, str) or not named.strip():
        raise InvalidJob("the task is missing", "task", known)
    spelled, _, task = named.strip().partition(".")
    namespace = spelled.strip().lower()
    if namespace not in TASK_NAMES:
        raise InvalidJob(f"{named[:80]!r} is no task", "task", _with_namespace(named.strip().lower()) or known)
    return Request(namespace, ({"task": task.strip()} if task.strip() else {}) | arguments)


def _with_namespace(task: str) -> str | None:
    namespaces = [namespace for namespace, names in TASK_NAMES.items() if task in names]
    return f"Write {namespaces[0]}.{task}" if namespaces else None


def _resolve(value: Any, folder: Path) -> Any:
    if isinstance(value, list | tuple):
        return [_resolve(one, folder) for one in cast(list[Any], value)]
    if isinstance(value, str) and "://" not in value:
        return str(folder / value)
    return value
