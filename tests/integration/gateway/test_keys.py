"""Who is let in: keys, tenants, rates and quotas, at a real gateway on a real Redis."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from support import processes
from support.gateway.process import Gateway, gateway, new_key
from support.scripted_fleet import ScriptedFleet

UNKNOWN = "of_" + "0" * 12 + "_" + "x" * 43


def keys(fleet: ScriptedFleet, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `omnifleet keys` on the fleet."""
    command = [sys.executable, "-m", "omnifleet", "keys", *arguments]
    return subprocess.run(command, env=os.environ | fleet.environment, capture_output=True, text=True, timeout=60)


class TestEntry:
    @pytest.mark.parametrize("key", [None, "", "garbage", UNKNOWN, f"{UNKNOWN}\x7f", "of_" + "9" * 10_000])
    def test_nobody_comes_in_without_a_key(self, omnigate: Gateway, key: str | None) -> None:
        answer = omnigate.with_key(key).post("/v1/jobs", {"task": "generate.t2a", "text": "rain"})

        assert (answer.status, answer.error["code"], answer.error["type"]) == (
            401,
            "KeyRefused",
            "authentication_error",
        )
        assert answer.headers["www-authenticate"] == "Bearer"

    def test_a_forged_secret_of_a_known_key_is_refused_and_costs_its_owner_nothing(
        self, omnigate: Gateway, fleet: ScriptedFleet
    ) -> None:
        real = new_key(fleet.settings.redis_url, rate=1)
        forged = omnigate.with_key(real[:-1] + ("A" if real[-1] != "A" else "B"))

        assert {forged.get("/v1/jobs/nobody").status for _ in range(3)} == {401}

        assert omnigate.with_key(real).get("/v1/jobs/nobody").status == 404

    def test_pages_of_health_need_none(self, omnigate: Gateway) -> None:
        stranger = omnigate.with_key(None)

        assert [stranger.get(path).status for path in ("/livez", "/readyz", "/openapi.json")] == [200, 200, 200]

    def test_without_keys_it_listens_to_this_machine_alone(self, fleet: ScriptedFleet) -> None:
        command = [sys.executable, "-m", "omnifleet", "gateway", "--without-keys", "--host", "0.0.0.0"]

        refused = subprocess.run(
            command, env=os.environ | fleet.environment, capture_output=True, text=True, timeout=60
        )

        assert refused.returncode == 2
        assert "everybody who reaches 0.0.0.0 would be let in" in refused.stderr
        with gateway(fleet.environment, fleet.folder / "open.log", "--without-keys") as everybodys:
            assert everybodys.post("/v1/jobs", {"task": "generate.t2a", "text": "rain", "steps": 1}).status == 202


class TestTheCommand:
    def test_a_key_is_made_shown_once_listed_and_revoked(self, omnigate: Gateway, fleet: ScriptedFleet) -> None:
        made = keys(fleet, "add", "newcomer", "--rate", "120", "--quota", "7")
        key = made.stdout.strip()
        mine = omnigate.with_key(key)
        assert mine.get("/v1/jobs/nobody").status == 404

        listed = json.loads(keys(fleet, "list", "--json").stdout)
        (about,) = [one for one in listed if one["tenant"] == "newcomer"]
        assert (about["rate"], about["quota"], about["id"]) == (120, 7, key.split("_")[1])
        revoked = keys(fleet, "revoke", about["id"])

        assert revoked.returncode == 0
        assert mine.get("/v1/jobs/nobody").status == 401
        assert about["id"] not in keys(fleet, "list").stdout

    def test_only_its_hash_is_kept(self, fleet: ScriptedFleet) -> None:
        key = new_key(fleet.settings.redis_url)
        secret = key.split("_", 2)[2]

        with fleet.redis.client() as redis:
            kept = b"".join(redis.hvals("omnifleet:gateway:keys"))  # type: ignore[arg-type]

        assert key.split("_")[1].encode() in kept
        assert secret.encode() not in kept

    @pytest.mark.parametrize(
        ("arguments", "field"),
        [
            (["add", "two words"], "tenant"),
            (["add", "x", "--rate", "0"], "rate"),
            (["add", "x", "--quota", "0"], "quota"),
        ],
    )
    def test_what_will_not_do_is_refused_by_its_name(
        self, fleet: ScriptedFleet, arguments: list[str], field: str
    ) -> None:
        refused = keys(fleet, *arguments)

        assert (refused.returncode, refused.stdout) == (2, "")
        assert f"{field}: " in refused.stderr

    def test_an_unknown_key_cannot_be_revoked(self, fleet: ScriptedFleet) -> None:
        assert keys(fleet, "revoke", "nobody").returncode == 2


