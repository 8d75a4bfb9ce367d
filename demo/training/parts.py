"""The parts of the demo's checkpoint that are drawn or computed: everything but what was trained.

They are arranged so that a small DiT learns within minutes: words are tokens of their own, the thinker's states differ
between prompts, and the audio prompt's tokens are logarithms of loudness, each beside the latent frame that it is of.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from omnifleet_worker.models.audio_omni.conditioners import AudioPromptEncoder
from omnifleet_worker.models.audio_omni.sampling import FRAME_SAMPLES
from omnifleet_worker.models.audio_omni.tiny import tiny_processor, tiny_thinker
from omnifleet_worker.models.audio_omni.transformer import AudioOmniTransformer
from torch import Tensor, nn
from transformers import Qwen2_5OmniProcessor, Qwen2_5OmniThinkerForConditionalGeneration, Qwen2Tokenizer

WORDS = (
    *("a", "add", "ah", "alarm", "an", "and", "beeps", "birds", "car", "chirps", "clicks", "clock", "deep"),
    *("drop", "ee", "heavy", "high", "keep", "low", "note", "of", "on", "one", "only", "oo", "rain"),
    *("roof", "saying", "sea", "siren", "sound", "steady", "surf", "the", "then", "tone", "voice", "waves", "with"),
)
"""Words that the prompts are made of."""
WIDTH, DEPTH, HEADS = 128, 4, 4

_FIRST_FREE, _MARKS_BEGIN = 256, 500
_STREAM_OF_ONES = WIDTH - 1
"""Feature of the DiT's sequence that every position has alike from its second block on."""


def word_processor() -> Qwen2_5OmniProcessor:
    """The tiny checkpoint's processor with a tokeniser to which each of the demo's words is one token."""
    processor = tiny_processor()
    processor.tokenizer = _word_tokenizer(processor.tokenizer)
    return processor


def _word_tokenizer(plain: Qwen2Tokenizer) -> Qwen2Tokenizer:
    vocab = {token: place for token, place in plain.get_vocab().items() if not token.startswith("<unused")}
    free = [place for place in range(_FIRST_FREE, _MARKS_BEGIN) if place not in vocab.values()]
    merges = list(dict.fromkeys(_merges(WORDS)))
    if len(merges) > len(free):
        raise ValueError(f"{len(merges)} merges for {len(free)} free places of the vocabulary")
    vocab |= {first + second: place for (first, second), place in zip(merges, free, strict=False)}
    vocab |= {f"<unused {place}>": place for place in free[len(merges) :]}
    marks = ("bos_token", "eos_token", "pad_token", "unk_token")
    extra = ("vision_bos_token", "vision_eos_token", "audio_token", "image_token", "video_token")
    extra = (*extra, "audio_bos_token", "audio_eos_token")
    given = {name: getattr(plain, name) for name in (*marks, *extra)}
    return Qwen2Tokenizer(vocab=vocab, merges=merges, **given)


def _merges(words: Iterable[str]) -> Iterable[tuple[str, str]]:
    """Letter by letter from the front, behind a space and at the start of a text."""
    for start in ("Ġ", ""):
        for word in words:
            letters = [*start, *word]
            yield from (("".join(letters[:end]), letters[end]) for end in range(1, len(letters)))


@torch.no_grad()
def word_thinker(seed: int) -> Qwen2_5OmniThinkerForConditionalGeneration:
    """The tiny thinker, in which a token's own word outweighs what was said before it."""
    thinker = tiny_thinker(seed)
    thinker.get_input_embeddings().weight *= 50
    return thinker


