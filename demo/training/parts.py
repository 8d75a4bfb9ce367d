"""The parts of the demo's checkpoint that are drawn or computed: everything but what was trained.

They are arranged so that a small DiT learns within minutes: words are tokens of their own, the thinker's states are
read as what they mean, and the audio prompt's tokens are logarithms of loudness, each beside the latent frame that it
is of.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from omnifleet_worker.models.audio_omni.conditioners import AudioPromptEncoder
from omnifleet_worker.models.audio_omni.sampling import FRAME_SAMPLES
from omnifleet_worker.models.audio_omni.tiny import tiny_processor, tiny_thinker
from omnifleet_worker.models.audio_omni.transformer import AudioOmniTransformer
from omnifleet_worker.models.audio_omni.transformer_block import CrossAttention
from torch import Tensor, nn
from transformers import Qwen2_5OmniProcessor, Qwen2_5OmniThinkerForConditionalGeneration, Qwen2Tokenizer

from .sounds import NAMES, TEXTS

WORDS = (
    *("a", "add", "ah", "alarm", "an", "and", "beeps", "birds", "car", "chirps", "clicks", "clock", "deep"),
    *("drop", "ee", "heavy", "high", "keep", "low", "note", "of", "on", "one", "only", "oo", "rain"),
    *("roof", "saying", "sea", "siren", "sound", "steady", "surf", "the", "then", "tone", "voice", "waves", "with"),
)
"""Words that the prompts are made of."""
WIDTH, DEPTH, HEADS = 128, 4, 4

LEADS = ("then", "drop", "keep", "add")
NAMED = {
    word: NAMES.index(name)
    for name, texts in TEXTS.items()
    for word in {word for text in texts for word in text.split()}
    if not any(word in text.split() for other, others in TEXTS.items() if other != name for text in others)
}
"""Words that are said of one sound alone, with its place among the names."""
MEANINGS = len(NAMES) + 1 + len(LEADS)

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
    of_media = ("vision_bos_token", "vision_eos_token", "audio_token", "image_token", "video_token")
    of_audio = ("audio_bos_token", "audio_eos_token")
    given: dict[str, Any] = {name: getattr(plain, name) for name in (*marks, *of_media, *of_audio)}
    given["merges"] = merges  # pairs, which its signature does not tell of
    return Qwen2Tokenizer(vocab=vocab, **given)


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
    embeddings: Any = thinker.get_input_embeddings()
    embeddings.weight *= 50
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


def meanings(tokens: Sequence[str]) -> Tensor:
    """What the tokens of a chat stand for, [n, 16].

    The sound that a word is for alone (one of eleven), whether it is for one, whether it comes after "then", and after
    each of the edits' verbs.
    """
    said = [token.strip() for token in tokens]
    found = torch.zeros(len(said), MEANINGS)
    for place, word in enumerate(said):
        if word in NAMED:
            found[place, NAMED[word]] = found[place, len(NAMES)] = 1
        if word in LEADS:
            found[place:, len(NAMES) + 1 + LEADS.index(word)] = 1
    return found


@torch.no_grad()
def fitted_projection(states: Tensor, wanted: Tensor, projection: nn.Linear) -> None:
    """Set a projection of states [n, hidden] to the least squares of the wanted features [n, 16]."""
    hidden = nn.functional.rms_norm(states.float(), states.shape[-1:], eps=1e-6)
    centre = hidden.mean(dim=0)
    away = (hidden - centre).double()
    ridge = 1e-3 * away.square().sum() / len(away) * torch.eye(away.shape[1], dtype=torch.float64)
    weight = torch.linalg.solve(away.T @ away + ridge, away.T @ (wanted - wanted.mean(dim=0)).double()).T.float()
    nn.init.zeros_(projection.weight)
    nn.init.zeros_(projection.bias)
    projection.weight[:MEANINGS] = weight
    projection.bias[:MEANINGS] = wanted.mean(dim=0) - weight @ centre


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
    _pass_through(transformer.context_embedder)
    for block in transformer.blocks:
        nn.init.zeros_(block.attn2.to_out.weight)
    first, *others = transformer.blocks
    out: nn.Linear = first.ff.net[2]  # type: ignore[assignment]
    out.bias[_STREAM_OF_ONES] = 1.5
    for block in others:
        _look_back(block.attn1.to_qkv, 236)
    _read_names(others[0].attn2)
    return transformer


def _pass_through(embedder: nn.Sequential) -> None:
    """Let the first 64 features through as they are: SiLU of a number less that of its negative is the number."""
    into, _, out = embedder
    assert isinstance(into, nn.Linear) and isinstance(out, nn.Linear)
    half = torch.eye(WIDTH // 2, into.weight.shape[1])
    into.weight.copy_(torch.cat([half, -half]))
    nn.init.zeros_(out.weight)
    out.weight[: WIDTH // 2].copy_(torch.cat([torch.eye(WIDTH // 2), -torch.eye(WIDTH // 2)], dim=1))


def _read_names(attention: CrossAttention) -> None:
    """Let one head attend to what is named first, one to what comes after a "then", and tell every position of both."""
    names, part = len(NAMES), WIDTH // HEADS
    query, (key, value), out = attention.to_q.weight, attention.to_kv.weight.chunk(2), attention.to_out.weight
    for head, after in enumerate((-1.0, 1.0)):
        at = head * part
        for weight in (query, key, value):
            nn.init.zeros_(weight[at : at + part])
        query[at, _STREAM_OF_ONES] = 5.0
        key[at, names], key[at, names + 1] = 5.0, 5.0 * after
        value[at : at + MEANINGS, :MEANINGS] = 2 * torch.eye(MEANINGS)
        told = WIDTH // 2 + head * MEANINGS  # behind the latents' own features
        out[told : told + MEANINGS, at : at + MEANINGS] = torch.eye(MEANINGS)


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
