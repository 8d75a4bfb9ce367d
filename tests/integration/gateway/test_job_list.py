"""`GET /v1/jobs`: each tenant's jobs, newest first, page by page."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest
from omnifleet.gateway.jobs import job_list
from omnifleet.gateway.jobs.job_list import JobList
from omnifleet_shared.redis_client import connect_async_redis
from omnifleet_shared.schema.job_state import STATE_KEY
from support.gateway.process import LONG, Gateway, gateway, new_key
from support.scripted_fleet import ScriptedFleet

RAIN = {"task": "generate.T2A", "text": "rain", "seconds": 0.5, "steps": 2}
WHAT = {"task": "understand", "question": "What is it?", "max_new_tokens": 1}


@pytest.fixture
def caller(omnigate: Gateway, fleet: ScriptedFleet) -> Gateway:
    """Of a tenant that sent nothing yet."""
    return omnigate.with_key(new_key(fleet.settings.redis_url, uuid.uuid4().hex))


def listed(caller: Gateway, path: str = "/v1/jobs") -> list[dict[str, Any]]:
    answer = caller.get(path)
    assert answer.status == 200, answer.body
    return answer.json["data"]  # type: ignore[no-any-return]


def test_who_sent_nothing_has_an_empty_list(caller: Gateway) -> None:
    assert caller.get("/v1/jobs").json == {"object": "list", "data": [], "next": None}


def test_jobs_are_listed_with_what_became_of_them(caller: Gateway) -> None:
    made = caller.post("/v1/jobs?wait=60", RAIN).json["id"]
    failed = caller.post("/v1/jobs?wait=60", {"task": "understand.transcribe", "audio": {"data": "bm8="}}).json["id"]
    asked = caller.post("/v1/jobs?wait=60", WHAT).json["id"]
    running = caller.send(**RAIN | {"steps": LONG})

    jobs = listed(caller)

    assert [job["id"] for job in jobs] == [running, asked, failed, made]
    assert [job["task"] for job in jobs] == [
        "generate.t2a",
        "understand.question",
        "understand.transcribe",
        "generate.t2a",
    ]
    assert jobs[0]["status"] in ("queued", "running")
    assert [job["status"] for job in jobs[1:]] == ["succeeded", "failed", "succeeded"]
    assert [job["error"] and job["error"]["code"] for job in jobs[1:]] == [None, "MediaUnreadable", None]
    assert caller.get(jobs[-1]["path"]).json["id"] == made
    assert [job["created_at"] for job in jobs] == sorted((job["created_at"] for job in jobs), reverse=True)
    caller.ask("DELETE", f"/v1/jobs/{running}")


def test_pages_follow_one_another_whatever_is_sent_meanwhile(caller: Gateway) -> None:
    sent = [caller.send(**WHAT) for _ in range(5)]

    first = caller.get("/v1/jobs?limit=2").json
    caller.send(**WHAT)
    second = caller.get(first["next"]).json
    third = caller.get(second["next"]).json

    pages = [[job["id"] for job in page["data"]] for page in (first, second, third)]
    assert pages == [[sent[4], sent[3]], [sent[2], sent[1]], [sent[0]]]
    assert third["next"] is None


def test_another_tenant_sees_none_of_them_and_another_key_all(caller: Gateway, fleet: ScriptedFleet) -> None:
    ours, theirs = (new_key(fleet.settings.redis_url, name) for name in ("one-tenant", "other-tenant"))
    job_id = caller.with_key(ours).send(**WHAT)

    assert listed(caller.with_key(theirs)) == []
    second_key = new_key(fleet.settings.redis_url, "one-tenant")
    assert [job["id"] for job in listed(caller.with_key(second_key))] == [job_id]


def test_a_job_that_a_key_came_back_to_is_listed_once(caller: Gateway) -> None:
    for _ in range(2):
        caller.post("/v1/jobs", WHAT, {"Idempotency-Key": "once"})

    assert len(listed(caller)) == 1


def test_a_job_whose_record_is_gone_is_left_out(caller: Gateway, fleet: ScriptedFleet) -> None:
    gone, kept = (caller.post("/v1/jobs?wait=60", WHAT).json["id"] for _ in range(2))
    fleet.redis.client().delete(STATE_KEY.format(job_id=gone))

    assert [job["id"] for job in listed(caller)] == [kept]


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "after=-1", "after=x", "after=9007199254740992"])
def test_a_page_that_there_cannot_be_is_refused(caller: Gateway, query: str) -> None:
    answer = caller.get(f"/v1/jobs?{query}")

    assert (answer.status, answer.error["param"]) == (400, query.partition("=")[0])


def test_without_keys_everybody_sees_what_nobody_in_particular_sent(fleet: ScriptedFleet) -> None:
    with gateway(fleet.environment, fleet.folder / "open.log", "--without-keys") as everybody:
        job_id = everybody.send(**WHAT)

        assert [job["id"] for job in listed(everybody)] == [job_id]


def test_the_oldest_give_way_to_new_ones(fleet: ScriptedFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_list, "MOST_LISTED", 3)
    ids = [fleet.omni.understand(question="What is it?", max_new_tokens=1).id for _ in range(5)]

    async def fill_and_read() -> list[str]:
        redis = connect_async_redis(fleet.settings)
        jobs = JobList(redis, 3600)
        for job_id in ids:
            await jobs.add("crowded", job_id, "understand.question")
        page = await jobs.page("crowded", 10)
        await redis.aclose()
        return [job.job_id for job in page.jobs]

    assert asyncio.run(fill_and_read()) == ids[:1:-1]
