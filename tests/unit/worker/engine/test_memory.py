"""Memory of the device, in any order of events: never more is promised than there is, and everybody comes to an end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omnifleet_shared.errors import JobCancelled, OutOfMemory
from omnifleet_shared.schema.jobs import Priority
from omnifleet_worker.engine.engine import Engine
from omnifleet_worker.engine.limits import EngineLimits
from omnifleet_worker.engine.request import ChatInputs, DiffusionInputs, Request
from omnifleet_worker.models.audio_omni.chat import Chat

CHAT = Chat(system="", user="")
LIMIT = 100
MOST_ROUNDS = 3000


@dataclass(frozen=True)
class Need:
    """What a request takes of the device.

    Attributes:
        prepared: bytes once it is prepared.
        grown: bytes from its second step on.
        told: bytes that it is weighed with.
    """

    prepared: int
    grown: int
    told: int


class SmallDevice:
    """Holds what its requests need, and has no more than its capacity, whatever was planned."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.held: dict[Request, int] = {}
        self.peak = 0
        self.needs: dict[Request, Need] = {}

    def prepare(self, request: Request) -> None:
        need = self.needs[request]
        self._hold({request: need.prepared})
        request.cost = need.grown

    def advance(self, batch: Sequence[Request]) -> None:
        self._hold({one: self.needs[one].grown for one in batch if one.step > 0})
        for one in batch:
            one.step += 1

    def is_done(self, request: Request) -> bool:
        return request.step >= request.steps

    def finish(self, batch: Sequence[Request]) -> list[Any]:
        return ["done"] * len(batch)

    def release(self, request: Request) -> None:
        self.held.pop(request, None)

    def _hold(self, held: dict[Request, int]) -> None:
        wanted = self.held | held
        if sum(wanted.values()) > self.capacity:
            raise OutOfMemory("full")
        self.held = wanted
        self.peak = max(self.peak, sum(wanted.values()))


class WeighingDevice(SmallDevice):
    """Knows before what a request needs at most."""

    def weigh(self, request: Request) -> int:
        return self.needs[request].told


def request_of(kind: str, steps: int, priority: Priority) -> Request:
    if kind == "diffusion":
        return Request(inputs=DiffusionInputs(prompt=CHAT, steps=steps, guidance=7.0, seed=1), priority=priority)
    return Request(inputs=ChatInputs(chat=CHAT, max_new_tokens=steps, temperature=0, seed=0), priority=priority)


needs = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60)).map(
    lambda sizes: Need(prepared=sorted(sizes)[0], grown=sorted(sizes)[1], told=sorted(sizes)[2])
)
requests = st.builds(
    request_of,
    st.sampled_from(["diffusion", "chat"]),
    st.integers(1, 5),
    st.sampled_from(["interactive", "batch"]),
)
arrivals = st.tuples(st.just("arrive"), requests, needs)
events = st.lists(
    st.one_of(arrivals, st.just(("step",)), st.tuples(st.just("cancel"), st.integers(0, 30))), max_size=60
)


@pytest.mark.parametrize("device_class", [SmallDevice, WeighingDevice])
@settings(max_examples=150, deadline=None)
@given(events=events, capacity=st.integers(60, 150), places=st.integers(1, 6), limit=st.sampled_from([None, LIMIT]))
def test_whatever_comes_and_goes_no_more_is_promised_than_there_is_and_nobody_fails_or_starves(
    device_class: type[SmallDevice], events: list[Any], capacity: int, places: int, limit: int | None
) -> None:
    device = device_class(capacity)
    engine = Engine(device, EngineLimits(clips=places, chats=places, memory=limit))
    submitted: list[Request] = []
    cancelled: set[Request] = set()

    def step() -> bool:
        more = engine.step()
        if limit is not None:
            assert engine.scheduler.reserved_memory <= limit
            assert sum(device.held.values()) <= engine.scheduler.reserved_memory
        return more

    for name, *about in events:
        if name == "arrive":
            request, need = about
            device.needs[request] = need
            submitted.append(engine.submit(request))
        elif name == "step":
            step()
        elif about[0] < len(submitted):
            submitted[about[0]].cancel()
            cancelled.add(submitted[about[0]])
    rounds = 0
    while step():
        rounds += 1
        assert rounds < MOST_ROUNDS

    assert device.held == {}
    assert engine.scheduler.reserved_memory == 0
    assert device.peak <= (limit or capacity)
    for request in submitted:
        error = request.outcome.exception(timeout=0)
        assert error is None or (request in cancelled and isinstance(error, JobCancelled))


def test_where_each_fits_alone_and_no_two_do_the_last_gives_its_memory_back_and_begins_anew(
    caplog: pytest.LogCaptureFixture,
) -> None:
    device = SmallDevice(capacity=60)
    engine = Engine(device, EngineLimits(clips=4, chats=4))
    clips = [request_of("diffusion", 4, "interactive") for _ in range(3)]
    for clip in clips:
        device.needs[clip] = Need(prepared=20, grown=60, told=60)
        engine.submit(clip)

    for _ in range(40):
        engine.step()

    assert [clip.outcome.result(timeout=0) for clip in clips] == ["done"] * 3
    assert "request_restarted" in [record.__dict__.get("action") for record in caplog.records]
    assert device.peak == 60


def test_a_large_request_is_served_while_small_ones_keep_coming() -> None:
    device = WeighingDevice(LIMIT)
    engine = Engine(device, EngineLimits(clips=8, chats=8, memory=LIMIT))

    def submit(kind: str, size: int) -> Request:
        request = request_of(kind, 3, "interactive")
        device.needs[request] = Need(size, size, size)
        return engine.submit(request)

    for _ in range(8):
        submit("chat", 20)
    engine.step()
    large = submit("diffusion", 90)
    rounds = 0
    while not large.outcome.done():
        submit("chat", 20)
        engine.step()
        rounds += 1
        assert rounds < 200

    assert large.outcome.result() == "done"


def test_memory_that_a_cancelled_request_still_holds_beside_the_engine_is_not_given_to_another() -> None:
    device = WeighingDevice(LIMIT)
    engine = Engine(device, EngineLimits(clips=8, chats=8, memory=LIMIT))
    first, second = (request_of("diffusion", 3, "interactive") for _ in range(2))
    device.needs = {first: Need(60, 60, 60), second: Need(60, 60, 60)}
    engine.submit(first)
    engine.submit(second)
    assert engine.scheduler.admit() == []
    engine._receive()
    assert engine.scheduler.admit() == [first]  # and a thread beside the engine's prepares it

    first.cancel()
    engine._drop_unwanted()

    assert first.outcome.done()
    assert engine.scheduler.admit() == []
    engine._is_prepared(first)  # that thread is done with it
    assert engine.scheduler.admit() == [second]
