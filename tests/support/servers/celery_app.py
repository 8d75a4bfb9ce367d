"""A user's own Celery app: its tasks send jobs with a client that was made, and used, before workers were forked."""

from __future__ import annotations

import os

from celery import Celery
from omnifleet import Client

app = Celery("backend", broker=os.environ["BACKEND_URL"], backend=os.environ["BACKEND_URL"])
omni = Client()
if os.environ.get("IS_WORKER"):
    omni.understand(question="Who asks at import?", max_new_tokens=1).result(60)


@app.task(name="ask")
def ask(question: str) -> tuple[int, str]:
    """Give the process's id, and the fleet's answer."""
    return os.getpid(), omni.understand(question=question, max_new_tokens=1).result(60).text
