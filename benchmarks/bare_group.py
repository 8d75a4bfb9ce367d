"""As many bare Celery tasks as it is told, as one group, and all their results: what a batch is without omnifleet."""

from __future__ import annotations

import os
import sys

from bare_worker import TASK, create_bare_app
from celery import group


def main() -> None:
    """Send the group, and wait for its last result."""
    with create_bare_app(os.environ["OMNIFLEET_REDIS_URL"]) as app:
        results = group(app.signature(TASK) for _ in range(int(sys.argv[1]))).apply_async().get()
        assert set(results) == {"ok"}


if __name__ == "__main__":
    main()
