"""A worker's channel in a real Redis: it takes what waits while it has room, and leaves the rest to other workers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from queue import Empty
from typing import Any

import pytest
from celery import Celery
from omnifleet_shared.broker.celery_app import configure
from omnifleet_shared.broker.leases import Leases
from omnifleet_shared.broker.transport import MORE_AT_ONCE
from omnifleet_shared.keys import WAKE_KEY
from omnifleet_shared.settings import FleetSettings
from omnifleet_worker.lease_renewer import LeaseRenewer
from redis import Redis

QUEUE = "audio-omni"
WAKE = WAKE_KEY.format(queue=QUEUE)


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def delivered() -> list[int]:
    return []


@pytest.fixture
def channel(redis: Redis, redis_url: str, delivered: list[int]) -> Iterator[Any]:
    """A worker's channel that consumes, with nothing to slow it down but its slots."""
    renewer = LeaseRenewer(
        Leases(redis, QUEUE, seconds=60),
        places={"sounds": 100},
        engine_stalled=lambda: 0.0,
        engine_timeout=60,
        poll_timeout=60,
        on_lost=lambda tag: None,
    )

    def note(message: Any) -> None:
        delivered.append(message.headers["number"])

    assert renewer.leases.take([QUEUE]) is None  # Redis knows the script from now on
    app = Celery("channel", set_as_current=False)
    configure(app, FleetSettings(redis_url=redis_url))
    app.conf.broker_transport_options["lease_holder"] = renewer
    with app.connection_for_read() as connection, closing(connection.channel()) as channel:
        queue = app.amqp.queues[QUEUE](channel)
        queue.declare()
        channel.basic_consume(QUEUE, False, note, "test")
        channel.client.connection = channel.client.connection_pool.get_connection()  # as kombu's poller does
        yield channel
    app.close()


def send(redis: Redis, count: int) -> None:
    for number in range(count):
        redis.lpush(QUEUE, message_of(number))
        redis.lpush(WAKE, "1")


def message_of(number: int) -> str:
    about = {"delivery_info": {"exchange": "", "routing_key": QUEUE}, "delivery_tag": str(number)}
    message = {"body": "{}", "content-type": "application/json", "content-encoding": "utf-8", "properties": about}
    return json.dumps({**message, "headers": {"number": number}})


def poll(channel: Any) -> None:
    channel._brpop_start()
    assert channel._brpop_read()


def test_one_turn_takes_what_there_is_room_for(redis: Redis, channel: Any, delivered: list[int]) -> None:
    channel.basic_qos(0, 3, False)
    send(redis, 5)

    poll(channel)

    assert delivered == [0, 1, 2]
    # As many tokens as messages: each wakes a worker for one of them.
    assert (redis.llen(QUEUE), redis.llen(WAKE)) == (2, 2)


def test_one_turn_takes_a_few_at_most(redis: Redis, channel: Any, delivered: list[int]) -> None:
    send(redis, 3 * MORE_AT_ONCE)

    poll(channel)

    assert delivered == list(range(len(delivered)))
    assert MORE_AT_ONCE < len(delivered) <= 2 * MORE_AT_ONCE


def test_a_turn_ends_with_the_queue(redis: Redis, channel: Any, delivered: list[int]) -> None:
    send(redis, 2)

    poll(channel)
    send(redis, 1)
    poll(channel)

    assert delivered == [0, 1, 0]


def test_a_redis_that_forgot_the_script_within_a_turn_is_given_it_again(
    redis: Redis, channel: Any, delivered: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    send(redis, 3)
    deliver = channel._deliver

    def forget_and_deliver(taken: Any) -> None:
        redis.script_flush()
        deliver(taken)

    monkeypatch.setattr(channel, "_deliver", forget_and_deliver)

    poll(channel)

    assert delivered == [0, 1, 2]


def test_a_wake_up_beside_a_poll_that_takes_delivers_nothing_twice(
    redis: Redis, channel: Any, delivered: list[int]
) -> None:
    send(redis, 3)
    channel._brpop_start()

    channel.deliver_waiting()
    channel._brpop_read()
    channel.deliver_waiting()

    assert delivered == [0, 1, 2]


def test_a_wake_up_beside_a_poll_that_waits_takes_what_is_there(
    redis: Redis, channel: Any, delivered: list[int]
) -> None:
    with pytest.raises(Empty):
        poll(channel)  # nothing is there, so that the next one waits for a token
    channel._brpop_start()

    redis.delete(WAKE)
    redis.lpush(QUEUE, *map(message_of, range(2)))
    channel.deliver_waiting()

    assert delivered == [0, 1]
    redis.lpush(WAKE, "1")
    with pytest.raises(Empty):
        channel._brpop_read()


def test_an_error_while_several_are_delivered_gives_the_others_back(
    redis: Redis, channel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(redis, 4)

    def fail(taken: Any) -> None:
        raise ConnectionError("Redis is away")

    monkeypatch.setattr(channel, "_deliver", fail)

    with pytest.raises(ConnectionError):
        poll(channel)

    # The one that was on its way may have begun; the leases of the others are over in their own time.
    assert channel.lease_holder.held_jobs == 1
    assert channel.lease_holder.leases.count() == 4
