"""Tiny random recognisers of transformers: a Whisper of two languages, and a wav2vec2 that spells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import torch
from transformers import (
    GenerationConfig,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

LANGUAGES = ("en", "ru")


def write_tiny_whisper(folder: Path, *, licence: str = "mit", word_times: bool = True, seed: int = 0) -> Path:
    """Write the folder, and give it back: it hears a few words in any noise, in milliseconds."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {sign: number for number, sign in enumerate(bytes_to_unicode().values())}
    signs = ["<|endoftext|>", "<|startoftranscript|>", *(f"<|{one}|>" for one in LANGUAGES)]
    signs += ["<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
    signs += [f"<|{number * 0.02:.2f}|>" for number in range(1501)]
    tokenizer = WhisperTokenizer(vocabulary, [], additional_special_tokens=signs)
    ids = dict(zip(signs, cast(list[int], tokenizer.convert_tokens_to_ids(signs)), strict=True))
    end = ids["<|endoftext|>"]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = WhisperForConditionalGeneration(
            WhisperConfig(
                vocab_size=len(tokenizer),
                d_model=32,
                encoder_layers=2,
                decoder_layers=2,
                encoder_attention_heads=2,
                decoder_attention_heads=2,
                encoder_ffn_dim=64,
                decoder_ffn_dim=64,
                num_mel_bins=80,
                max_target_positions=448,
                init_std=0.3,
                bos_token_id=end,
                eos_token_id=end,
                pad_token_id=end,
                decoder_start_token_id=ids["<|startoftranscript|>"],
            )
        )
    letters = {vocabulary[sign] for sign in "abcdeghinorstuwy\u0120"}
    model.generation_config = GenerationConfig(
        max_length=24,
        min_new_tokens=8,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=ids["<|startoftranscript|>"],
        no_timestamps_token_id=ids["<|notimestamps|>"],
        prev_sot_token_id=ids["<|startofprev|>"],
        is_multilingual=True,
        lang_to_id={f"<|{one}|>": ids[f"<|{one}|>"] for one in LANGUAGES},
        task_to_id={one: ids[f"<|{one}|>"] for one in ("translate", "transcribe")},
        suppress_tokens=[one for one in range(end) if one not in letters],
        begin_suppress_tokens=[end],
        max_initial_timestamp_index=50,
        return_timestamps=False,
        **({"alignment_heads": [[0, 0], [1, 1]]} if word_times else {}),
    )
    if not word_times:
        with torch.no_grad():  # letters are likelier than times, which nobody asks it for
            model.model.decoder.embed_tokens.weight[end:] *= 0.1
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    (folder / "README.md").write_text(f"---\nlicense: {licence}\nlanguage:\n- en\n- ru\n---\n")
    return folder


def write_tiny_wav2vec2(folder: Path, *, seed: int = 0) -> Path:
    """Write the folder, and give it back: it spells what it hears, and knows English alone."""
    folder.mkdir(parents=True, exist_ok=True)
    signs = ["<pad>", "<s>", "</s>", "<unk>", "|", *"etaoinshr"]
    (folder / "vocab.json").write_text(json.dumps({sign: number for number, sign in enumerate(signs)}))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Wav2Vec2ForCTC(
            Wav2Vec2Config(
                vocab_size=len(signs),
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=64,
                conv_dim=(32,) * 7,
                num_conv_pos_embeddings=16,
                num_conv_pos_embedding_groups=2,
                initializer_range=1.0,
                pad_token_id=0,
            )
        )
    model.save_pretrained(folder)
    Wav2Vec2CTCTokenizer(str(folder / "vocab.json")).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=False).save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\nlanguage: en\n---\n")
    return folder
