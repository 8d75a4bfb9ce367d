"""A tiny random VoxCPM2 in its own layout: 1.2 million weights, with a patch of 160 ms like the real one."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaTokenizerFast
from voxcpm.model.voxcpm2 import LoRAConfig, VoxCPM2Model, VoxCPMConfig
from voxcpm.modules.audiovae import AudioVAEConfigV2, AudioVAEV2

CARD = {
    "name": "voxcpm2",
    "licence": "Apache-2.0",
    "commercial_use": True,
    "tasks": {"generate.tts": {"languages": ["ar", "en", "hi", "ru", "zh"]}},
}
HIDDEN, HEADS, LAYERS = 32, 2, 2
VAE = {
    "encoder_dim": 8,
    "encoder_rates": [2, 5, 8, 8],
    "latent_dim": 64,
    "decoder_dim": 64,
    "decoder_rates": [8, 6, 5, 2, 2, 2],
}


def write_tiny_voxcpm(folder: Path, *, seed: int = 0, endless: bool = False) -> Path:
    """Write the folder, and give it back. One that is endless says as much as the library lets it."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps(_config()))
    (folder / "card.json").write_text(json.dumps(CARD))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        vae = AudioVAEV2(config=AudioVAEConfigV2.model_validate(VAE))
        tokenizer = LlamaTokenizerFast.from_pretrained(folder)
        model = VoxCPM2Model(VoxCPMConfig.model_validate(_config()), tokenizer, vae, device="cpu")
    if endless:
        torch.nn.init.zeros_(model.stop_head.weight)
    weights = {name: one.contiguous() for name, one in model.state_dict().items() if not name.startswith("audio_vae.")}
    save_file(weights, folder / "model.safetensors")
    save_file({name: one.contiguous() for name, one in vae.state_dict().items()}, folder / "audiovae.safetensors")
    return folder


def write_tiny_lora(folder: Path, base: Path, *, commercial: bool, seed: int = 0) -> Path:
    """Write a LoRA of a folder's model, as the library's training does, with a card; and give it back."""
    folder.mkdir(parents=True)
    config = LoRAConfig(enable_lm=True, enable_dit=True, r=2, alpha=4)
    model = VoxCPM2Model.from_local(str(base), optimize=False, device="cpu", lora_config=config)
    random = torch.Generator().manual_seed(seed)
    weights = {name: torch.randn(one.shape, generator=random) / 10 for name, one in model.get_lora_state_dict().items()}
    save_file(weights, folder / "lora_weights.safetensors")
    described = {"base_model": str(base), "lora_config": config.model_dump()}
    (folder / "lora_config.json").write_text(json.dumps(described))
    card = {"licence": "CC0-1.0" if commercial else "CC BY-NC 4.0", "commercial_use": commercial}
    (folder / "card.json").write_text(json.dumps(card))
    return folder


def _write_tokenizer(folder: Path) -> None:
    marks = ["<|audio_start|>", "<|audio_end|>", "<|ref_start|>", "<|ref_end|>"]
    signs = ["<unk>", "<s>", "</s>", *(f"<unused_{number}>" for number in range(3, 101)), *marks]
    signs += [*(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    vocabulary = {sign: number for number, sign in enumerate(signs)}
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    LlamaTokenizerFast(vocab=vocabulary, merges=[], **special).save_pretrained(folder)


def _config() -> dict[str, object]:
    half = HIDDEN // HEADS // 2
    scaling = {"type": "longrope", "long_factor": [1.0] * half, "short_factor": [1.0] * half}
    language_model = {
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_size": HIDDEN,
        "intermediate_size": 64,
        "max_position_embeddings": 4096,
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": HEADS,
        "rms_norm_eps": 1e-5,
        "rope_scaling": scaling | {"original_max_position_embeddings": 4096},
        "vocab_size": 512,
        "use_mup": False,
        "scale_emb": 1.0,
        "dim_model_base": 64,
        "scale_depth": 1.0,
        "rope_theta": 10000.0,
    }
    part = {"hidden_dim": HIDDEN, "ffn_dim": 64, "num_heads": HEADS, "num_layers": 1}
    return {
        "architecture": "voxcpm2",
        "lm_config": language_model,
        "patch_size": 4,
        "feat_dim": 64,
        "residual_lm_num_layers": 1,
        "residual_lm_no_rope": True,
        "scalar_quantization_latent_dim": 16,
        "scalar_quantization_scale": 9,
        "encoder_config": part,
        "dit_config": part | {"cfm_config": {}},
        "audio_vae_config": VAE,
        "max_length": 1024,
        "device": "cpu",
        "dtype": "bfloat16",
    }
