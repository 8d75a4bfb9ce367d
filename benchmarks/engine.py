"""Clips a second of the engine at several batch sizes, beside a loop that does what the published one does.

On a GPU with the full-size model, elsewhere with a small one that shows the shape of the curve. All in one run.
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from statistics import quantiles
from typing import Annotated, Any

import machine
import torch
import typer
from models import Size, float32_twin, matmul_rate, random_pipeline, step_flops, synchronise
from omnifleet_worker.engine.engine import Engine
from omnifleet_worker.engine.limits import EngineLimits
from omnifleet_worker.engine.model_runner import AudioOmniRunner
from omnifleet_worker.engine.observer import NoObserver, Work
from omnifleet_worker.engine.request import DiffusionInputs, Request
from omnifleet_worker.engine.warm_up import compile_blocks, warm_up
from omnifleet_worker.models.audio_omni.chat import Chat
from omnifleet_worker.models.audio_omni.sampling import prepare_latents
from published_loop import PublishedLoop
from rich.console import Console
from rich.table import Table

GUIDANCE = 7.0
IDLE_ROUNDS = 3
HOST_STEPS = 2000
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Row:
    """One way of sampling clips."""

    batch: int
    clips_per_second: float
    p50: float
    p99: float
    """Seconds from a clip's submission to its samples."""
    memory_mb: float
    """Peak: of the device's memory, or of the process where there is no GPU."""
    matmul_share: float
    """Operations that a clip's steps cannot do without, beside what the device does in large matrix products."""


@dataclass(frozen=True)
class Report:
    """Everything that was measured, and where."""

    date: str
    device: str
    model: Size
    steps: int
    baseline: Row
    engine: list[Row]
    difference: float
    """Largest between the latents of both, relative to the largest value."""
    first_step_cold: float
    first_step_cached: float
    """Seconds from a request to an idle engine to the end of its first step; the second time the same is asked."""
    host_share: float
    """Part of a step of the largest batch that scheduling, progress, cancellations and deadlines take."""


class FirstSteps(NoObserver):
    """Notes when diffusion steps end."""

    def __init__(self) -> None:
        self.ended: list[float] = []

    def worked(self, work: Work, requests: int, seconds: float) -> None:
        """See `EngineObserver`."""
        if work == "diffusion":
            self.ended.append(time.monotonic())


class Idle:
    """A runner that does nothing, so that what is left is the engine's own work."""

    def prepare(self, request: Request) -> None:
        """Nothing."""

    def advance(self, batch: Sequence[Request]) -> None:
        """Count."""
        for request in batch:
            request.step += 1

    def is_done(self, request: Request) -> bool:
        """After the last step."""
        return request.step >= request.steps

    def finish(self, batch: Sequence[Request]) -> list[Any]:
        """Nothing."""
        return [None] * len(batch)

    def release(self, request: Request) -> None:
        """Nothing."""


def measure(size: Size, device: torch.device, batches: Sequence[int], steps: int) -> Report:
    """Measure the baseline and the engine in turn."""
    pipeline = random_pipeline(size, device)
    runner = AudioOmniRunner(pipeline)
    limits = EngineLimits(clips=max(batches), chats=1, decoded=4)
    if device.type == "cuda":
        compile_blocks(pipeline)
    warm_up(runner, EngineLimits(clips=max(batches) if device.type == "cuda" else 1, chats=1))
    rate = matmul_rate(device, pipeline.transformer.dtype)
    baseline, expected = _measure_baseline(runner, steps, rate)
    rows = [_measure_engine(runner, batch, steps, rate) for batch in batches]
    cold, cached = _first_steps(runner, limits)
    return Report(
        date=datetime.now(UTC).isoformat(timespec="minutes"),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else machine.cpu(),
        model=size,
        steps=steps,
        baseline=baseline,
        engine=rows,
        difference=_difference(runner, steps, expected),
        first_step_cold=cold,
        first_step_cached=cached,
        host_share=_host_seconds(max(batches)) * rows[-1].clips_per_second * steps / max(batches),
    )


def _request(number: int, steps: int) -> Request:
    prompt = Chat(system="Make the sound that the text tells of.", user=f"rain on roof number {number}.")
    return Request(inputs=DiffusionInputs(prompt=prompt, steps=steps, guidance=GUIDANCE, seed=number))


def _measure_baseline(runner: AudioOmniRunner, steps: int, rate: float) -> tuple[Row, torch.Tensor]:
    pipeline = runner.pipeline
    loop = PublishedLoop(float32_twin(pipeline.transformer))
    request, seconds = _request(0, steps), []
    inputs = request.inputs
    assert isinstance(inputs, DiffusionInputs)
    for _ in range(2):
        _reset_memory(pipeline.device)
        start = time.perf_counter()
        tokens = torch.cat([pipeline.encode_prompt(inputs.prompt), pipeline.encode_speech(None)])
        global_tokens = torch.cat([pipeline.encode_sync(None), pipeline.encode_audio(None)])
        noise = prepare_latents(inputs.seed).to(pipeline.device)
        latents = loop.sample(noise, tokens, global_tokens, GUIDANCE, steps)
        pipeline.decode_latents(latents[None]).cpu()
        seconds.append(time.perf_counter() - start)
    best = min(seconds)
    share = steps * step_flops(pipeline.transformer, len(tokens)) / best / rate
    return Row(1, 1 / best, best, best, _memory_mb(pipeline.device), share), latents


