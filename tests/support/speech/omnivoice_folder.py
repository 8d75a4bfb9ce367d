"""A tiny random OmniVoice in its own layout, with a card of its weights' licence nowhere: as it is downloaded."""

from __future__ import annotations

from pathlib import Path

import torch
from omnivoice import OmniVoice
from omnivoice.models.omnivoice import OmniVoiceConfig
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    DacFeatureExtractor,
    HiggsAudioV2TokenizerConfig,
    HiggsAudioV2TokenizerModel,
    Qwen2Tokenizer,
    Qwen3Config,
)

MARKS = ["denoise", *(f"{what}_{end}" for what in ("lang", "instruct", "text") for end in ("start", "end"))]
RATIOS = [8, 5, 4, 2, 3]


def write_tiny_omnivoice(folder: Path, *, seed: int = 0) -> Path:
    """Write the folder, and give it back."""
    folder.mkdir(parents=True, exist_ok=True)
    signs = [*sorted(ByteLevel.alphabet()), "<|endoftext|>"]
    end = dict.fromkeys(("unk_token", "pad_token", "eos_token"), "<|endoftext|>")
    tokenizer = Qwen2Tokenizer(vocab={sign: number for number, sign in enumerate(signs)}, merges=[], **end)
    tokenizer.add_special_tokens({"additional_special_tokens": [f"<|{mark}|>" for mark in MARKS]})
    tokenizer.save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        OmniVoice(OmniVoiceConfig(llm_config=_language_model())).save_pretrained(folder)
        codec = HiggsAudioV2TokenizerModel(_codec())
        for name, values in codec.named_buffers():
            if name.endswith("codebook.embed"):  # zeros, with which every sound is the same
                values.copy_(torch.randn_like(values))
        codec.save_pretrained(folder / "audio_tokenizer")
    extractor = DacFeatureExtractor(feature_size=1, sampling_rate=24_000, hop_length=codec.config.hop_length)
    extractor.save_pretrained(folder / "audio_tokenizer")
    return folder


def _language_model() -> Qwen3Config:
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16}
    return Qwen3Config(vocab_size=1100, hidden_size=32, intermediate_size=64, num_hidden_layers=2, **heads)


def _codec() -> HiggsAudioV2TokenizerConfig:
    acoustic = {
        "model_type": "dac",
        "encoder_hidden_size": 8,
        "downsampling_ratios": RATIOS,
        "decoder_hidden_size": 64,
        "upsampling_ratios": RATIOS,
        "hidden_size": 32,
    }
    semantic = {
        "model_type": "hubert",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 2,
        "conv_dim": [32] * 7,
        "mask_time_prob": 0.0,
    }
    bandwidths = [0.5, 1, 1.5, 2]
    return HiggsAudioV2TokenizerConfig(
        acoustic_model_config=acoustic, semantic_model_config=semantic, codebook_dim=16, target_bandwidths=bandwidths
    )
