"""The path of captured steps, with calls in the place of graphs: a CPU has none."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from omnifleet_worker.engine import diffusion_graphs
from omnifleet_worker.engine.costs import captured_shapes, captured_tokens
from omnifleet_worker.engine.diffusion_graphs import DiffusionGraphs
from omnifleet_worker.engine.model_runner import AudioOmniRunner
from omnifleet_worker.engine.request import DiffusionInputs, Inpainting, Request
from omnifleet_worker.models.audio_omni.chat import Chat
from omnifleet_worker.models.audio_omni.pipeline import AudioOmniPipeline
from omnifleet_worker.models.audio_omni.tiny import tiny_pipeline
from omnifleet_worker.models.audio_omni.transformer import Guidance
from torch import Tensor

CPU = torch.device("cpu")


class Call:
    """What `CudaGraph` is, launched kernel by kernel."""

    replayed: int = 0

    def __init__(self, function: Callable[..., Any], inputs: tuple[Tensor, ...], stream: object, pool: object) -> None:
        self._function = function
        function(*inputs)  # as the warm-up does, before it is captured

    def replay(self, *inputs: Tensor) -> Any:
        Call.replayed += 1
        return self._function(*inputs)


@pytest.fixture(scope="module")
def pipeline() -> AudioOmniPipeline:
    return tiny_pipeline()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> type[Call]:
    monkeypatch.setattr(diffusion_graphs, "CudaGraph", Call)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(Call, "replayed", 0)
    return Call


@pytest.fixture
def captured(pipeline: AudioOmniPipeline, calls: type[Call]) -> AudioOmniRunner:
    runner = AudioOmniRunner(pipeline)
    graphs = DiffusionGraphs(pipeline, most_clips=8)
    graphs.capture()
    runner._batch.graphs = graphs
    return runner


def clip(seed: int, user: str = "rain.", steps: int = 3, guidance: float = 7.0, **fields: Any) -> Request:
    inputs = DiffusionInputs(prompt=Chat("system", user), steps=steps, guidance=guidance, seed=seed, **fields)
    return Request(inputs=inputs)


def crowd() -> list[Request]:
    """Short and long contexts, both solvers, a clip of which a part is known, and one without guidance."""
    silence = torch.zeros(2, 441_000).numpy()
    return [
        clip(0, steps=2),
        clip(1, "a" * 300, steps=5, solver="multistep"),
        clip(2, steps=4, inpainting=Inpainting(source=silence, start=0, end=200_000)),
        clip(3, steps=3, guidance=3.0),
        clip(4, steps=5, guidance=1.0),
    ]


def sample(runner: AudioOmniRunner, requests: list[Request], sizes: list[int]) -> dict[Request, Tensor]:
    """The last latents of each, stepped in crowds of those sizes in turn, from whose rest others go on."""
    for request in requests:
        runner.prepare(request)
    going, done, turn = list(requests), {}, 0
    while going:
        batch = going[: sizes[turn % len(sizes)]]
        turn += 1
        runner.advance(batch)
        for request in [one for one in batch if runner.is_done(one)]:
            done[request] = runner.latents(request)
            going.remove(request)
    for request in requests:
        runner.release(request)
    return done


@pytest.mark.parametrize("sizes", [[1], [2, 3], [4, 1], [5, 2, 1]])
def test_captured_steps_give_what_plain_ones_do_in_every_company(
    pipeline: AudioOmniPipeline, captured: AudioOmniRunner, calls: type[Call], sizes: list[int]
) -> None:
    plain = [sample(AudioOmniRunner(pipeline), [request], [1])[request] for request in crowd()]
    requests = crowd()

    done = sample(captured, requests, sizes)

    assert calls.replayed > 0
    for request, expected in zip(requests, plain, strict=True):
        assert (done[request] - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_latents_that_are_done_stay_as_they_are_when_the_graph_goes_on_with_others(
    captured: AudioOmniRunner, calls: type[Call]
) -> None:
    first, second = clip(0, steps=1), clip(1, steps=1)
    for request in (first, second):
        captured.prepare(request)

    captured.advance([first])
    kept = captured.latents(first).clone()
    captured.advance([second])

    assert calls.replayed == 2
    assert torch.equal(captured.latents(first), kept)
    assert not torch.equal(captured.latents(second), kept)


def test_many_short_contexts_or_few_long_ones_share_the_memory_of_eight_short_ones(captured: AudioOmniRunner) -> None:
    find = captured._batch.graphs.find  # type: ignore[union-attr]

    def has_graph(clips: int, length: int, scale: float = 7.0) -> bool:
        return find(Guidance.of([scale] * clips, CPU), length) is not None

    assert [has_graph(clips, 300) for clips in range(1, 10)] == [True] * 8 + [False]
    assert [has_graph(clips, 513) for clips in range(1, 6)] == [True] * 4 + [False]
    assert [has_graph(clips, 2304) for clips in (1, 2)] == [True, False]
    assert not has_graph(1, 300, scale=1.0)


@pytest.mark.parametrize(("most_clips", "tokens"), [(1, 2304), (4, 2304), (5, 5 * 512), (8, 4096), (16, 4096)])
def test_the_shared_memory_is_no_larger_than_the_steps_need(most_clips: int, tokens: int) -> None:
    shapes = captured_shapes(2304, most_clips)

    assert captured_tokens(shapes) == tokens
    assert (min(most_clips, 8), 512) in shapes
    assert (1, 2304) in shapes


def test_a_step_that_cannot_be_captured_is_launched_as_it_is_and_said(
    pipeline: AudioOmniPipeline, calls: type[Call], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(diffusion_graphs, "CudaGraph", refuse)
    graphs = DiffusionGraphs(pipeline, most_clips=1)
    graphs.capture()

    assert graphs.find(Guidance.of([7.0], CPU), 300) is None
    assert "not permitted when stream is capturing" in caplog.text