def _measure_engine(runner: AudioOmniRunner, batch: int, steps: int, rate: float) -> Row:
    """Twice as many clips as share a step, so that some join while others leave."""
    device = runner.pipeline.device
    _reset_memory(device)
    with _running(runner, EngineLimits(clips=batch, chats=1, decoded=min(4, batch))) as engine:
        start, latencies = time.perf_counter(), []
        requests = [engine.submit(_request(number, steps)) for number in range(2 * batch)]
        for request in requests:
            request.outcome.add_done_callback(lambda _: latencies.append(time.perf_counter() - start))
        for request in requests:
            request.outcome.result()
        seconds = time.perf_counter() - start
    synchronise(device)
    tokens = _context_tokens(runner)
    cuts = quantiles(latencies, n=100, method="inclusive") if len(latencies) > 1 else latencies * 99
    share = len(requests) * steps * step_flops(runner.pipeline.transformer, tokens) / seconds / rate
    return Row(batch, len(requests) / seconds, cuts[49], cuts[98], _memory_mb(device), share)


def _first_steps(runner: AudioOmniRunner, limits: EngineLimits) -> tuple[float, float]:
    cold, cached = [], []
    for number in range(IDLE_ROUNDS):
        for times in (cold, cached):
            seen = FirstSteps()
            engine = Engine(runner, limits, observer=seen)
            engine.start()
            start = time.monotonic()
            engine.submit(_request(1000 + number, 1)).outcome.result()
            engine.stop()
            times.append(seen.ended[0] - start)
    return min(cold), min(cached)


def _difference(runner: AudioOmniRunner, steps: int, expected: torch.Tensor) -> float:
    request = _request(0, steps)
    runner.prepare(request)
    while not runner.is_done(request):
        runner.advance([request])
    latents = runner.latents(request)
    runner.release(request)
    return float((latents - expected).abs().max() / expected.abs().max())


def _host_seconds(batch: int) -> float:
    """Of the engine's own, a step."""
    engine = Engine(Idle(), EngineLimits(clips=batch, chats=1))
    far = time.time() + 10**6
    for number in range(batch):
        request = _request(number, HOST_STEPS)
        request.deadline = far
        engine.submit(request)
    start = time.perf_counter()
    while engine.step():
        pass
    return (time.perf_counter() - start) / HOST_STEPS


def _context_tokens(runner: AudioOmniRunner) -> int:
    inputs = _request(0, 1).inputs
    assert isinstance(inputs, DiffusionInputs)
    return len(runner.pipeline.encode_prompt(inputs.prompt)) + 256


@contextmanager
def _running(runner: AudioOmniRunner, limits: EngineLimits) -> Iterator[Engine]:
    engine = Engine(runner, limits)
    engine.start()
    try:
        yield engine
    finally:
        engine.stop()


def _reset_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _memory_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def show(report: Report) -> None:
    """Print the table."""
    table = Table(title=f"{report.model} model, {report.steps} steps, guidance {GUIDANCE:g}")
    for column in ("", "clips/s", "x baseline", "p50, s", "p99, s", "peak MB", "of matmul rate"):
        table.add_column(column, justify="right" if column else "left")
    named = [("published loop", report.baseline), *((f"engine, batch {row.batch}", row) for row in report.engine)]
    for name, row in named:
        ratio = row.clips_per_second / report.baseline.clips_per_second
        figures = (f"{row.clips_per_second:.3f}", f"{ratio:.2f}", f"{row.p50:.2f}", f"{row.p99:.2f}")
        table.add_row(name, *figures, f"{row.memory_mb:.0f}", f"{row.matmul_share:.0%}")
    console = Console()
    console.print(table)
    first = f"{report.first_step_cold * 1000:.0f} ms, {report.first_step_cached * 1000:.0f} ms if asked before"
    own = f"the engine's own work {report.host_share:.3%} of a step"
    console.print(f"first step when idle {first}; {own}; latents differ by {report.difference:.1e}", highlight=False)
    console.print(f"{report.date}; {report.device}", highlight=False)


@app.command()
def main(
    size: Annotated[
        Size | None, typer.Option(help="tiny, small or full; full on a GPU, small elsewhere by default.")
    ] = None,
    batches: Annotated[str, typer.Option(help="Batch sizes, the largest one last.")] = "1,2,4,8,16",
    steps: Annotated[int, typer.Option(min=0, help="Steps of each clip; 100 on a GPU, 10 elsewhere by default.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure the engine."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    gpu = device.type == "cuda"
    chosen: Size = size or ("full" if gpu else "small")
    sizes = [int(batch) for batch in batches.split(",")]
    report = measure(chosen, device, sizes, steps or (100 if gpu else 10))
    if as_json:
        print(json.dumps(asdict(report)))
    else:
        show(report)


if __name__ == "__main__":
    app()
