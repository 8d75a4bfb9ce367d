"""Whole requests give the velocities, latents and audio of the published implementation."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from omnifleet_worker.models.audio_omni.pipeline import AudioOmniPipeline, Conditioning
from omnifleet_worker.models.audio_omni.sampling import euler_step, euler_times, to_int16
from omnifleet_worker.models.audio_omni.transformer import AudioOmniTransformer
from safetensors.torch import load_file
from torch import Tensor

from .weights import DATA, draw

Agrees = Callable[..., None]
log = logging.getLogger(__name__)
CASES = json.loads((DATA / "cases.json").read_text())


@dataclass
class Request:
    """One case of cases.json, conditioned and ready to be sampled."""

    transformer: AudioOmniTransformer
    conditioning: Conditioning
    noise: Tensor
    expected: dict[str, Tensor]

    def velocity(self, latents: Tensor, time: float, guidance: float) -> Tensor:
        context = self.transformer.collate_context([self.conditioning.context])
        global_embeds = self.conditioning.global_embeds[None]
        return self.transformer(latents, torch.tensor([time]), context, global_embeds, torch.tensor([guidance]))


def voice() -> Tensor:
    wave = 0.1 * draw("wav.voice", 441_000)
    wave[264_600:] = 0
    return wave


@pytest.fixture(params=list(CASES))
def request_of_case(request: pytest.FixtureRequest, pipeline: AudioOmniPipeline) -> Request:
    name, case = request.param, CASES[request.param]
    conditioning = pipeline.encode_conditioning(
        pipeline.omni_projection(draw(f"{name}.hidden", case["tokens"], 2048)),
        pipeline.encode_speech(case["speech"]),
        pipeline.encode_audio(voice() if case["wav"] else None),
        pipeline.encode_sync(case["sync"]),
    )
    return Request(
        transformer=pipeline.transformer,
        conditioning=conditioning,
        noise=draw(f"{name}.noise", 1, 64, 236),
        expected=load_file(DATA / f"case_{name}.safetensors"),
    )


@pytest.mark.parametrize("guidance", [1, 7])
def test_velocity(request_of_case: Request, agrees: Agrees, guidance: int) -> None:
    found = request_of_case.velocity(request_of_case.noise, 0.73, guidance)
    agrees(found, request_of_case.expected[f"velocity.t0.73.cfg{guidance}"])


def test_latents_after_four_steps(request_of_case: Request, agrees: Agrees) -> None:
    latents = request_of_case.noise
    for time, time_next in euler_times(4).unfold(0, 2, 1):
        velocity = request_of_case.velocity(latents, time.item(), 7)
        latents = euler_step(latents, velocity, time[None], time_next[None])
    agrees(latents, request_of_case.expected["latents.steps4.cfg7"])


@pytest.mark.parametrize("name", list(CASES))
def test_audio_of_the_stored_latents(pipeline: AudioOmniPipeline, name: str) -> None:
    expected = load_file(DATA / f"case_{name}.safetensors")
    pcm = to_int16(pipeline.decode_latents(expected["latents.steps4.cfg7"]))[0]
    assert list(pcm.shape) == expected["pcm.len"].tolist()
    counts = (pcm[:, :22_050].int() - expected["pcm.head"].int()).abs().max().item()
    log.info("off by %d counts", counts)
    assert counts <= 8
