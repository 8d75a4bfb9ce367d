"""Kombu's Redis transport for workers, with leases in place of its unacknowledged messages.

Idle workers do not block on the queue but on a list of wake-up tokens that producers push beside each message: a token
that is lost with its connection costs a second, a message would be lost for good.
"""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from queue import Empty
from time import monotonic
from typing import Any, cast

from kombu.transport import redis, virtual
from kombu.utils.json import dumps
from redis import UnixDomainSocketConnection
from redis.exceptions import NoScriptError, RedisError

from ..errors import BrokerError, InvalidMessage
from ..keys import NO_WAKE_KEY, SUSPECTS_KEY, WAKE_KEY
from ..observability.outage_log import OutageLog
from ..redis_errors import typed_redis_error
from .kinds import KINDS, PLACES, JobKind, Place, kind_queue
from .lease_holder import LeaseHolder
from .leases import LeasedMessage
from .removal.purge import Purge
from .submit import fair_lanes, queue_lists

logger = logging.getLogger(__name__)
POLLS = OutageLog(logger, "polls_unreachable", "no jobs are taken", "jobs are taken again")
"""Of the one consumer of a worker process."""
CONNECTION_ERRORS = (*redis.Transport.connection_errors, RedisError, BrokerError)
"""Errors after which Celery's consumer connects anew. To kombu a refusal (UNBLOCKED of a failover, say) is none, and
would end the worker."""
OPTIONS = ("lease_holder", "fleet_queue", "record_lifetime", "unix_socket_path")
"""Transport options of these channels, beside kombu's."""
MORE_AT_ONCE = 8
"""Messages that are taken in one trip to Redis at most, and twice that before the loop looks at anything else."""
ALONE_POLL_SECONDS = 0.2
"""Seconds between two looks of a worker that holds a suspect at whether all else has ended, and then whether it has."""
SOME_FULL_POLL_SECONDS = 0.1
"""Seconds between two looks for messages of a worker that has places for one kind alone: it listens for no message of
the other, one of whose places may be free by then."""


