"""What adapters cost: clips a second of a batch of which some clips have one, beside the same batch without.

    python benchmarks/diffusion/adapters.py --size small

Rounds of every case take turns, so that what else the machine does falls on all of them.
"""

from __future__ import annotations

import statistics
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from models import random_pipeline, synchronise
from omnifleet_worker.engine.model_runner import AudioOmniRunner
from omnifleet_worker.engine.request import DiffusionInputs, Request
from omnifleet_worker.engine.warm_up import compile_blocks
from omnifleet_worker.models.audio_omni.adapters.low_rank import AdapterWeights, AppliedAdapter
from omnifleet_worker.models.audio_omni.adapters.reader import layer_sizes
from omnifleet_worker.models.audio_omni.pipeline import AudioOmniPipeline

from diffusion.requests import clip
from diffusion.steps import prepared

STEPS = 1000
"""That a clip could take; none is done."""
PUBLISHED_STEPS = 100


@dataclass
class Case:
    """Steps of a batch in which so many clips have an adapter of their own."""

    adapters: int
    seconds: list[float]

    @property
    def step(self) -> float:
        """Seconds of a step: the median round."""
        return statistics.median(self.seconds)


def adapters(pipeline: AudioOmniPipeline, count: int, rank: int) -> list[AppliedAdapter]:
    """Adapters of one rank for all layers; speed does not depend on their weights."""
    transformer = pipeline.transformer
    about = (layer_sizes(transformer), len(transformer.blocks), rank, transformer.proj_in.weight)
    return [AppliedAdapter(f"adapter {number}", 1.0, AdapterWeights.zeros(*about)) for number in range(count)]


def requests(batch: int, used: Sequence[AppliedAdapter]) -> list[Request]:
    """Guided clips, the first of which have the adapters."""
    made = [clip(number, STEPS).inputs for number in range(batch)]
    inputs = [one for one in made if isinstance(one, DiffusionInputs)]
    return [
        Request(inputs=replace(one, adapter=used[number] if number < len(used) else None))
        for number, one in enumerate(inputs)
    ]


def time_round(runner: AudioOmniRunner, batch: int, used: Sequence[AppliedAdapter], steps: int) -> float:
    """Seconds of a step, the first of the batch, which makes it up, not counted."""
    device = runner.pipeline.device
    with prepared(runner, requests(batch, used)) as together:
        runner.advance(together)
        synchronise(device)
        start = perf_counter()
        for _ in range(steps):
            runner.advance(together)
        synchronise(device)
    return (perf_counter() - start) / steps


def main() -> None:
    """Print a table."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=("tiny", "small", "full"), default="tiny")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--compile", action="store_true")
    asked = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pipeline = random_pipeline(asked.size, device)
    if asked.compile:
        compile_blocks(pipeline)
    runner = AudioOmniRunner(pipeline)
    all_adapters = adapters(pipeline, asked.batch, asked.rank)
    cases = [Case(count, []) for count in (0, 1, 4, 8) if count <= asked.batch]
    for number in range(asked.rounds + 1):
        for case in cases:
            seconds = time_round(runner, asked.batch, all_adapters[: case.adapters], asked.steps)
            if number:  # the first round warms up
                case.seconds.append(seconds)
    print(
        f"{asked.size}, {device}, batch {asked.batch}, rank {asked.rank}, {asked.rounds} rounds of {asked.steps} steps"
    )
    print("| adapters in the batch | ms a step | clips/s at 100 steps | beside none |\n|---|---|---|---|")
    for case in cases:
        clips = asked.batch / case.step / PUBLISHED_STEPS
        print(f"| {case.adapters} | {case.step * 1000:.0f} | {clips:.4f} | {cases[0].step / case.step:.3f} |")


if __name__ == "__main__":
    main()
