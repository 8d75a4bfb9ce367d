"""What a checkpoint needs of a GPU's memory, told from its files' headers and configurations before it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import torch
from omnifleet_shared.errors import CheckpointInvalid, InvalidSetting
from safetensors import SafetensorError, safe_open

from ..engine.costs import RequestCosts, captured_shapes, captured_tokens
from ..engine.limits import EngineLimits
from ..models import folder as checkpoint_folder
from ..models.audio_omni.components import CONFIGS, OPTIONAL, PIPELINE, dtype_on_load
from ..models.audio_omni.sampling import CLIP_SAMPLES, LATENT_CHANNELS, LATENT_FRAMES

RESERVE_BYTES = 2**30
"""For what is in no formula: workspaces of cuBLAS and cuDNN, kernels, and what the allocator cannot use again because
it is scattered. The CUDA context is not in it: free memory is measured once the context exists."""

_DECODER_TENSORS = 8
"""Full-length activations of the VAE's last block alive at once: the residual, the input, four in its snake
activation, and two of the convolution."""
_BLOCK_WIDTHS = 20
"""Features a position alive at once in a DiT block, in units of its width: the feed-forward's projection (8), its gate
(4) and their product (4), the residual and its norm (4)."""
_PREFILL_HIDDEN, _PREFILL_INNER = 8, 3
"""Vectors a token alive at once in a layer of the thinker, of the hidden and of the feed-forward's size."""
_ADAPTED_WIDTHS = 24
"""Features into and out of the layers of a block that an adapter has parts for in every step, in units of its width."""
_ROWS = 2
"""Of a clip in a batch: with the conditioning, and without."""
_LATENTS_BYTES = 4 * LATENT_CHANNELS * LATENT_FRAMES * torch.float32.itemsize
"""Of a clip's latents and, where a part of it is known, the known ones, the noise and what is unknown."""
USUAL_TOKENS = 2048
"""Of an answer with what it answers to: a minute of sound, a page of text, and the answer."""
MOST_DECODED = 4
"""Clips that are decoded at once; a GPU is busy with one, and more of them at once only share its kernels' starts."""


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """The arithmetic for one checkpoint on one device; all sizes in bytes.

    Attributes:
        device: where it is to be loaded.
        dtype: of the transformer and the thinker.
        weights: of each component.
        decode: activations of decoding a clip.
        prefill: activations of reading the longest prompt.
        request: what each clip that shares a step holds, at its longest.
        graphs: of the captured diffusion steps, theirs for good: contexts, what else they read, and activations.
        costs: what a request holds that is not at its longest.
        context: tokens of the longest answer, with what it answers to.
        chat_token: keys and values of one of them.
        free: of the device before loading; None for a CPU, where nothing is refused and nothing limited.
    """

    device: str
    dtype: str
    weights: Mapping[str, int]
    decode: int
    prefill: int
    request: int
    graphs: int = 0
    costs: RequestCosts = field(default_factory=RequestCosts)
    context: int = 0
    chat_token: int = 0
    free: int | None

    @property
    def needed_bytes(self) -> int:
        """For the weights, the longest answer and one clip."""
        return self._fixed_bytes + self.request

    @property
    def requests_at_once(self) -> int | None:
        """How many requests fit into what the weights leave; None where memory sets no limit."""
        return None if self.free is None else max(0, (self.free - self._fixed_bytes) // self.request)

    @property
    def working(self) -> int:
        """The larger of the two things that are done beside the steps; one of them can always be done."""
        return max(self.decode, self.prefill)

    def cache_tokens(self, clips: int, chats: int) -> int:
        """Tokens of answers that memory is set apart for: the longest, and more where many are to be of usual length.

        Args:
            clips: that may share a step, for which memory is left.
            chats: that may share a token's step.
        """
        wanted = max(self.context, chats * USUAL_TOKENS)
        if self.free is None:
            return wanted
        left = self.free - self._fixed_bytes - clips * self.request
        return max(self.context, min(wanted, self.context + left // self.chat_token))

    def limits(self, clips: int, chats: int, cache_bytes: int) -> EngineLimits:
        """What the engine may do at once.

        Active requests share what is left once a clip can be decoded while a prompt of each kind is read. Where more
        than that is left for the clips asked for, as many more are decoded at once.

        Args:
            clips: that may share a step.
            chats: that may share a token's step.
            cache_bytes: kept for encodings.
        """
        if self.free is None:
            return EngineLimits(clips=clips, chats=chats, decoded=MOST_DECODED)
        beside = self.decode + 2 * self.prefill + self.graphs
        cache = self.cache_tokens(clips, chats) * self.chat_token
        left = self.free - sum(self.weights.values()) - RESERVE_BYTES - cache_bytes - cache - beside
        decoded = 1 + max(0, min(MOST_DECODED - 1, (left - clips * self.request) // self.decode))
        memory = max(0, left - (decoded - 1) * self.decode)
        return EngineLimits(clips=clips, chats=chats, decoded=decoded, memory=memory)

    def statement(self) -> str:
        """The arithmetic in words."""
        parts = ", ".join(
            f"{name} {_gb(size)}" for name, size in sorted(self.weights.items(), key=lambda item: -item[1])
        )
        needed = (
            f"the checkpoint needs {_gb(self.needed_bytes)} in {self.dtype}: {_gb(sum(self.weights.values()))} of "
            f"weights ({parts}), {_gb(self._cache)} for answers, {_gb(self.working)} to work in, "
            f"{_gb(RESERVE_BYTES)} in reserve and {_gb(self.request)} a request"
        )
        if self.free is None:
            return f"{needed}; on {self.device} nothing is refused for it"
        return f"{needed}; {self.device} has {_gb(self.free)} free, enough for {self.requests_at_once} at once"

    def check(self) -> None:
        """Raise InvalidSetting, with the arithmetic, where not even one request fits."""
        if self.requests_at_once == 0:
            smaller = "" if self.dtype == "bfloat16" else ", or set OMNIFLEET_DTYPE=bfloat16"
            remedy = f"Use a GPU with at least {_gb(self.needed_bytes)} free{smaller}"
            raise InvalidSetting(self.statement(), "OMNIFLEET_DEVICE", remedy)

    @property
    def _fixed_bytes(self) -> int:
        return sum(self.weights.values()) + self.working + self._cache + RESERVE_BYTES

    @property
    def _cache(self) -> int:
        return self.context * self.chat_token


def plan_memory(
    folder: Path, device: torch.device, dtype: torch.dtype, free: int | None = None, adapter_rank: int = 0
) -> MemoryPlan:
    """Plan for a checkpoint folder; reads headers and configurations, loads nothing.

    Args:
        folder: the checkpoint.
        device: where it is to be loaded.
        dtype: of the transformer and the thinker; the other components are float32.
        free: bytes of the device's memory; without it the device is asked.
        adapter_rank: largest rank of an adapter; 0 where there are none.

    Raises:
        CheckpointInvalid: a file is missing or damaged.
    """
    names = checkpoint_folder.list_components(folder, PIPELINE, CONFIGS, OPTIONAL)
    try:
        weights = {name: _weights(folder / name, dtype) for name in names if name != "processor"}
        sizes = _Sizes(folder, dtype.itemsize, adapter_rank)
        needs = {"decode": sizes.decode(), "prefill": sizes.prefill(), "request": sizes.request()}
        needs |= {"graphs": sizes.graphs(), "context": sizes.context(), "chat_token": sizes.chat_token()}
        costs = sizes.costs()
    except (OSError, KeyError, SafetensorError) as error:
        problem = f"{folder} is no whole checkpoint: {type(error).__name__}: {error}"
        raise CheckpointInvalid(problem, remedy="Convert or download the checkpoint again") from error
    return MemoryPlan(
        device=str(device),
        dtype=str(dtype).removeprefix("torch."),
        weights=weights,
        **needs,
        costs=costs,
        free=_free_bytes(device) if free is None else free,
    )


class _Sizes:
    """Bytes of activations, from the components' configurations."""

    def __init__(self, folder: Path, itemsize: int, adapter_rank: int) -> None:
        self._folder = folder
        self._itemsize = itemsize
        self._adapter_rank = adapter_rank

    def decode(self) -> int:
        channels: int = self._config("vae")["decoder_channels"]
        return _DECODER_TENSORS * CLIP_SAMPLES * channels * torch.float32.itemsize

    def prefill(self) -> int:
        text: dict[str, int] = self._config("thinker")["text_config"]
        vectors = _PREFILL_HIDDEN * text["hidden_size"] + _PREFILL_INNER * text["intermediate_size"]
        return self.context() * vectors * self._itemsize

    def clip_activations(self) -> int:
        positions = self._global_tokens() + LATENT_FRAMES
        width: int = self._config("transformer")["width"]
        return _ROWS * positions * _BLOCK_WIDTHS * width * self._itemsize

    def chat_token(self) -> int:
        text: dict[str, int] = self._config("thinker")["text_config"]
        head = text["hidden_size"] // text["num_attention_heads"]
        return 2 * text["num_hidden_layers"] * text["num_key_value_heads"] * head * self._itemsize

    def context(self) -> int:
        return int(self._config("thinker")["text_config"]["max_position_embeddings"])

    def graphs(self) -> int:
        shapes = captured_shapes(self._context_tokens())
        clips = [clips for clips, _ in shapes]
        read = self._context(captured_tokens(shapes)) + sum(clips) * self._global_embeds()
        return read + max(clips) * self.clip_activations()

    def request(self) -> int:
        return self.costs().most_of_clip

    def costs(self) -> RequestCosts:
        text: dict[str, int] = self._config("thinker")["text_config"]
        positions = 3 * torch.int64.itemsize
        return RequestCosts(
            clip_activations=self.clip_activations(),
            longest_clip=self._context(self._context_tokens()) + self._global_embeds() + _LATENTS_BYTES,
            longest_chat=self.context() * (text["hidden_size"] * self._itemsize + positions),
            adapter_place=self._adapter_place(),
        )

    def _adapter_place(self) -> int:
        dit: dict[str, int] = self._config("transformer")
        return dit["depth"] * self._adapter_rank * _ADAPTED_WIDTHS * dit["width"] * self._itemsize

    def _context(self, tokens: int) -> int:
        dit: dict[str, int] = self._config("transformer")
        return 2 * dit["depth"] * tokens * dit["width"] * self._itemsize

    def _global_embeds(self) -> int:
        width: int = self._config("transformer")["width"]
        return self._global_tokens() * width * self._itemsize

    def _context_tokens(self) -> int:
        return int(self._config("omni_projection")["max_tokens"] + self._config("speech_encoder")["tokens"])

    def _global_tokens(self) -> int:
        return int(self._config("sync_encoder")["tokens"] + self._config("audio_encoder")["tokens"])

    def _config(self, component: str) -> dict[str, Any]:
        return checkpoint_folder.read_json(self._folder / component / "config.json")


def _weights(component: Path, dtype: torch.dtype) -> int:
    """Bytes of a component's weights once they are loaded, from the headers of its files."""
    size = 0
    for path in component.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118, it is no dict
                size += prod(file.get_slice(key).get_shape()) * dtype_on_load(component.name, key, dtype).itemsize
    return size


def _free_bytes(device: torch.device) -> int | None:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
