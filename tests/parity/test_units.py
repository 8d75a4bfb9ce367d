"""Each part on its own gives the numbers of the published implementation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from omnifleet_worker.models.audio_omni.pipeline import AudioOmniPipeline
from torch import Tensor

from .weights import draw

Units = dict[str, Tensor]
Agrees = Callable[..., None]

# The random tiny VAE magnifies rounding: our float64 result is 1.3e-4 off the published float32 one, ours in
# float32 is 0 to 9e-5 off, depending on the machine's convolution kernels and number of threads.
VAE_ROUNDING = 3e-4


def test_omni_projection(pipeline: AudioOmniPipeline, units: Units, agrees: Agrees) -> None:
    agrees(pipeline.omni_projection(draw("omni57", 57, 2048)), units["omni.57"][0])


@pytest.mark.parametrize("index", range(5))
def test_speech_encoder(
    pipeline: AudioOmniPipeline, units: Units, agrees: Agrees, speech_texts: list[dict[str, Any]], index: int
) -> None:
    agrees(pipeline.speech_encoder(speech_texts[index]["ids"]), units[f"speech.{index}"][0])


def test_speech_encoder_without_speech(pipeline: AudioOmniPipeline, units: Units, agrees: Agrees) -> None:
    agrees(pipeline.speech_encoder(None), units["speech.none"][0])


def test_audio_prompt_encoder(pipeline: AudioOmniPipeline, units: Units, agrees: Agrees) -> None:
    agrees(pipeline.audio_encoder(draw("wav", 441_000) * 0.1), units["mel.noise"][0])


def test_audio_prompt_encoder_without_audio(pipeline: AudioOmniPipeline, units: Units, agrees: Agrees) -> None:
    agrees(pipeline.audio_encoder(None), units["mel.silence"][0])


def test_sync_encoder(pipeline: AudioOmniPipeline, units: Units, agrees: Agrees) -> None:
    agrees(pipeline.sync_encoder(draw("sync", 1, 240, 768)[0]), units["sync.video"][0])


def test_sync_encoder_without_video(pipeline: AudioOmniPipeline, units: Units, agrees: Agrees) -> None:
    agrees(pipeline.sync_encoder(None), units["sync.none"][0])


def test_timestep_embedding(pipeline: AudioOmniPipeline, units: Units, agrees: Agrees) -> None:
    agrees(pipeline.transformer.embed_timestep(torch.tensor([0.73])), units["timestep.0.73"])


def test_vae_decoder(pipeline: AudioOmniPipeline, units: Units, agrees: Agrees) -> None:
    agrees(pipeline.vae.decode(draw("z", 1, 64, 16)).sample, units["vae.decode"], within=VAE_ROUNDING)


def test_vae_encoder(pipeline: AudioOmniPipeline, units: Units, agrees: Agrees) -> None:
    encoded = pipeline.vae.encode(draw("vaewav", 1, 2, 16_384) * 0.1)
    agrees(encoded.latent_dist.parameters, units["vae.encode_mean_scale"], within=VAE_ROUNDING)


def test_thinker(pipeline: AudioOmniPipeline, units: Units, agrees: Agrees) -> None:
    mask = units["thinker.attention_mask"]
    hidden = pipeline.thinker(
        input_ids=units["thinker.input_ids"], attention_mask=mask, output_hidden_states=True, use_cache=False
    ).hidden_states[-2]
    agrees(hidden[mask == 1], units["thinker.penultimate"][mask == 1])
