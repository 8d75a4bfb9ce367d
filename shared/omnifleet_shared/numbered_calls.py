"""Calls that are numbered by their caller, so that a script knows which of them ran already.

redis-py sends a script again when its connection breaks, and what lay in a buffer may reach Redis long after its caller
made other calls. Of a caller's calls, which follow each other, Redis keeps the last number and what it gave: the call
that comes again gets the same, and older ones that come late get nothing.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Sequence
from typing import Any, cast

from redis import Redis

from .keys import CALLS_KEY, CALLS_LIFETIME
from .redis_client import typed_redis_errors

# Part of the scripts of numbered calls. KEYS 1: the caller's last call. ARGV 1, 2: number, id of the call.
# `remember` runs at the end: Redis refuses the first write of a script when memory is full, and none after it.
NUMBERED_CALL = f"""
local caller, number, call = KEYS[1], tonumber(ARGV[1]), ARGV[2]
local last, given = string.match(redis.call('GET', caller) or '0 ', '^(%d+) (.*)$')
local is_again, is_late = tonumber(last) == number, tonumber(last) > number
local function remember(given)
  redis.pcall('SET', caller, ARGV[1] .. ' ' .. given, 'EX', {CALLS_LIFETIME})
end
"""


class NumberedCalls:
    """Makes the calls of one script, one after the other. A call without an answer is made again by the next one.

    Args:
        redis: client of the fleet's Redis.
        script: begins with `NUMBERED_CALL`.
    """

    def __init__(self, redis: Redis, script: str) -> None:
        self._script = cast(Any, redis.register_script(script))
        self._key = CALLS_KEY.format(caller=uuid.uuid4().hex)
        self._lock = threading.Lock()
        self._number = 1
        self._call = uuid.uuid4().hex

    def make(self, keys: Sequence[str], args: Sequence[Any]) -> tuple[str, Any]:
        """Run the script; gives the id of the call, and the answer. Raises BrokerUnavailable."""
        with self._lock:
            with typed_redis_errors():
                answer = self._script(keys=[self._key, *keys], args=[self._number, self._call, *args])
            answered = self._call
            self._number, self._call = self._number + 1, uuid.uuid4().hex
        return answered, answer
