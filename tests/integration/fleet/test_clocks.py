"""Deadlines where the clocks of producers and workers are wrong: Redis's own decides."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from omnifleet import DeadlineExceeded
from omnifleet.request import build
from omnifleet.transport import celery
from support.scripted_fleet import WAIT, ScriptedFleet

HOUR = 3600.0


@pytest.mark.parametrize("skew", [-HOUR, HOUR])
def test_a_workers_clock_neither_ends_a_job_early_nor_late(scripted: ScriptedFleet, skew: float) -> None:
    scripted.start(SCRIPTED_CLOCK_SKEW=str(skew))

    in_time = scripted.omni.understand(question="Is there time?", max_new_tokens=1, deadline=120)
    too_late = scripted.omni.generate("t2a", "rain", steps=200, deadline=4)

    assert in_time.result(WAIT).text
    with pytest.raises(DeadlineExceeded):
        too_late.result(WAIT)


@pytest.mark.parametrize("skew", [-HOUR, HOUR])
def test_a_producers_clock_neither_ends_a_job_early_nor_late(
    scripted: ScriptedFleet, skew: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + timedelta(seconds=skew)

    for module in (build, celery):
        monkeypatch.setattr(module, "datetime", Wrong)
    scripted.start()

    in_time = scripted.omni.understand(question="Is there time?", max_new_tokens=1, deadline=120)
    too_late = scripted.omni.generate("t2a", "rain", steps=200, deadline=4)

    assert in_time.result(WAIT).text
    with pytest.raises(DeadlineExceeded):
        too_late.result(WAIT)


def test_a_job_of_an_older_client_has_its_deadline_by_rediss_clock(scripted: ScriptedFleet) -> None:
    scripted.start(SCRIPTED_CLOCK_SKEW=str(HOUR))
    moment = datetime.now(UTC) + timedelta(seconds=120)
    job = scripted.omni.understand(question="Is there time?", max_new_tokens=40, deadline=moment)
    scripted.redis.client().hdel(f"omnifleet:runs:{job.id}", "sent:deadline")

    assert job.result(WAIT).text
