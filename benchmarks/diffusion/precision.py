"""How far from float32 the last latents of a clip are, by the way of multiplying; random weights magnify it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from models import float32_twin
from omnifleet_worker.models.audio_omni.float8 import IN_BFLOAT16, LAYERS, quantize
from omnifleet_worker.models.audio_omni.pipeline import AudioOmniPipeline
from omnifleet_worker.models.audio_omni.sampling import euler_step, euler_times, prepare_latents
from omnifleet_worker.models.audio_omni.transformer import AudioOmniTransformer, Guidance
from torch import Tensor

from diffusion.published_loop import PublishedLoop
from diffusion.requests import GUIDANCE

CONTEXT_TOKENS = 287
SEED = 1


@dataclass(frozen=True)
class Error:
    """L2 error relative to float32's latents."""

    way: str
    error: float


def measure_errors(pipeline: AudioOmniPipeline, steps: int) -> list[Error]:
    """Measure the published loop, the weights as they are, all of float8, and float8 in one kind of layer alone."""
    twin = float32_twin(pipeline.transformer)
    tokens, global_tokens = _conditioning(pipeline)
    exact = _sample(twin, tokens, global_tokens, steps)
    noise = prepare_latents(SEED).to(pipeline.device)
    published = PublishedLoop(twin).sample(noise, tokens, global_tokens, GUIDANCE, steps)
    errors = [Error("published loop", _error(published, exact))]
    del twin
    for way, transformer in _ways(pipeline.transformer):
        errors.append(Error(way, _error(_sample(transformer, tokens, global_tokens, steps), exact)))
    return errors


def _ways(transformer: AudioOmniTransformer) -> Iterator[tuple[str, AudioOmniTransformer]]:
    yield str(transformer.dtype).removeprefix("torch."), transformer
    for way, kept in [
        ("fp8", IN_BFLOAT16),
        ("fp8 in every layer", frozenset[str]()),
        *((f"fp8 in {layer} alone", frozenset(LAYERS) - {layer}) for layer in LAYERS),
    ]:
        other = copy.deepcopy(transformer)
        quantize(other, kept)
        yield way, other


def _conditioning(pipeline: AudioOmniPipeline) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(SEED)
    features = pipeline.transformer.config.conditioning_features
    tokens = torch.randn(CONTEXT_TOKENS, features, generator=generator)
    tokens = tokens / tokens.pow(2).mean(-1, keepdim=True).sqrt()
    return tokens.to(pipeline.device), torch.cat([pipeline.encode_sync(None), pipeline.encode_audio(None)])


@torch.inference_mode()
def _sample(transformer: AudioOmniTransformer, tokens: Tensor, global_tokens: Tensor, steps: int) -> Tensor:
    device = tokens.device
    context = transformer.collate_context([transformer.encode_context(tokens)])
    global_embeds, guidance = transformer.encode_global(global_tokens)[None], Guidance.of([GUIDANCE], device)
    latents = prepare_latents(SEED).to(device)[None]
    for now, after in euler_times(steps).to(device).unfold(0, 2, 1)[:, :, None]:
        velocity = transformer(latents, now, context, global_embeds, guidance)
        latents = euler_step(latents, velocity, now, after)
    return latents[0]


def _error(found: Tensor, exact: Tensor) -> float:
    return float((found.float() - exact).norm() / exact.norm())
