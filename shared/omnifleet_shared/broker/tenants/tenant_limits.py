"""Weights and quotas of tenants, as operators set them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from redis import Redis

from ...errors import InvalidSetting
from ...keys import TENANT_QUOTAS_KEY, TENANT_WEIGHTS_KEY
from ...redis_client import connect_redis, typed_redis_errors
from ...schema.base import check_tenant
from ...settings import FleetSettings

MOST_WEIGHT = 1000.0
MOST_SECONDS = 1e9


@dataclass(frozen=True)
class TenantLimit:
    """What one tenant may have of the fleet."""

    tenant: str
    weight: float = 1.0
    """Share of the fleet's time beside those of others that wait: 2 gets twice what 1 gets."""
    gpu_seconds: float | None = None
    """GPU-seconds a day, from midnight to midnight UTC; None without limit."""


class TenantLimits:
    """The limits of all tenants of one Redis. Every method may raise BrokerUnavailable."""

    def __init__(self, redis: Redis) -> None:
        self._redis = cast(Any, redis)

    @classmethod
    def connect(cls, settings: FleetSettings) -> TenantLimits:
        """Open the limits in the Redis of these settings."""
        return cls(connect_redis(settings))

    def close(self) -> None:
        """Close the connections to Redis."""
        self._redis.close()

    def write(self, limit: TenantLimit) -> None:
        """Set a tenant's weight and quota, from its next job on.

        Raises:
            InvalidSetting: not the name of a tenant, a weight that is not above 0 and at most 1,000, or a quota that is
                not above 0.
        """
        check_tenant(limit.tenant)
        _check("weight", limit.weight, MOST_WEIGHT)
        if limit.gpu_seconds is not None:
            _check("gpu_seconds", limit.gpu_seconds, MOST_SECONDS)
        with typed_redis_errors(), self._redis.pipeline() as pipe:
            pipe.hset(TENANT_WEIGHTS_KEY, limit.tenant, repr(limit.weight))
            if limit.gpu_seconds is None:
                pipe.hdel(TENANT_QUOTAS_KEY, limit.tenant)
            else:
                pipe.hset(TENANT_QUOTAS_KEY, limit.tenant, repr(limit.gpu_seconds))
            pipe.execute()

    def read(self, tenant: str) -> TenantLimit:
        """Read the limits of one tenant, those of nobody in particular where it has none of its own."""
        with typed_redis_errors(), self._redis.pipeline() as pipe:
            weight, quota = pipe.hget(TENANT_WEIGHTS_KEY, tenant).hget(TENANT_QUOTAS_KEY, tenant).execute()
        return TenantLimit(tenant, float(weight or 1), None if quota is None else float(quota))


def _check(field: str, value: float, most: float) -> None:
    if not 0 < value <= most:
        raise InvalidSetting(f"{value:g} will not do", field, f"Give a number above 0, and {most:g} at most")