class LeasedQoS(redis.QoS):
    """Unacknowledged messages: leases for those of the fleet's queue, kombu's own way for other queues."""

    channel: LeasingChannel

    def can_consume(self) -> bool:
        """Whether a message may be taken. After a lost connection Celery forgets jobs that go on; their leases know."""
        room = self.channel.fleet_queue not in self.channel.active_queues or self.channel.lease_holder.has_room
        return room and bool(super().can_consume())

    def append(self, message: Any, delivery_tag: str) -> None:
        """Note that a message was received; its lease is in Redis already."""
        if not self._is_leased(delivery_tag):
            super().append(message, delivery_tag)
            return
        virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge the message: end its lease."""
        if not self._is_leased(delivery_tag):
            super().ack(delivery_tag)
            return
        self.channel.leased.discard(delivery_tag)
        self.channel.lease_holder.ack(delivery_tag)
        virtual.QoS.ack(self, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Stop renewing the message's lease: it is back in the queue when that ends."""
        if not self._is_leased(delivery_tag):
            super().reject(delivery_tag, requeue=requeue)
            return
        self.channel.leased.discard(delivery_tag)
        self.channel.lease_holder.stop_renewing(delivery_tag)
        virtual.QoS.ack(self, delivery_tag)

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Do nothing: a channel also closes when its connection breaks, and its jobs still run."""

    def _is_leased(self, tag: str) -> bool:
        return tag in self.channel.leased


class LeasingChannel(redis.Channel):
    """A channel that leases the fleet's messages."""

    QoS = LeasedQoS
    lease_holder: LeaseHolder
    """The worker's lease renewer."""
    fleet_queue: str = ""
    record_lifetime: int = 7 * 24 * 3600
    """Seconds that the records of purged jobs are kept."""
    unix_socket_path: str | None = None
    """Of the Redis, in place of host and port."""
    listeners: int = 0
    """How many heard the last event."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.leased: set[str] = set()
        self._drained: set[Place] = set()
        self._asked: list[Place] = []
        self._takes_in_poll = False
        self._polls_fleet = False
        super().__init__(*args, **kwargs)

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        if self.unix_socket_path is None:
            return cast(dict[str, Any], super()._connparams(asynchronous))
        # kombu itself knows unix sockets from URLs of its own transport alone.
        self.connection_class = UnixDomainSocketConnection
        parameters: dict[str, Any] = super()._connparams(asynchronous)
        tcp = ("host", "port", "socket_keepalive", "socket_keepalive_options")
        return {name: value for name, value in parameters.items() if name not in tcp} | {"path": self.unix_socket_path}

    def _put(self, queue: str, message: Any, **kwargs: Any) -> None:
        if queue == self.fleet_queue:
            # Kombu's push, made again after a lost connection, queues a message twice.
            problem = f"Celery itself sends nothing to {queue!r}"
            raise InvalidMessage(problem, "message", "Send jobs with omnifleet's client, or with schemas/submit.lua")
        super()._put(queue, message, **kwargs)

    def _put_fanout(self, exchange: str, message: Any, routing_key: str, **kwargs: Any) -> None:
        # As kombu does it; but kombu drops the answer.
        with self.conn_or_acquire() as client:
            channel = self._get_publish_topic(exchange, routing_key)
            self.listeners = cast(int, client.publish(channel, dumps(message)))

    def _brpop_start(self, timeout: float | None = None) -> None:
        self._polls_fleet = self.fleet_queue in self.active_queues
        if not self._polls_fleet:
            super()._brpop_start(timeout)
            return
        self._in_poll = self.client.connection
        self.lease_holder.note_poll()
        # Kombu's check for half-open connections counts from here.
        self._brpop_sent_at = monotonic()
        self.client.connection.send_command(*self._poll_command(timeout or self.brpop_timeout or 1))

    def _poll_command(self, timeout: float) -> tuple[Any, ...]:
        holder = self.lease_holder
        self._takes_in_poll = False
        # A place that is free from now on, and not counted below, wakes the loop.
        holder.polled = frozenset()
        with_room = self._with_room()
        if holder.has_suspect or not holder.takes or not with_room:
            # It takes nothing that others wait for, and no token that would wake them.
            return ("BRPOP", NO_WAKE_KEY.format(queue=self.fleet_queue), ALONE_POLL_SECONDS)
        holder.polled = frozenset(with_room)
        if self._drained.issuperset(with_room):
            kinds: list[JobKind] = [kind for kind in KINDS if any(place.kind == kind for place in with_room)]
            wakes = [WAKE_KEY.format(queue=kind_queue(self.fleet_queue, kind)) for kind in kinds]
            return ("BRPOP", *wakes, timeout if len(kinds) == len(KINDS) else SOME_FULL_POLL_SECONDS)
        # After a message there may be another, which needs no token.
        self._takes_in_poll = True
        return holder.leases.take_command(self._room_of(with_room), idle=holder.is_idle)

    def _brpop_read(self, **options: Any) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]
        # As it was when the poll began: a channel that closes has no active queues, and reads a last reply.
        if not self._polls_fleet:
            return bool(super()._brpop_read(**options))
        reply: Any = None
        try:
            reply = self.client.parse_response(self.client.connection, "BRPOP", **options)
        except NoScriptError:  # Redis was started anew: the client of the leases loads it
            self._takes_in_poll = False
        except self.connection_errors as error:
            self.client.connection.disconnect()
            note_lost_connection(error)
            raise
        finally:
            self._in_poll = None
            self.lease_holder.polled = frozenset()
        POLLS.answered()
        leased = self._accept(self.lease_holder.leases.read_taken(reply)) if self._takes_in_poll else self._take()
        if not leased:
            raise Empty
        self._deliver_all(leased)
        # A turn of the loop costs more than to take a message.
        if self.qos.can_consume():
            self._deliver_all(self._take(awake=True))
        return True

    def deliver_waiting(self) -> None:
        """Deliver what waits although a poll is on its way: it may wait for messages of another kind."""
        if self._in_poll and self._takes_in_poll:
            # Redis answers it at once. A call beside it would have its number, and be given the same messages.
            return
        if self.fleet_queue in self.active_queues and self.qos.can_consume():
            self._deliver_all(self._take(awake=True))

    def _take(self, *, awake: bool = False) -> list[LeasedMessage]:
        holder = self.lease_holder
        if not holder.takes:
            return []
        if holder.has_suspect:
            return self._next_suspect()
        room = self._room_of(self._with_room())
        return self._accept(holder.leases.take_several(room, idle=holder.is_idle, awake=awake))

    def _next_suspect(self) -> list[LeasedMessage]:
        suspect = self.lease_holder.next_suspect()
        return [] if suspect is None else [suspect]

    def _with_room(self) -> list[Place]:
        self._asked = [place for place in PLACES if self.lease_holder.room_for(place)]
        return self._asked

    def _room_of(self, places: Sequence[Place]) -> dict[str, int]:
        """Lists that there is room for, and how much."""
        allowed = self.qos.can_consume_max_estimate()
        at_once = MORE_AT_ONCE if allowed is None else min(allowed, MORE_AT_ONCE)
        return {self._list_of(one): min(self.lease_holder.room_for(one), at_once) for one in places}

    def _list_of(self, place: Place) -> str:
        interactive, batch = queue_lists(kind_queue(self.fleet_queue, place.kind))
        return batch if place.batch else interactive

    def _accept(self, taken: list[LeasedMessage]) -> list[LeasedMessage]:
        holder = self.lease_holder
        if taken:
            self._drained.discard(self._place_of(taken[0]))
        else:
            self._drained.update(self._asked)
        if taken and not holder.takes:
            # They came while this worker stopped taking messages: they are for other ones.
            with suppress(BrokerError):  # their leases then end in their own time
                for one in taken:
                    holder.leases.postpone(one.tag, 0)
                holder.leases.recover()
            return []
        if not taken or not taken[0].is_suspect:
            return taken
        holder.claim_suspect(taken[0])
        return self._next_suspect()

    def _size(self, queue: str) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        return int(super()._size(queue)) + self._kept_apart(queue)

    def _purge(self, queue: str) -> int:
        if queue != self.fleet_queue:
            return int(super()._purge(queue))
        with self.conn_or_acquire() as client:
            return Purge(client, queue, self.record_lifetime).run()

    def _delete(self, queue: str, *args: Any, **kwargs: Any) -> None:
        if queue == self.fleet_queue:
            self._purge(queue)
        super()._delete(queue, *args, **kwargs)

    def _kept_apart(self, queue: str) -> int:
        """Count the suspects, the answers, and the messages of tenants."""
        with self.conn_or_acquire() as client:
            of_tenants = sum(int(cast(Any, client).hget(lane, "jobs") or 0) for lane in fair_lanes(queue))
            others = (SUSPECTS_KEY.format(queue=queue), *queue_lists(kind_queue(queue, "answers")))
            return of_tenants + sum(cast(int, client.llen(place)) for place in others)

    def _deliver_all(self, messages: list[LeasedMessage]) -> None:
        for one in messages:  # under this worker's care before the first is delivered
            self.leased.add(one.tag)
            self.lease_holder.track(one.tag, one.kind, batch=self._place_of(one).batch)
        left = deque(messages)
        try:
            while left:
                self._deliver(left.popleft())
        finally:  # of an error: the others are back in the queue when their leases end
            for one in left:
                self.lease_holder.stop_renewing(one.tag)

    def _place_of(self, message: LeasedMessage) -> Place:
        return Place(message.kind, message.origin != self.fleet_queue)

    def _deliver(self, taken: LeasedMessage) -> None:
        try:
            message = json.loads(taken.message)
            message["properties"]["delivery_tag"] = taken.tag
            self.connection._deliver(message, self.fleet_queue)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            extra = {"action": "message_dropped"}
            logger.exception("dropped something from the queue that is no message: %s", error, extra=extra)
            self.qos.ack(taken.tag)


class Channel(LeasingChannel):
    """A leasing channel of one Redis."""

    from_transport_options = (*redis.Channel.from_transport_options, *OPTIONS)


class SentinelChannel(LeasingChannel, redis.SentinelChannel):  # pyright: ignore[reportIncompatibleMethodOverride]
    """A leasing channel of the Redis that the sentinels name as master."""

    from_transport_options = (*redis.SentinelChannel.from_transport_options, *OPTIONS)


def note_lost_connection(error: Exception) -> None:
    """Log that no jobs are taken, and why, unless that was logged."""
    POLLS.failed(typed_redis_error(error) if isinstance(error, RedisError | OSError) else error)


def polls_fail() -> bool:
    """Whether the last poll for jobs failed."""
    return POLLS.lasts


class Transport(redis.Transport):
    """Kombu's Redis transport with leasing channels."""

    Channel = Channel
    connection_errors = CONNECTION_ERRORS


class SentinelTransport(redis.SentinelTransport):
    """Kombu's Sentinel transport with leasing channels."""

    Channel = SentinelChannel
    connection_errors = CONNECTION_ERRORS
