"""A fleet in memory, for the tests of whoever uses omnifleet: no Redis, no disk, no model.

    omni = FakeClient(answer=lambda job: "hello" if job.task.name == "transcribe" else None)
    assert omni.understand("transcribe", "call.mp3").result().text == "hello"
    assert omni.jobs[0].task.name == "transcribe"

Requests are checked as by a real client, and refused with the same errors.
"""

from .async_fakes import FakeAsyncClient
from .fakes import FakeClient, FakeFleet

__all__ = ["FakeAsyncClient", "FakeClient", "FakeFleet"]