class TestLimits:
    def test_more_requests_than_the_rate_are_refused_until_there_is_room(
        self, omnigate: Gateway, fleet: ScriptedFleet
    ) -> None:
        # Sixty a minute: ten at once, then one a second.
        mine = omnigate.with_key(new_key(fleet.settings.redis_url, rate=60))

        answers: list[Any] = []
        while not answers or answers[-1].status == 404:
            answers.append(mine.get("/v1/jobs/nobody"))

        # More than ten where the machine took seconds for them.
        assert len(answers) > 10
        assert (answers[-1].status, answers[-1].error["code"]) == (429, "RateExceeded")
        assert int(answers[-1].headers["retry-after"]) >= 1
        processes.wait_until(lambda: mine.get("/v1/jobs/nobody").status == 404, what="room again")

    def test_two_replicas_count_together(self, omnigate: Gateway, fleet: ScriptedFleet) -> None:
        key = new_key(fleet.settings.redis_url, rate=1)

        with gateway(fleet.environment, fleet.folder / "replica.log", key=key) as replica:
            first = omnigate.with_key(key).get("/v1/jobs/nobody").status
            second = replica.get("/v1/jobs/nobody").status

        assert (first, second) == (404, 429)

    @pytest.mark.usefixtures("one_day")
    def test_a_quota_counts_jobs_that_were_sent_and_no_others(self, omnigate: Gateway, fleet: ScriptedFleet) -> None:
        mine = omnigate.with_key(new_key(fleet.settings.redis_url, quota=2))
        job = {"task": "generate.t2a", "text": "rain", "steps": 1}

        sent = [mine.post("/v1/jobs", one).status for one in (job, {**job, "seconds": -1}, job)]
        refused = mine.post("/v1/jobs", job)

        assert sent == [202, 400, 202]
        assert (refused.status, refused.error["code"]) == (429, "QuotaExceeded")
        assert 0 < int(refused.headers["retry-after"]) <= 86_400
        assert mine.get("/v1/jobs/nobody").status == 404


class TestTenants:
    @pytest.mark.usefixtures("one_day")
    def test_a_job_counts_as_its_keys_tenants_and_its_quota_holds(
        self, omnigate: Gateway, fleet: ScriptedFleet
    ) -> None:
        mine = omnigate.with_key(new_key(fleet.settings.redis_url, "spender"))
        limited = keys(fleet, "limit", "spender", "--weight", "2", "--gpu-seconds", "0.01")
        assert limited.stdout == "spender  weight 2  0.01 GPU-seconds a day\n"
        job = {"task": "generate.t2a", "text": "rain", "steps": 2}
        assert mine.post("/v1/jobs?wait=60", job).json["status"] == "succeeded"

        refused = mine.post("/v1/jobs", job)

        assert (refused.status, refused.error["code"], refused.error["param"]) == (429, "QuotaExceeded", "tenant")
        assert 0 < int(refused.headers["retry-after"]) <= 86_400
        assert json.loads(keys(fleet, "limit", "spender", "--unlimited", "--json").stdout) == {
            "tenant": "spender",
            "weight": 2.0,
            "gpu_seconds": None,
        }
        assert mine.post("/v1/jobs", job).status == 202

    def test_a_job_is_its_tenants_own(self, omnigate: Gateway, fleet: ScriptedFleet) -> None:
        job_id = omnigate.send(task="generate.t2a", text="rain", steps=1)
        stranger = omnigate.with_key(new_key(fleet.settings.redis_url, "another"))
        colleague = omnigate.with_key(new_key(fleet.settings.redis_url, "acme"))

        seen = {
            (method, path): stranger.ask(method, f"/v1/jobs/{job_id}{path}").status
            for method, path in [("GET", ""), ("GET", "/events"), ("GET", "/audio"), ("DELETE", "")]
        }

        assert set(seen.values()) == {404}
        assert colleague.get(f"/v1/jobs/{job_id}").status == 200

    def test_an_idempotency_key_is_its_tenants_own(self, omnigate: Gateway, fleet: ScriptedFleet) -> None:
        stranger = omnigate.with_key(new_key(fleet.settings.redis_url, "another"))
        job, header = {"task": "generate.t2a", "text": "rain", "steps": 1}, {"Idempotency-Key": "the-same"}

        first, again, theirs = (one.post("/v1/jobs", job, header).json["id"] for one in (omnigate, omnigate, stranger))

        assert first == again != theirs
