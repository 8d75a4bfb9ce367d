"""A tiny random VITS in the layout of MMS: it makes noise of texts in four scripts, in milliseconds."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import VitsConfig, VitsModel, VitsTokenizer

TEXTS = {
    "ru": "Привет, мир. Это проверка голоса.",
    "zh": "你好世界。这是一个测试。",
    "ar": "مرحبا بالعالم هذا اختبار",
    "hi": "नमस्ते दुनिया यह एक परीक्षण है",
}
README = """---
license: {licence}
language:
{languages}
---
# Tiny
"""


def write_tiny_vits(folder: Path, *, licence: str = "apache-2.0", seed: int = 0) -> Path:
    """Write the folder, and give it back."""
    folder.mkdir(parents=True, exist_ok=True)
    signs = "_ " + "".join(sorted({sign for text in TEXTS.values() for sign in text.lower()} - {" ", "_"}))
    vocabulary = folder / "vocab.json"
    vocabulary.write_text(json.dumps({sign: number for number, sign in enumerate(signs)}, ensure_ascii=False))
    tokenizer = VitsTokenizer(
        str(vocabulary), pad_token="_", unk_token="_", is_uroman=False, phonemize=False, normalize=True
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = VitsModel(
            VitsConfig(
                vocab_size=len(signs),
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                ffn_dim=64,
                flow_size=32,
                spectrogram_bins=65,
                prior_encoder_num_flows=2,
                posterior_encoder_num_wavenet_layers=2,
                prior_encoder_num_wavenet_layers=2,
                duration_predictor_flow_bins=10,
                upsample_initial_channel=64,
                sampling_rate=16000,
            )
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    languages = "\n".join(f"- {code}" for code in TEXTS)
    (folder / "README.md").write_text(README.format(licence=licence, languages=languages))
    return folder
