"""Who is let in: keys, rates and quotas, each checked and counted by Redis in one step, so that replicas agree."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import Any, cast

from omnifleet_shared.errors import KeyRefused, QuotaExceeded, RateExceeded, UnknownJob
from omnifleet_shared.keys import API_KEYS_KEY, API_QUOTA_KEY, API_RATE_KEY, JOB_TENANT_KEY
from omnifleet_shared.redis_client import typed_redis_errors
from redis.asyncio import Redis

from .api_key import ApiKey, read_key

CONNECTIONS = 4
"""Commands sent at once, each on its own connection."""

ADMIT = """
local key_id, sha256 = unpack(ARGV)
local stored = redis.call('HGET', KEYS[1], key_id)
if not stored then return {'unknown'} end
local key = cjson.decode(stored)
if key.sha256 ~= sha256 then return {'unknown'} end
-- A request is paid for with 60 / rate seconds. Ten seconds may be paid for ahead, and one request in any case.
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1e6
local price = 60 / key.rate
local paid = math.max(tonumber(redis.call('GET', KEYS[2]) or now), now) + price
local wait = paid - now - math.max(10, price)
if wait > 1e-6 then return {'limited', tostring(wait)} end
redis.call('SET', KEYS[2], string.format('%.6f', paid), 'EX', math.ceil(paid - now) + 1)
return {'admitted', stored}
"""
SPEND = """
local used = tonumber(redis.call('GET', KEYS[1]) or 0)
local now = tonumber(redis.call('TIME')[1])
local midnight = now - now % 86400 + 86400
if used >= tonumber(ARGV[1]) then return midnight - now end
redis.call('INCR', KEYS[1])
redis.call('EXPIREAT', KEYS[1], midnight)
return 0
"""
REFUND = """
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('DECR', KEYS[1]) end
"""


@dataclass(frozen=True)
class Caller:
    """Who makes a request."""

    key: ApiKey | None = None
    """None where the gateway runs without keys: everybody may see every job."""

    @property
    def tenant(self) -> str | None:
        """The key's tenant."""
        return self.key.tenant if self.key else None


class Admission:
    """Lets callers in and keeps their jobs apart. Every method may raise BrokerUnavailable.

    Args:
        redis: a client of this event loop; it stays the caller's to close.
        job_lifetime: seconds that records of jobs live.
    """

    def __init__(self, redis: Redis, job_lifetime: int) -> None:
        self._redis = cast(Any, redis)
        self._lifetime = job_lifetime
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._admit, self._spend, self._refund = (
            self._redis.register_script(script) for script in (ADMIT, SPEND, REFUND)
        )

    async def admit(self, text: str) -> Caller:
        """Let in a request with this key, and count it.

        Raises:
            KeyRefused: no such key.
            RateExceeded: too many requests of that key.
        """
        key_id, sha256 = read_key(text)
        keys = [API_KEYS_KEY, API_RATE_KEY.format(key_id=key_id)]
        verdict, *answer = await self._run(self._admit, keys, [key_id, sha256])
        if verdict == b"unknown":
            remedy = "It was revoked, or is of another fleet: ask for a new one (omnifleet keys add)"
            raise KeyRefused("there is no such API key", "Authorization", remedy)
        if verdict == b"limited":
            wait = math.ceil(float(answer[0]))
            problem = "this API key makes more requests than it may"
            raise RateExceeded(problem, None, f"Try again in {wait} s", {"retry_after": wait})
        return Caller(ApiKey.model_validate_json(answer[0]))

    async def spend(self, caller: Caller) -> None:
        """Count a job against the caller's quota of the day. Raises QuotaExceeded where it is used up."""
        if caller.key is None or caller.key.quota is None:
            return
        wait = int(await self._run(self._spend, [API_QUOTA_KEY.format(key_id=caller.key.id)], [caller.key.quota]))
        if wait:
            problem = f"this API key has sent its {caller.key.quota} jobs of today"
            raise QuotaExceeded(problem, None, f"Try again in {wait} s", {"retry_after": wait})

    async def refund(self, caller: Caller) -> None:
        """Take a job back that was counted and not sent."""
        if caller.key is not None and caller.key.quota is not None:
            await self._run(self._refund, [API_QUOTA_KEY.format(key_id=caller.key.id)], [])

    async def claim(self, caller: Caller, job_id: str) -> None:
        """Note whose job it is."""
        if caller.tenant is not None:
            await self._ask("SET", JOB_TENANT_KEY.format(job_id=job_id), caller.tenant, "EX", self._lifetime)

    async def check_owner(self, caller: Caller, job_id: str) -> None:
        """Raise UnknownJob where the job is not of the caller's tenant, as if there were none."""
        if caller.tenant is None:
            return
        tenant = await self._ask("GET", JOB_TENANT_KEY.format(job_id=job_id))
        if tenant != caller.tenant.encode():
            raise UnknownJob(
                f"no job {job_id[:80]!r} is known here", "job_id", "Jobs are seen by the tenant's own keys"
            )

    async def ping(self) -> None:
        """Ask Redis for a sign of life."""
        await self._ask("PING")

    async def _run(self, script: Any, keys: list[str], args: list[Any]) -> Any:
        async with self._slots:
            with typed_redis_errors():
                return await script(keys=keys, args=args)

    async def _ask(self, *command: Any) -> Any:
        async with self._slots:
            with typed_redis_errors():
                return await self._redis.execute_command(*command)