@torch.no_grad()
def frame_audio_encoder() -> AudioPromptEncoder:
    """An audio prompt encoder of log-mel loudness by latent frame.

    The highest mel band is silent in all that the demo makes, and stands for where in the clip a token is.
    """
    encoder = AudioPromptEncoder()
    pooling, mel = encoder.frame_projection, encoder.mel_projection
    frames = pooling.in_features
    nn.init.zeros_(pooling.weight)
    step = FRAME_SAMPLES // encoder.config.hop_length
    for token in range(pooling.out_features):
        first = min(token * step, frames - step - 1)
        pooling.weight[token, first : first + step + 1] = 1 / (step + 1)
    pooling.bias.copy_(torch.linspace(-1, 1, pooling.out_features))
    silence = math.log(1e-5)
    nn.init.zeros_(mel.weight)
    nn.init.zeros_(mel.bias)
    mel.weight[:99, :99] = torch.eye(99) / 4
    mel.weight[:99, 99] = -1 / 4
    mel.bias[:99] = -1.0
    for feature, centre in enumerate((-2.0, -1.0, 0.0, 1.0, 2.0), 100):
        mel.weight[feature, 99] = 3.0
        mel.bias[feature] = -3.0 * silence + centre
    mel.bias[105] = 3.0
    return encoder


@torch.no_grad()
def whitened_projection(states: Tensor, projection: nn.Linear, features: int = 192) -> None:
    """Set a projection to the states' [n, hidden] principal axes, each scaled to the same spread, and centre them."""
    hidden = nn.functional.rms_norm(states.float(), states.shape[-1:], eps=1e-6)
    centre = hidden.mean(dim=0)
    _, sizes, axes = torch.linalg.svd(hidden - centre, full_matrices=False)
    kept = min(features, int((sizes > 1e-2 * sizes[0]).sum()))
    scales = math.sqrt(len(hidden)) / sizes[:kept]
    nn.init.zeros_(projection.weight)
    nn.init.zeros_(projection.bias)
    projection.weight[:kept] = axes[:kept] * scales[:, None]
    projection.bias[:kept] = -(projection.weight[:kept] @ centre)


@torch.no_grad()
def untrained_transformer(seed: int) -> AudioOmniTransformer:
    """A DiT that passes its latents through, and looks at the audio prompt of the same frame from the second block on.

    Cross-attention adds nothing at first: otherwise the context is unlearned before it is understood.
    """
    torch.manual_seed(seed)
    transformer = AudioOmniTransformer(width=WIDTH, depth=DEPTH, heads=HEADS)
    nn.init.zeros_(transformer.conv_in.weight)
    nn.init.zeros_(transformer.conv_out.weight)
    # Latents are as loud as 20: the blocks work on half of it.
    transformer.proj_in.weight.copy_(torch.eye(WIDTH, 64) / 2)
    transformer.proj_out.weight.copy_(torch.eye(64, WIDTH) * 2)
    _spread(transformer.context_embedder)
    for block in transformer.blocks:
        nn.init.zeros_(block.attn2.to_out.weight)
    first, *others = transformer.blocks
    out: nn.Linear = first.ff.net[2]  # type: ignore[assignment]
    out.bias[_STREAM_OF_ONES] = 1.5
    for block in others:
        _look_back(block.attn1.to_qkv, 236)
    return transformer


def _spread(embedder: nn.Sequential, features: int = 192) -> None:
    """Let whitened tokens, which have so many features, come out with spread 1: at torch's own they are 13 times less."""
    into, _, out = embedder
    for layer, sources, gain in ((into, features, 1.5), (out, WIDTH, 1.1)):
        nn.init.normal_(layer.weight, std=gain / math.sqrt(sources))  # type: ignore[arg-type]


def _look_back(qkv: nn.Linear, distance: int) -> None:
    """Let the first head attend to the position this far before, by way of the rotary positions."""
    half = WIDTH // HEADS // 2
    frequencies = 10_000 ** (-torch.arange(half) / half)
    strength = 1.5 * (frequencies > 0.08)
    query, key = qkv.weight[: 2 * half], qkv.weight[WIDTH : WIDTH + 2 * half]
    nn.init.zeros_(query)
    nn.init.zeros_(key)
    angles = -distance * frequencies
    query[:half, _STREAM_OF_ONES] = strength * angles.cos()
    query[half:, _STREAM_OF_ONES] = strength * angles.sin()
    key[:half, _STREAM_OF_ONES] = strength
