"""`omnifleet` that kills itself, as the kernel would, at a call that the environment names.

KILLED_AT is `module:Class.method:before` or `...:after`, KILLED_CALL which of its calls, from 1.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import os
import signal
from collections.abc import Callable
from typing import Any

from omnifleet.cli import main


def die_at(point: str, call: int) -> None:
    module, path, when = point.split(":")
    name, method = path.split(".")
    owner: Any = getattr(importlib.import_module(module), name)
    setattr(owner, method, _deadly(getattr(owner, method), when, call))


def _deadly(method: Callable[..., Any], when: str, call: int) -> Callable[..., Any]:
    calls = itertools.count(1)

    @functools.wraps(method)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        is_last = next(calls) == call
        if is_last and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = method(*args, **kwargs)
        if is_last and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return wrapped


if __name__ == "__main__":
    if "KILLED_AT" in os.environ:
        die_at(os.environ["KILLED_AT"], int(os.environ["KILLED_CALL"]))
    main()
