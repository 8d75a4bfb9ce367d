"""Kombu's Redis transport with leases in place of its unacknowledged messages. Producers and workers use it alike.

Idle workers do not block on the queue but on a list of wake-up tokens that producers push beside each message: a token
that is lost with its connection costs a second, a message would be lost for good.
"""

from __future__ import annotations

import json
import logging
from queue import Empty
from time import monotonic
from typing import Any, Protocol

from kombu.transport import redis, virtual
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads

from ..errors import BrokerUnavailable, InvalidMessage
from ..keys import WAKE_KEY
from .leases import LeasedMessage, Leases
from .submit import SUBMISSION, Submission

logger = logging.getLogger(__name__)
OPTIONS = ("lease_holder", "fleet_queue", "batch_priority_slots")
"""Transport options of these channels, beside kombu's."""


class LeaseHolder(Protocol):
    """What a channel needs of the worker's lease renewer."""

    leases: Leases

    @property
    def takes(self) -> bool:
        """Whether the worker accepts messages."""
        ...

    @property
    def batch_jobs(self) -> int:
        """Messages of batch priority that the worker holds."""
        ...

    def note_poll(self) -> None:
        """Note that the consumer polls for messages."""

    def track(self, tag: str, *, batch: bool = False) -> None:
        """Renew the lease from now on; `batch` marks a message of batch priority."""

    def stop_renewing(self, tag: str) -> None:
        """Stop renewing the lease; the message goes back to the queue when it ends."""

    def ack(self, tag: str) -> None:
        """End the lease: the message is done with."""


class LeasedQoS(redis.QoS):
    """Unacknowledged messages: leases for those of the fleet's queue, kombu's own way for other queues."""

    channel: LeasingChannel

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
    """A channel that leases the fleet's messages, and queues new ones as their submissions do."""

    QoS = LeasedQoS
    lease_holder: LeaseHolder
    """The worker's lease renewer; producers have none, and receive nothing."""
    fleet_queue: str = ""
    batch_priority_slots: int = 1
    """Most batch jobs that a worker process holds at once; its other slots stay free for interactive ones."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.leased: set[str] = set()
        self._more_expected = True
        super().__init__(*args, **kwargs)

    def _put(self, queue: str, message: Any, **kwargs: Any) -> None:
        submission: Submission | None = message["properties"].get(SUBMISSION)
        if submission is not None:
            self._submit(queue, message, submission)
            return
        if queue == self.fleet_queue:
            # Kombu's push, made again after a lost connection, queues a message twice.
            problem = f"a message without a submission does not enter {queue!r}"
            raise InvalidMessage(problem, "message", "Send jobs with omnifleet's client, or with schemas/submit.lua")
        super()._put(queue, message, **kwargs)

    def _submit(self, queue: str, message: Any, submission: Submission) -> None:
        channel: Any = self
        # Left in the message itself, which kombu prepares once and puts again after a lost connection.
        properties = {name: value for name, value in message["properties"].items() if name != SUBMISSION}
        list_key = channel._q_for_pri(queue, channel._get_message_priority(message, reverse=False))
        with channel.conn_or_acquire() as client:
            submission.push(client, list_key, json.dumps(message | {"properties": properties}))

    def _brpop_start(self, timeout: float | None = None) -> None:
        if self.fleet_queue not in self.active_queues:
            super()._brpop_start(timeout)
            return
        self._in_poll = self.client.connection
        self.lease_holder.note_poll()
        # Kombu's check for half-open connections counts from here.
        self._brpop_sent_at = monotonic()
        wake_key = WAKE_KEY.format(queue=self.fleet_queue)
        # After a message there may be another: RPOP takes a token without waiting for one.
        command = ("RPOP", wake_key) if self._more_expected else ("BRPOP", wake_key, timeout or self.brpop_timeout or 1)
        self.client.connection.send_command(*command)

    def _brpop_read(self, **options: Any) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]
        if self.fleet_queue not in self.active_queues:
            return bool(super()._brpop_read(**options))
        try:
            self.client.parse_response(self.client.connection, "BRPOP", **options)
        except self.connection_errors:
            self.client.connection.disconnect()
            raise
        finally:
            self._in_poll = None
        leased = self._take()
        self._more_expected = leased is not None
        if leased is None:
            raise Empty
        return self._deliver(leased)

    def _take(self) -> LeasedMessage | None:
        if not self.lease_holder.takes:
            return None
        lists: list[str] = [self._q_for_pri(self.fleet_queue, priority) for priority in self.priority_steps]
        if self.lease_holder.batch_jobs >= self.batch_priority_slots:
            lists = lists[:1]
        try:
            return self.lease_holder.leases.take(lists)
        except BrokerUnavailable as error:
            # As a lost connection of kombu's own, so that Celery reconnects.
            raise ConnectionResetError(str(error)) from error

    def _deliver(self, taken: LeasedMessage) -> bool:
        self.leased.add(taken.tag)
        self.lease_holder.track(taken.tag, batch=taken.origin != self.fleet_queue)
        try:
            message = loads(bytes_to_str(taken.message))
            message["properties"]["delivery_tag"] = taken.tag
            self.connection._deliver(message, self.fleet_queue)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            extra = {"action": "message_dropped"}
            logger.exception("dropped something from the queue that is no message: %s", error, extra=extra)
            self.qos.ack(taken.tag)
            raise Empty from error
        return True


class Channel(LeasingChannel):
    """A leasing channel of one Redis."""

    from_transport_options = (*redis.Channel.from_transport_options, *OPTIONS)


class SentinelChannel(LeasingChannel, redis.SentinelChannel):  # pyright: ignore[reportIncompatibleMethodOverride]
    """A leasing channel of the Redis that the sentinels name as master."""

    from_transport_options = (*redis.SentinelChannel.from_transport_options, *OPTIONS)


class Transport(redis.Transport):
    """Kombu's Redis transport with leasing channels."""

    Channel = Channel


class SentinelTransport(redis.SentinelTransport):
    """Kombu's Sentinel transport with leasing channels."""

    Channel = SentinelChannel
