"""The interactive and the batch lane in a real Redis: neither starves the other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from celery import Celery
from omnifleet_shared.broker.celery_app import configure
from omnifleet_shared.broker.leases import FAIR_TURN, Leases
from omnifleet_shared.broker.submit import queue_lists
from omnifleet_shared.settings import FleetSettings
from omnifleet_worker.lease_renewer import LeaseRenewer
from redis import Redis

QUEUE = "audio-omni"
INTERACTIVE, BATCH = queue_lists(QUEUE)


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def lease_renewer(redis: Redis) -> LeaseRenewer:
    return LeaseRenewer(
        Leases(redis, QUEUE, seconds=60),
        places={"sounds": 3},
        engine_stalled=lambda: 0.0,
        engine_timeout=60,
        poll_timeout=60,
        on_lost=lambda tag: None,
    )


@pytest.fixture
def channel(redis_url: str, lease_renewer: LeaseRenewer) -> Iterator[Any]:
    """A worker's channel with room for two batch jobs."""
    app = Celery("lanes", set_as_current=False)
    configure(app, FleetSettings(redis_url=redis_url))
    app.conf.broker_transport_options |= {"lease_holder": lease_renewer}
    with app.connection_for_read() as connection, closing(connection.channel()) as channel:
        yield channel
    app.close()


def send(redis: Redis, place: str, count: int) -> None:
    for number in range(count):
        redis.lpush(place, json.dumps({"properties": {}, "number": number}))


def test_the_lists_are_named_as_the_channel_names_them(channel: Any) -> None:
    assert [channel._q_for_pri(QUEUE, step) for step in channel.priority_steps] == [INTERACTIVE, BATCH]


def test_every_eighth_message_is_of_the_batch_lane_while_both_wait(redis: Redis, lease_renewer: LeaseRenewer) -> None:
    send(redis, INTERACTIVE, 3 * FAIR_TURN)
    send(redis, BATCH, 3 * FAIR_TURN)

    taken = [lease_renewer.leases.take([INTERACTIVE, BATCH]) for _ in range(2 * FAIR_TURN)]

    lane = [one.origin for one in taken if one is not None]
    assert lane == ([INTERACTIVE] * (FAIR_TURN - 1) + [BATCH]) * 2


def test_an_empty_lane_gives_its_turn_away(redis: Redis, lease_renewer: LeaseRenewer) -> None:
    send(redis, INTERACTIVE, FAIR_TURN)

    taken = [lease_renewer.leases.take([INTERACTIVE, BATCH]) for _ in range(FAIR_TURN)]

    assert all(taken)


def hold_next(channel: Any) -> list[str]:
    """Take what there is room for; the tags."""
    taken = channel._take()
    for one in taken:
        channel.lease_holder.track(one.tag, one.kind, batch=one.origin != QUEUE)
    return [one.tag for one in taken]


def test_a_worker_leaves_a_place_to_interactive_jobs(redis: Redis, channel: Any, lease_renewer: LeaseRenewer) -> None:
    send(redis, BATCH, 3)

    first, _ = hold_next(channel)

    assert (hold_next(channel), lease_renewer.held_jobs) == ([], 2)
    send(redis, INTERACTIVE, 1)
    assert len(hold_next(channel)) == 1
    assert lease_renewer.held_jobs == 3
    lease_renewer.ack(first)
    assert len(hold_next(channel)) == 1
