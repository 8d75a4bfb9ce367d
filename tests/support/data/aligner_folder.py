"""A speech recogniser with CTC of random weights, as transformers saves it: what OMNIFLEET_ALIGNER names."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Processor,
)

_CHARACTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ'你好"]


def write_tiny_aligner(folder: Path) -> Path:
    """Write a tiny Wav2Vec2 that spells in capital letters, and return its folder."""
    vocabulary = folder / "characters.json"
    vocabulary.write_text(json.dumps({character: place for place, character in enumerate(_CHARACTERS)}))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        Wav2Vec2ForCTC(_config()).save_pretrained(folder)
    Wav2Vec2Processor(Wav2Vec2FeatureExtractor(), Wav2Vec2CTCTokenizer(str(vocabulary))).save_pretrained(folder)
    return folder


def _config() -> Wav2Vec2Config:
    return Wav2Vec2Config(
        vocab_size=len(_CHARACTERS),
        pad_token_id=0,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(8,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
    )
