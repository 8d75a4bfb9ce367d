"""The runner on the tiny checkpoint: nobody hears who was in the batch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from omnifleet_shared.errors import OutOfMemory, TransientError
from omnifleet_worker.engine.costs import RequestCosts
from omnifleet_worker.engine.engine import Engine
from omnifleet_worker.engine.limits import EngineLimits
from omnifleet_worker.engine.model_runner import AudioOmniRunner
from omnifleet_worker.engine.request import ChatInputs, DiffusionInputs, Request, Solver
from omnifleet_worker.models.audio_omni.chat import Chat
from omnifleet_worker.models.audio_omni.pipeline import AudioOmniPipeline
from omnifleet_worker.models.audio_omni.tiny import tiny_pipeline
from support.data.adapters import random_adapters

RATE = 44_100
LIMITS = EngineLimits(clips=16, chats=16, decoded=3)
TOLERANCE = 1e-4


def noise(seconds: float, seed: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype(np.float32)


def clip_inputs(
    user: str = "", *, steps: int = 2, guidance: float = 7.0, seed: int = 0, **fields: Any
) -> DiffusionInputs:
    return DiffusionInputs(prompt=Chat("system", user), steps=steps, guidance=guidance, seed=seed, **fields)


CLIPS = {
    "t2a": clip_inputs("a dog barks.", steps=4, seed=1),
    "t2m": clip_inputs("a calm piano, slow and long, with rain behind it.", steps=3, seed=2, guidance=3.0),
    "tts": clip_inputs(speech="Hello world", seed=3),
    "tts, voice": clip_inputs(speech="Good day. 你好", audio=noise(3.0, 1), steps=3, seed=4),
    "add": clip_inputs("put rain in", audio=noise(10.0, 2), guidance=6.0, seed=5),
    "style": clip_inputs("guitar to sax", audio=noise(0.5, 3), guidance=1.0, seed=6),
    "one step": clip_inputs("a bell.", steps=1, seed=7),
    "no guidance": clip_inputs("a bell.", steps=2, guidance=0.0, seed=7),
    "fast": clip_inputs("a train.", steps=4, seed=8, solver="multistep"),
}
LATE = ("tts, voice", "one step", "no guidance", "fast")
CHAT = ChatInputs(chat=Chat("answer", "what is that?"), max_new_tokens=6, temperature=0.8, seed=11)


@pytest.fixture(scope="module")
def pipeline() -> AudioOmniPipeline:
    return tiny_pipeline()


@pytest.fixture
def runner(pipeline: AudioOmniPipeline) -> AudioOmniRunner:
    return AudioOmniRunner(pipeline)


@pytest.fixture
def engine(runner: AudioOmniRunner) -> Engine:
    return Engine(runner, LIMITS)


def run_dry(engine: Engine) -> None:
    for _ in range(100):
        if not engine.step():
            return
    raise AssertionError("the engine does not come to an end")


def outcome_of(engine: Engine, inputs: DiffusionInputs | ChatInputs) -> Any:
    request = engine.submit(Request(inputs=inputs))
    run_dry(engine)
    return request.outcome.result()


@pytest.fixture(scope="module")
def alone(pipeline: AudioOmniPipeline) -> dict[str, np.ndarray]:
    """Every clip, sampled with nobody beside it."""
    engine = Engine(AudioOmniRunner(pipeline), EngineLimits(clips=1, chats=1))
    return {name: outcome_of(engine, inputs) for name, inputs in CLIPS.items()}


def test_every_clip_sounds_the_same_in_a_crowd_that_comes_and_goes(
    engine: Engine, alone: dict[str, np.ndarray]
) -> None:
    requests = {name: Request(inputs=inputs) for name, inputs in CLIPS.items()}
    for name in CLIPS.keys() - set(LATE):
        engine.submit(requests[name])
    engine.step()
    for name in LATE:
        engine.submit(requests[name])

    run_dry(engine)

    for name, request in requests.items():
        assert np.abs(request.outcome.result() - alone[name]).max() < TOLERANCE, name


def test_clips_with_adapters_and_without_sound_in_one_crowd_as_they_do_alone(
    pipeline: AudioOmniPipeline, alone: dict[str, np.ndarray]
) -> None:
    clips = {
        name: replace(CLIPS[name], adapter=adapter)
        for name, adapter in zip(
            CLIPS, [*random_adapters(pipeline.transformer, (16, 3, 8, 40)), None, None], strict=False
        )
    }
    by_itself = {name: outcome_of(Engine(AudioOmniRunner(pipeline), LIMITS), inputs) for name, inputs in clips.items()}
    engine = Engine(AudioOmniRunner(pipeline), LIMITS)
    requests = {name: Request(inputs=inputs) for name, inputs in clips.items()}
    for number, request in enumerate(requests.values()):
        engine.submit(request)
        if number % 2:
            engine.step()

    run_dry(engine)

    for name, request in requests.items():
        assert np.abs(request.outcome.result() - by_itself[name]).max() < TOLERANCE, name
        is_as_without = np.abs(by_itself[name] - alone[name]).max() < TOLERANCE
        assert is_as_without == (clips[name].adapter is None), name


def test_a_clip_with_an_adapter_is_weighed_with_it(pipeline: AudioOmniPipeline) -> None:
    runner = AudioOmniRunner(pipeline, costs=RequestCosts(longest_clip=10**7, adapter_place=10**6))
    (adapter,) = random_adapters(pipeline.transformer, (4,))
    plain, adapted = (Request(inputs=replace(CLIPS["t2a"], adapter=one)) for one in (None, adapter))
    own = adapter.weights.nbytes + 2 * 10**6

    assert runner.weigh(adapted) == runner.weigh(plain) + own
    for request in (plain, adapted):
        runner.prepare(request)
    assert adapted.cost == plain.cost + own


def test_other_requests_sound_different(alone: dict[str, np.ndarray]) -> None:
    clips = list(alone.values())

    for number, one in enumerate(clips):
        assert np.abs(one).max() == pytest.approx(1.0)
        for other in clips[number + 1 :]:
            assert np.abs(one - other).max() > 100 * TOLERANCE


def test_an_answer_beside_clips_and_other_answers_is_the_one_it_gives_alone(engine: Engine) -> None:
    said_alone = outcome_of(engine, CHAT)

    answers = [engine.submit(Request(inputs=CHAT))]
    for name in ("t2a", "tts"):
        engine.submit(Request(inputs=CLIPS[name]))
    engine.step()
    other = ChatInputs(chat=Chat("answer", "and that?"), max_new_tokens=9, temperature=0.0, seed=0)
    engine.submit(Request(inputs=other))
    answers.append(engine.submit(Request(inputs=CHAT)))
    run_dry(engine)

    assert said_alone
    assert [answer.outcome.result() for answer in answers] == [said_alone] * 2


def test_nothing_is_kept_of_requests_that_ended_however_they_did(runner: AudioOmniRunner, engine: Engine) -> None:
    done, cancelled = Request(inputs=CLIPS["one step"]), Request(inputs=CLIPS["t2a"])
    answer = Request(inputs=CHAT)
    for request in (done, cancelled, answer):
        engine.submit(request)
    engine.step()
    cancelled.cancel()

    run_dry(engine)

    assert runner._clips == {}
    assert runner._chats == {}
    assert runner._batch._collated is None
    cache = runner.pipeline.chatter._device_side.cache
    assert cache.free_tokens == cache.tokens


def test_releasing_what_was_never_prepared_is_no_fault(runner: AudioOmniRunner) -> None:
    runner.release(Request(inputs=CHAT))


@pytest.mark.parametrize(
    ("part", "inputs"),
    [("encode_prompt", CLIPS["t2a"]), ("decode_latents", CLIPS["one step"]), ("transformer", CLIPS["one step"])],
)
def test_no_memory_left_is_a_transient_error_of_its_own(
    pipeline: AudioOmniPipeline,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    inputs: DiffusionInputs,
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    if part == "transformer":
        monkeypatch.setattr(pipeline.transformer, "forward", full)
    else:
        monkeypatch.setattr(pipeline, part, full)

    with pytest.raises(OutOfMemory) as caught:
        outcome_of(engine, inputs)

    assert isinstance(caught.value, TransientError)
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)


def latents_of(pipeline: AudioOmniPipeline, steps: int, solver: Solver) -> torch.Tensor:
    runner = AudioOmniRunner(pipeline)
    request = Request(inputs=clip_inputs("a dog barks.", steps=steps, seed=1, solver=solver))
    runner.prepare(request)
    while not runner.is_done(request):
        runner.advance([request])
    return runner.latents(request)


def test_a_quarter_of_the_steps_of_second_order_end_nearer_to_the_exact_solution(pipeline: AudioOmniPipeline) -> None:
    exact = latents_of(pipeline, 160, "multistep")

    euler, few_euler, few = (
        float((latents_of(pipeline, steps, solver) - exact).norm() / exact.norm())
        for steps, solver in ((64, "euler"), (16, "euler"), (16, "multistep"))
    )

    assert few < euler < few_euler


def test_what_comes_again_is_not_encoded_again(
    pipeline: AudioOmniPipeline, monkeypatch: pytest.MonkeyPatch, alone: dict[str, np.ndarray]
) -> None:
    calls: list[str] = []
    for part in ("encode_prompt", "encode_speech", "encode_audio", "encode_sync"):
        encode = getattr(pipeline, part)
        monkeypatch.setattr(
            pipeline, part, lambda what, part=part, encode=encode: (calls.append(part), encode(what))[1]
        )
    engine = Engine(AudioOmniRunner(pipeline), LIMITS)

    first, again = (outcome_of(engine, CLIPS["tts, voice"]) for _ in range(2))
    assert sorted(calls) == ["encode_audio", "encode_prompt", "encode_speech", "encode_sync"]
    outcome_of(engine, CLIPS["tts"])

    assert sorted(calls[4:]) == ["encode_audio", "encode_speech"]
    assert np.array_equal(first, again)
    assert np.abs(first - alone["tts, voice"]).max() < TOLERANCE


def test_nothing_is_kept_where_the_cache_has_no_room(pipeline: AudioOmniPipeline) -> None:
    runner = AudioOmniRunner(pipeline, cache_bytes=0)

    outcome_of(Engine(runner, LIMITS), CLIPS["one step"])

    assert (runner.encodings.figures.bytes, runner.encodings.figures.misses) == (0, 4)


def test_the_cost_of_a_clip_and_of_an_answer_is_known_once_they_are_prepared(pipeline: AudioOmniPipeline) -> None:
    costs = RequestCosts(clip_activations=10**9)
    runner = AudioOmniRunner(pipeline, costs=costs)
    short, long, answer = (Request(inputs=inputs) for inputs in (CLIPS["t2a"], CLIPS["t2m"], CHAT))

    for request in (short, long, answer):
        runner.prepare(request)

    assert 10**9 < short.cost < long.cost < 1.1 * 10**9
    assert answer.cost == runner._chats[answer].unread * (2048 * 2 + 3 * 8)


def test_clips_that_are_done_together_are_decoded_in_one_pass(
    pipeline: AudioOmniPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    decode = pipeline.vae.decoder.forward
    monkeypatch.setattr(
        pipeline.vae.decoder, "forward", lambda latents: (sizes.append(len(latents)), decode(latents))[1]
    )
    engine = Engine(AudioOmniRunner(pipeline), LIMITS)
    for _ in range(4):
        engine.submit(Request(inputs=CLIPS["one step"]))

    run_dry(engine)

    assert sizes == [3, 1]
