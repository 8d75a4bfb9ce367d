"""Float8 for the transformer's linear layers: half of bfloat16's bytes, and twice its rate on GPUs that multiply it."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import torch
from omnifleet_shared.errors import InvalidSetting
from torch import Tensor, nn

if TYPE_CHECKING:  # a device is checked before the model's libraries are imported
    from .transformer import AudioOmniTransformer

FLOAT8 = torch.float8_e4m3fn
"""Four bits of exponent and three of mantissa: what weights and activations of inference are kept in."""
LEAST_CAPABILITY = (8, 9)
"""Compute capability from which on a GPU multiplies float8: Ada and Hopper."""
LAYERS = ("attn1.to_qkv", "attn1.to_out", "attn2.to_q", "attn2.to_out", "ff.net.0.proj", "ff.net.2")
"""The linear layers of a block that every step runs. (`attn2.to_kv` runs once a request.)"""
IN_BFLOAT16 = frozenset({"attn1.to_out"})
"""Those of them that stay in bfloat16. Measured one kind at a time on random weights (width 256, 4 blocks, guidance 7,
error of the last latents): attn1.to_out 0.025 with 6 % of the products, ff.net.0.proj 0.021 with 47 %, ff.net.2 0.015
with 24 %, the others at most 0.007; `benchmarks/diffusion.py` measures it anew."""

_LARGEST = torch.finfo(FLOAT8).max
_SMALLEST_SCALE = 1e-12


class Float8Linear(nn.Module):
    """A linear layer in float8, each row of the weights and of the input with a scale of its own.

    Rows, since one outlier would cost all the others their digits if they shared a scale.

    Args:
        linear: whose weights are taken; its sizes are multiples of 16.
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight, scale = quantize_rows(linear.weight)
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale.T.contiguous())
        self.bias: nn.Parameter | None = linear.bias

    def forward(self, hidden: Tensor) -> Tensor:
        """Map [..., in] to [..., out] of the same dtype."""
        rows, scale = quantize_rows(hidden.flatten(0, -2))
        return self._multiply(rows, scale, hidden.dtype).unflatten(0, hidden.shape[:-1])

    def _multiply(self, rows: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
        if rows.is_cuda:
            # Of torch's own names for it this one takes a scale a row and is compiled.
            return torch._scaled_mm(  # pyright: ignore[reportPrivateUsage]
                rows, self.weight.T, scale, self.scale, bias=self.bias, out_dtype=dtype, use_fast_accum=True
            )
        # A CPU has no such product with a scale a row: the same rounding, multiplied in float32.
        product = (rows.float() @ self.weight.float().T) * scale * self.scale
        return (product if self.bias is None else product + self.bias).to(dtype)


def quantize_rows(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Round [n, m] to float8, each row scaled to the whole range; with the scales [n, 1], float32."""
    scale = matrix.abs().amax(1, keepdim=True).float().clamp(min=_SMALLEST_SCALE) / _LARGEST
    return (matrix.float() / scale).to(FLOAT8), scale


def quantize(transformer: AudioOmniTransformer, kept: Collection[str] = IN_BFLOAT16) -> None:
    """Put a transformer's linear layers into float8, in place, before it is compiled.

    Args:
        transformer: with its weights, on its device.
        kept: layers of each block, of `LAYERS`, that stay as they are.
    """
    for block in transformer.transformer_blocks:
        for name in LAYERS:
            linear = block.get_submodule(name)
            if name not in kept and isinstance(linear, nn.Linear):
                block.set_submodule(name, Float8Linear(linear))


def precision_of(transformer: AudioOmniTransformer) -> str:
    """Name what a transformer's steps multiply in: its dtype, or `fp8`."""
    is_quantized = any(isinstance(module, Float8Linear) for module in transformer.modules())
    return "fp8" if is_quantized else str(transformer.dtype).removeprefix("torch.")


def check_device(device: torch.device, dtype: torch.dtype) -> None:
    """Raise InvalidSetting where the device cannot multiply float8, or its products are not to come out in bfloat16."""
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    if capability is None or capability < LEAST_CAPABILITY:
        found = "is no GPU" if capability is None else f"has compute capability {_dotted(capability)}"
        problem = f"{device} {found}, and float8 needs a GPU of compute capability {_dotted(LEAST_CAPABILITY)}"
        raise InvalidSetting(problem, "OMNIFLEET_PRECISION", "Use auto, or a GPU such as L4, L40S, H100 or H200")
    if dtype != torch.bfloat16:
        problem = f"float8 goes with bfloat16, and OMNIFLEET_DTYPE asks for {str(dtype).removeprefix('torch.')}"
        raise InvalidSetting(problem, "OMNIFLEET_PRECISION", "Leave OMNIFLEET_DTYPE at auto")


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"
