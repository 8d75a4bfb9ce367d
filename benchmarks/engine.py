"""The engine beside a loop that does what the published one does: clips a second, milliseconds a step, errors, overlap.

On a GPU with the full-size model, elsewhere with a small one that shows the shape of the curve. All in one run.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Annotated

import machine
import torch
import typer
from diffusion.clips import Row, difference, first_steps, host_seconds, measure_baseline, measure_engine
from diffusion.overlap import Overlap, measure_overlap
from diffusion.precision import Error, measure_errors
from diffusion.requests import GUIDANCE
from diffusion.steps import StepTimes, compile_anew, graph_ms, launched_ms
from models import Size, matmul_rate, random_pipeline
from omnifleet_worker.engine.limits import EngineLimits
from omnifleet_worker.engine.model_runner import AudioOmniRunner
from omnifleet_worker.engine.warm_up import compile_blocks, warm_up
from omnifleet_worker.models.audio_omni import float8
from rich.console import Console
from rich.table import Table

STAGES = ("baseline", "eager", "precision", "compiled", "overlap", "clips", "fp8")
NEEDED = {"baseline": 25, "eager": 10, "precision": 30, "compiled": 55, "overlap": 20, "clips": 60, "fp8": 45}
"""Seconds that a stage takes on an H100 at full size; it is left out where the budget does not reach for it."""
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass
class Report:
    """Everything that was measured, and where."""

    date: str
    device: str
    model: Size
    steps: int
    baseline: Row | None = None
    engine: list[Row] = field(default_factory=list)
    step_times: list[StepTimes] = field(default_factory=list)
    errors: list[Error] = field(default_factory=list)
    overlap: Overlap | None = None
    difference: float | None = None
    """Largest between the latents of both, relative to the largest value."""
    first_step_cold: float | None = None
    first_step_cached: float | None = None
    """Seconds from a request to an idle engine to the end of its first step; the second time the same is asked."""
    host_share: float | None = None
    """Part of a step of the largest batch that scheduling, progress, cancellations and deadlines take."""
    left_out: list[str] = field(default_factory=list)
    """Stages for which the budget did not suffice."""


class Measurement:
    """The stages, on one pipeline.

    Args:
        size: of the model.
        device: where it is measured.
        batches: clips that share a step, the largest number last.
        steps: of each clip.
    """

    def __init__(self, size: Size, device: torch.device, batches: Sequence[int], steps: int) -> None:
        self._device, self._batches, self._steps = device, batches, steps
        self._gpu = device.type == "cuda"
        pipeline = random_pipeline(size, device)
        self._runner = AudioOmniRunner(pipeline)
        self._rate = matmul_rate(device, pipeline.transformer.dtype)
        self._expected: torch.Tensor | None = None
        where = torch.cuda.get_device_name(device) if self._gpu else machine.cpu()
        self.report = Report(datetime.now(UTC).isoformat(timespec="minutes"), where, size, steps)
        self.report.step_times = [StepTimes(batch) for batch in batches]

    def run(self, stages: Sequence[str], budget: float) -> Report:
        """Take the stages that the budget of seconds allows, in their order."""
        end = time.monotonic() + budget
        for stage in STAGES:
            if stage not in stages:
                continue
            if self._gpu and end - time.monotonic() < NEEDED[stage]:
                self.report.left_out.append(stage)
                continue
            take: Callable[[], None] = getattr(self, f"_{stage}")
            take()
            if self._gpu:
                torch.cuda.empty_cache()
        return self.report

    def _baseline(self) -> None:
        warm_up(self._runner, EngineLimits(clips=1, chats=1))
        self.report.baseline, self._expected = measure_baseline(self._runner, self._steps, self._rate)

    def _eager(self) -> None:
        for times in self.report.step_times:
            times.eager = launched_ms(self._runner, times.batch)

    def _precision(self) -> None:
        self.report.errors = measure_errors(self._runner.pipeline, 25 if self._gpu else 2)

    def _compiled(self) -> None:
        if not self._gpu:
            return
        compile_blocks(self._runner.pipeline)
        warm_up(self._runner, EngineLimits(clips=max(self._batches), chats=1, decoded=4))
        for times in self.report.step_times:
            times.compiled = launched_ms(self._runner, times.batch)
            times.graph = graph_ms(self._runner, times.batch)

    def _overlap(self) -> None:
        clips, answers, steps = (8, 16, 10) if self._gpu else (1, 2, 1)
        self.report.overlap = measure_overlap(self._runner, clips, answers, steps)

    def _clips(self) -> None:
        limits = EngineLimits(clips=max(self._batches), chats=1, decoded=4)
        self.report.engine = [measure_engine(self._runner, one, self._steps, self._rate) for one in self._batches]
        self.report.first_step_cold, self.report.first_step_cached = first_steps(self._runner, limits)
        last = self.report.engine[-1]
        self.report.host_share = host_seconds(last.batch) * last.clips_per_second * self._steps / last.batch
        if self._expected is not None:
            self.report.difference = difference(self._runner, self._steps, self._expected)

    def _fp8(self) -> None:
        if not self._gpu:
            return
        float8.check_device(self._device, self._runner.pipeline.transformer.dtype)
        float8.quantize(self._runner.pipeline.transformer)
        compile_anew(self._runner)
        for times in self.report.step_times:
            times.fp8 = launched_ms(self._runner, times.batch)
            times.fp8_graph = graph_ms(self._runner, times.batch)


def show(report: Report) -> None:
    """Print the tables."""
    console = Console()
    for table in (_clips_table(report), _steps_table(report), _errors_table(report)):
        if table.row_count:
            console.print(table)
    for line in _lines(report):
        console.print(line, highlight=False)


def _clips_table(report: Report) -> Table:
    table = Table(title=f"{report.model} model, {report.steps} steps, guidance {GUIDANCE:g}")
    for column in ("", "clips/s", "x baseline", "p50, s", "p99, s", "peak MB", "of matmul rate"):
        table.add_column(column, justify="right" if column else "left")
    named = [(f"engine, batch {row.batch}", row) for row in report.engine]
    if report.baseline is not None:
        named.insert(0, ("published loop", report.baseline))
    for name, row in named:
        ratio = "" if report.baseline is None else f"{row.clips_per_second / report.baseline.clips_per_second:.2f}"
        figures = (f"{row.clips_per_second:.3f}", ratio, f"{row.p50:.2f}", f"{row.p99:.2f}")
        table.add_row(name, *figures, f"{row.memory_mb:.0f}", f"{row.matmul_share:.0%}")
    return table


def _steps_table(report: Report) -> Table:
    table = Table(title="ms a step")
    for column in ("batch", "eager", "compiled", "graph", "device waits", "fp8", "fp8 graph", "fp8 x bf16", "x loop"):
        table.add_column(column, justify="right")
    for times in report.step_times:
        measured = [one for one in (times.eager, times.compiled, times.graph) if one is not None]
        if not measured:
            continue
        best, fp8 = min(measured), min((one for one in (times.fp8, times.fp8_graph) if one is not None), default=None)
        loop = None if report.baseline is None else 1000 / report.baseline.clips_per_second / report.steps
        table.add_row(
            str(times.batch),
            *(_number(one) for one in (times.eager, times.compiled, times.graph)),
            "" if times.gap is None else f"{times.gap:.1%}",
            *(_number(one) for one in (times.fp8, times.fp8_graph)),
            "" if fp8 is None else f"{best / fp8:.2f}",
            "" if loop is None else f"{loop * times.batch / min(best, fp8 or best):.2f}",
        )
    return table


def _errors_table(report: Report) -> Table:
    table = Table(title="error of the last latents against float32")
    table.add_column("")
    table.add_column("L2", justify="right")
    for error in report.errors:
        table.add_row(error.way, f"{error.error:.4f}")
    return table


def _lines(report: Report) -> list[str]:
    lines = []
    if (overlap := report.overlap) is not None:
        lines.append(
            f"{overlap.steps} steps of {overlap.clips} clips {overlap.steps_alone:.2f} s, {overlap.tokens} tokens of "
            f"{overlap.answers} answers {overlap.tokens_alone:.2f} s, together {overlap.together:.2f} s: "
            f"{overlap.ratio:.2f} of one after the other"
        )
    if report.first_step_cold is not None and report.first_step_cached is not None and report.host_share is not None:
        first = f"{report.first_step_cold * 1000:.0f} ms, {report.first_step_cached * 1000:.0f} ms if asked before"
        lines.append(f"first step when idle {first}; the engine's own work {report.host_share:.3%} of a step")
    if report.difference is not None:
        lines.append(f"latents differ by {report.difference:.1e}")
    if report.left_out:
        lines.append(f"left out for want of time: {', '.join(report.left_out)}")
    return [*lines, f"{report.date}; {report.device}"]


def _number(milliseconds: float | None) -> str:
    return "" if milliseconds is None else f"{milliseconds:.1f}"


@app.command()
def main(
    size: Annotated[
        Size | None, typer.Option(help="tiny, small or full; full on a GPU, small elsewhere by default.")
    ] = None,
    batches: Annotated[str, typer.Option(help="Batch sizes, the largest one last.")] = "1,2,4,8,16",
    steps: Annotated[int, typer.Option(min=0, help="Steps of each clip; 50 on a GPU, 10 elsewhere by default.")] = 0,
    stages: Annotated[str, typer.Option(help="What to measure.")] = ",".join(STAGES),
    budget: Annotated[float, typer.Option(help="Seconds; what does not fit into them is left out on a GPU.")] = 600.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure the engine."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    gpu = device.type == "cuda"
    sizes = [int(batch) for batch in batches.split(",")]
    start = time.monotonic()
    measurement = Measurement(size or ("full" if gpu else "small"), device, sizes, steps or (50 if gpu else 10))
    with suppress(KeyboardInterrupt):  # what was measured until then is worth showing
        measurement.run(stages.split(","), budget - (time.monotonic() - start))
    if as_json:
        print(json.dumps(asdict(measurement.report)))
    else:
        show(measurement.report)


if __name__ == "__main__":
    app()
