"""Models with random weights to measure: speed does not depend on their values."""

from __future__ import annotations

import time
from typing import Any, Literal

import torch
from omnifleet_worker.checkpoint.published.state_dict import published_thinker_config
from omnifleet_worker.models.audio_omni.autoencoder import AudioOmniAutoencoder
from omnifleet_worker.models.audio_omni.pipeline import COMPONENTS, AudioOmniPipeline
from omnifleet_worker.models.audio_omni.sampling import LATENT_FRAMES
from omnifleet_worker.models.audio_omni.tiny import tiny_pipeline
from omnifleet_worker.models.audio_omni.transformer import AudioOmniTransformer
from transformers import Qwen2_5OmniThinkerForConditionalGeneration

Size = Literal["tiny", "small", "full"]
GLOBAL_TOKENS = 364


def random_pipeline(size: Size, device: torch.device) -> AudioOmniPipeline:
    """The tiny checkpoint; the same with a transformer of 8 layers of width 512; or all at full size."""
    parts: dict[str, Any] = {name: getattr(tiny := tiny_pipeline(), name) for name in COMPONENTS}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if size == "small":
            parts["transformer"] = AudioOmniTransformer(width=512, depth=8, heads=8)
        elif size == "full":
            with device:
                parts["transformer"] = AudioOmniTransformer().to(torch.bfloat16)
                parts["vae"] = AudioOmniAutoencoder()
            parts["thinker"] = full_size_thinker(device)
    if device.type == "cpu":  # which is slow in bfloat16
        parts["thinker"] = parts["thinker"].float()
    data = {"prompts": tiny.prompts, "vocab": tiny.vocab, "card": tiny.card}
    return AudioOmniPipeline(**parts, **data).to(device)


def full_size_thinker(device: torch.device) -> Qwen2_5OmniThinkerForConditionalGeneration:
    """A thinker of the published size in bfloat16."""
    with torch.random.fork_rng(devices=[]), device:
        torch.manual_seed(0)
        thinker = Qwen2_5OmniThinkerForConditionalGeneration(published_thinker_config())
    return thinker.to(torch.bfloat16).eval().requires_grad_(False)


def float32_twin(transformer: AudioOmniTransformer) -> AudioOmniTransformer:
    """The same weights in float32."""
    twin = AudioOmniTransformer.from_config(transformer.config)
    twin.load_state_dict(transformer.state_dict())
    return twin.to(transformer.device).eval().requires_grad_(False)


def step_flops(transformer: AudioOmniTransformer, context_tokens: int) -> float:
    """Floating-point operations that a guided clip's step cannot do without: matrix products and attention."""
    width, positions = transformer.config.width, GLOBAL_TOKENS + LATENT_FRAMES
    of_a_row = 32 * positions * width**2 + 4 * positions**2 * width
    of_the_context = 4 * positions * width**2 + 4 * positions * context_tokens * width
    return transformer.config.depth * (2 * of_a_row + of_the_context)


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second in large matrix products, the best of ten."""
    side = 8192 if device.type == "cuda" else 1024
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / min(_timed(left, right) for _ in range(10))


def synchronise(device: torch.device) -> None:
    """Wait until the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _timed(left: torch.Tensor, right: torch.Tensor) -> float:
    synchronise(left.device)
    start = time.perf_counter()
    left @ right
    synchronise(left.device)
    return time.perf_counter() - start
