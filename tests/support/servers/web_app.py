"""A web application whose client is made, and used, before its server forks: `gunicorn --preload`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

from omnifleet import Client

omni = Client()
parents = omni.understand(question="Who asks at import?", max_new_tokens=1).result(60)


def app(environment: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer with the process's id, and what the fleet answers to the question `q`."""
    question = parse_qs(environment["QUERY_STRING"])["q"][0]
    answer = omni.understand(question=question, max_new_tokens=1).result(60).text
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()} {answer}".encode()]
