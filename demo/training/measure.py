"""Measures the demo's checkpoint on requests that nothing was learned of: `make demo-measure`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from omnifleet_worker.jobs.prompts import Prompts
from omnifleet_worker.models.audio_omni.pipeline import AudioOmniPipeline
from omnifleet_worker.models.audio_omni.sampling import euler_step, euler_times, prepare_latents
from omnifleet_worker.models.audio_omni.transformer import Guidance
from rich.console import Console
from torch import Tensor

from .grains import HOP, render
from .listener import Listener
from .prompts import EDIT_FRAMES, HALF, Asked, answer, ask
from .sounds import NAMES, TEXTS, make
from .train import encode_prompt

Floats = NDArray[np.float64]


def main() -> None:
    """Print a JSON object of the figures that the card gives."""
    parser = argparse.ArgumentParser(prog="python -m demo.training.measure", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--count", type=int, default=60, help="requests of each kind")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance", type=float, default=3.0)
    asked = parser.parse_args()
    pipeline = AudioOmniPipeline.from_pretrained(asked.checkpoint)
    measure = Measure(pipeline, asked.steps, asked.guidance)
    figures = {**measure.generation(asked.count), **measure.edits(asked.count)}
    Console().print_json(json.dumps(figures))


class Measure:
    """Figures of one checkpoint.

    Args:
        pipeline: the checkpoint.
        steps: of each clip.
        guidance: of each clip.
        batch: clips that are made at once.
    """

    def __init__(self, pipeline: AudioOmniPipeline, steps: int, guidance: float, batch: int = 8) -> None:
        self._pipeline, self._prompts = pipeline, Prompts(pipeline.prompts)
        self._steps, self._guidance, self._batch = steps, guidance, batch
        self._listener = Listener()

    def generation(self, count: int) -> dict[str, float]:
        """Shares of requests whose every sound is heard where it belongs: of made sounds, and of the model's."""
        random = np.random.default_rng(20)
        asked = [ask(random, held_out=True) for _ in range(count)]
        real = [_stereo(render(answer(one, random))) for one in asked]
        made = self._make([("t2a", one.text, None) for one in asked])
        figures = {"made_sounds": self._share(asked, real), "generation": self._share(asked, made)}
        for form in ("one", "then", "and"):
            chosen = [place for place, one in enumerate(asked) if one.form == form]
            share = self._share([asked[place] for place in chosen], [made[place] for place in chosen])
            figures[f"generation_{form}"] = share
        return figures

    def edits(self, count: int) -> dict[str, float]:
        """SI-SDR in dB of what is kept or left over, beyond the mixture's own; means and medians."""
        random = np.random.default_rng(21)
        figures: dict[str, float] = {}
        for task in ("extract", "remove"):
            requests: list[tuple[str, str, Floats | None]] = []
            wanted, mixtures = [], []
            for _ in range(count):
                names = [str(name) for name in random.choice(NAMES, 2, replace=False)]
                sounds = [render(make(name, random, EDIT_FRAMES)) for name in names]
                mixtures.append(sounds[0] + sounds[1])
                wanted.append(sounds[0])
                named = names[0] if task == "extract" else names[1]
                requests.append((task, str(random.choice(TEXTS[named])), mixtures[-1]))
            made = [clip.mean(axis=0)[: EDIT_FRAMES * HOP] for clip in self._make(requests)]
            gains = [
                si_sdr(clip, right) - si_sdr(mixture, right)
                for clip, right, mixture in zip(made, wanted, mixtures, strict=True)
            ]
            figures |= {f"{task}_mean_db": float(np.mean(gains)), f"{task}_median_db": float(np.median(gains))}
        return figures

    def _share(self, asked: Sequence[Asked], clips: Sequence[Floats]) -> float:
        return float(
            np.mean([float(self._is_right(one, clip)) for one, clip in zip(asked, clips, strict=True)] or [np.nan])
        )

    def _is_right(self, asked: Asked, clip: Floats) -> bool:
        wave = clip.mean(axis=0)
        if asked.form != "then":
            return self._listener.hear(wave, len(asked.names)) == set(asked.names)
        halves = wave[: HALF * HOP], wave[HALF * HOP :]
        return all(self._listener.hear(half, 1) == {name} for half, name in zip(halves, asked.names, strict=True))

    def _make(self, requests: Sequence[tuple[str, str, Floats | None]]) -> list[Floats]:
        """Clips [2, samples] of requests: task, text, source."""
        clips: list[Floats] = []
        for start in range(0, len(requests), self._batch):
            latents = self._sample(requests[start : start + self._batch], seed=start)
            clips += [clip.double().numpy() for clip in self._pipeline.decode_latents(latents)]
        return clips

    @torch.inference_mode()
    def _sample(self, requests: Sequence[tuple[str, str, Floats | None]], seed: int) -> Tensor:
        transformer, pipe = self._pipeline.transformer, self._pipeline
        speech, sync = pipe.encode_speech(None), pipe.encode_sync(None)
        each = [
            pipe.encode_conditioning(
                encode_prompt(pipe, self._prompts, task, text),
                speech,
                pipe.encode_audio(None if source is None else source.astype(np.float32)),
                sync,
            )
            for task, text, source in requests
        ]
        context = transformer.collate_context([one.context for one in each])
        embeds = torch.stack([one.global_embeds for one in each])
        guidance = Guidance.of([self._guidance] * len(each), transformer.device)
        latents = torch.stack([prepare_latents(seed + place) for place in range(len(each))])
        for time, following in pairwise(euler_times(self._steps)):
            now, then = time.expand(len(each)), following.expand(len(each))
            latents = euler_step(latents, transformer(latents, now, context, embeds, guidance), now, then)
        return latents


def si_sdr(wave: Floats, right: Floats) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al., 2019)."""
    target = (wave @ right) / (right @ right + 1e-12) * right
    return float(10 * np.log10((target @ target + 1e-12) / ((wave - target) @ (wave - target) + 1e-12)))


def _stereo(wave: Floats) -> Floats:
    return np.stack([wave, wave])


if __name__ == "__main__":
    main()
