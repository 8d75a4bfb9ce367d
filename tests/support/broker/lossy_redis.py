"""Redis behind a network that loses scripts before they run, and their replies after; and that holds some back."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, cast

from omnifleet_shared.errors import BrokerUnavailable
from redis import Connection as RedisConnection
from redis import ConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError
from redis.retry import Retry

Fault = Literal["request lost", "reply lost", "request late"]
"""A late request has reached nobody when its connection breaks, and may be delivered at any time after."""
T = TypeVar("T")
# redis-py types no method of its connections.
Connection: Any = RedisConnection


@dataclass
class SentScript:
    """A script as it was sent, and the reply of its first run; None where it has not run so far."""

    packed: bytes
    reply: Any = None

    def runs(self, script: str) -> bool:
        """Whether it is this script, by its source."""
        return hashlib.sha1(script.encode()).hexdigest().encode() in self.packed


@dataclass
class Network:
    """What becomes of the next scripts, and what was sent so far."""

    faults: deque[Fault] = field(default_factory=deque)
    sent: list[SentScript] = field(default_factory=list)

    def client(self, port: int) -> Redis:
        """Make a client that tries each command three times, as those of `redis_client` do, and without a pause."""
        retry = Retry(cast(Any, NoBackoff()), 2, (RedisConnectionError,))
        pool = ConnectionPool(connection_class=LossyConnection, network=self, port=port, retry=retry)
        return Redis(connection_pool=pool)

    def call(self, faults: Iterable[Fault], call: Callable[[], T]) -> T:
        """Make the call with these faults, again and again until it is answered."""
        self.faults = deque(faults)
        while True:
            try:
                return call()
            except (BrokerUnavailable, RedisConnectionError):
                continue


class LossyConnection(RedisConnection):
    """A connection that breaks as its network says, at scripts and locks alone."""

    def __init__(self, *, network: Network, **options: Any) -> None:
        self._network = network
        self._awaited: SentScript | None = None
        cast(Any, super()).__init__(**options)

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        packed = command.encode() if isinstance(command, str) else b"".join(command)
        if b"EVALSHA" not in packed and b"NX" not in packed:
            cast(Any, super()).send_packed_command(command, check_health)
            return
        fault = self._network.faults.popleft() if self._network.faults else None
        if fault == "request lost":
            self._break(fault)
        script = SentScript(packed)
        self._network.sent.append(script)
        if fault == "request late":
            self._break(fault)
        cast(Any, super()).send_packed_command(command, check_health)
        self._awaited = script
        if fault == "reply lost":
            self.read_response()
            self._break(fault)

    def read_response(self, *args: Any, **options: Any) -> Any:
        script, self._awaited = self._awaited, None
        try:
            reply = cast(Any, super()).read_response(*args, **options)
        except NoScriptError:
            if script is not None:
                self._network.sent.remove(script)
            raise
        if script is not None:
            script.reply = reply
        return reply

    def _break(self, fault: Fault) -> None:
        cast(Any, self).disconnect()
        raise RedisConnectionError(fault)


def deliver(script: SentScript, port: int) -> Any:
    """Deliver a script that was sent before; gives the reply."""
    connection = Connection(port=port)
    try:
        connection.send_packed_command([script.packed])
        return connection.read_response()
    finally:
        connection.disconnect()
