"""How near few steps come to the published 100: Euler's, as published, and the second-order ones of quality "fast".

On the tiny checkpoint, whose weights are random, or on a real one. Many second-order steps give the exact solution.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import machine
import torch
import typer
from omnifleet_worker.engine.model_runner import AudioOmniRunner
from omnifleet_worker.engine.request import DiffusionInputs, Request, Solver
from omnifleet_worker.models.audio_omni.chat import Chat
from omnifleet_worker.models.audio_omni.pipeline import AudioOmniPipeline
from omnifleet_worker.models.audio_omni.tiny import tiny_pipeline
from rich.console import Console
from rich.table import Table
from torch import Tensor

WAYS: tuple[tuple[str, Solver, int], ...] = (
    ("published: Euler", "euler", 100),
    ("Euler", "euler", 50),
    ("Euler", "euler", 25),
    ("fast: second order", "multistep", 25),
    ("second order", "multistep", 12),
)
EXACT_STEPS = 400
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Row:
    """One solver at one number of steps."""

    name: str
    steps: int
    from_published: float
    """Relative error (L2) of the latents against the published 100 steps."""
    from_exact: float
    """The same against the exact solution."""
    time: float
    """As a multiple of the published 100 steps."""


def measure(pipeline: AudioOmniPipeline, prompt: str) -> list[Row]:
    """Sample one clip in every way."""
    runner = AudioOmniRunner(pipeline)
    exact, _ = _sample(runner, prompt, "multistep", EXACT_STEPS)
    sampled = [_sample(runner, prompt, solver, steps) for _, solver, steps in WAYS]
    published, longest = sampled[0]
    return [
        Row(name, steps, _error(latents, published), _error(latents, exact), seconds / longest)
        for (name, _, steps), (latents, seconds) in zip(WAYS, sampled, strict=True)
    ]


def _sample(runner: AudioOmniRunner, prompt: str, solver: Solver, steps: int) -> tuple[Tensor, float]:
    chat = Chat(system="Make the sound that the text tells of.", user=f"{prompt}.")
    request = Request(inputs=DiffusionInputs(prompt=chat, steps=steps, guidance=7.0, seed=1, solver=solver))
    runner.prepare(request)
    start = time.perf_counter()
    while not runner.is_done(request):
        runner.advance([request])
    seconds, latents = time.perf_counter() - start, runner.latents(request)
    runner.release(request)
    return latents, seconds


def _error(latents: Tensor, wanted: Tensor) -> float:
    return float((latents - wanted).norm() / wanted.norm())


def show(rows: list[Row], model: str) -> None:
    """Print the table."""
    table = Table(title=f"{model}, guidance 7")
    for column in ("", "steps", "error against published", "error against exact", "time"):
        table.add_column(column, justify="right" if column else "left")
    for row in rows:
        errors = f"{row.from_published:.1e}", f"{row.from_exact:.1e}"
        table.add_row(row.name, str(row.steps), *errors, f"{row.time:.2f}")
    console = Console()
    console.print(table)
    console.print(f"{datetime.now(UTC).isoformat(timespec='minutes')}; {machine.cpu()}", highlight=False)


@app.command()
def main(
    checkpoint: Annotated[Path | None, typer.Option(help="A converted checkpoint; a tiny one by default.")] = None,
    prompt: Annotated[str, typer.Option(help="What is to be heard.")] = "rain on a tin roof",
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure what fewer steps cost."""
    gpu = torch.cuda.is_available()
    options = {"device": "cuda" if gpu else "cpu", "dtype": torch.bfloat16 if gpu else torch.float32}
    pipeline = AudioOmniPipeline.from_pretrained(checkpoint, **options) if checkpoint else tiny_pipeline()
    rows = measure(pipeline, prompt)
    if as_json:
        print(json.dumps([asdict(row) for row in rows]))
    else:
        show(rows, str(pipeline.card.get("revision")))


if __name__ == "__main__":
    app()
