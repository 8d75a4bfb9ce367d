"""A small checkpoint with random weights in the real one's layout, so that everything runs offline on a CPU.

It makes noise and answers with random letters; its sizes follow docs/model.md, "The parity files".
"""

from __future__ import annotations

import string
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pypinyin.constants import PINYIN_DICT
from pypinyin.contrib.tone_convert import to_tone3
from tokenizers.pre_tokenizers import ByteLevel
from torch import nn
from transformers import (
    Qwen2_5OmniProcessor,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    WhisperFeatureExtractor,
)

from omnifleet_worker.models.audio_omni.autoencoder import AudioOmniAutoencoder
from omnifleet_worker.models.audio_omni.conditioners import AudioPromptEncoder, OmniProjection, SyncEncoder
from omnifleet_worker.models.audio_omni.pipeline import AudioOmniPipeline
from omnifleet_worker.models.audio_omni.speech_encoder import SpeechEncoder
from omnifleet_worker.models.audio_omni.synchformer import Synchformer
from omnifleet_worker.models.audio_omni.transformer import AudioOmniTransformer

_VOCAB_SIZE = 512
_MARKS = {
    "vision_bos_token": ("<|vision_bos|>", 500),
    "vision_eos_token": ("<|vision_eos|>", 501),
    "audio_token": ("<|AUDIO|>", 502),
    "image_token": ("<|IMAGE|>", 503),
    "video_token": ("<|VIDEO|>", 504),
    "audio_bos_token": ("<|audio_bos|>", 505),
    "audio_eos_token": ("<|audio_eos|>", 506),
    "pad_token": ("<|endoftext|>", 507),
    "bos_token": ("<|im_start|>", 508),
    "eos_token": ("<|im_end|>", 509),
}

# Twice the real size: the processor scales every frame up to 336 × 336, which makes 3,600 tokens of ten seconds.
_PATCH_SIZE = 28
_TEXT_CONFIG = {
    "vocab_size": _VOCAB_SIZE,
    "hidden_size": 2048,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
}
_AUDIO_CONFIG = {
    "d_model": 64,
    "encoder_layers": 1,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "output_dim": 2048,
}
_VISION_CONFIG = {
    "depth": 1,
    "hidden_size": 64,
    "num_heads": 2,
    "intermediate_size": 64,
    "out_hidden_size": 2048,
    "patch_size": _PATCH_SIZE,
}

_PROMPTS: dict[str, Any] = {
    "system": {
        "EDITING": "Change the recording as the request says and leave the rest of it alone.",
        "T2A": "Make the sound that the text tells of.",
        "T2M": "Make a piece of music that fits the text.",
        "TTS": "Read the text aloud.",
        "UNDERSTANDING": "Listen, look, and answer in text.",
        "V2A": "Watch the video and make the sounds that belong to it.",
        "V2M": "Watch the video and make music that goes with it.",
    },
    "edit": {
        "Add": "Put {desc} into the recording.",
        "Remove": "Take {desc} out of the recording.",
        "Extract": "Keep nothing of the recording but {desc}.",
        "Style": "Let {target} take the place of {source}.",
    },
    "transcribe": {
        "system": "Write down what is said.",
        "user": "Write down every word of this recording, and no others.",
    },
}
_CARD: dict[str, Any] = {
    "name": "audio-omni-tiny",
    "licence": "Apache-2.0",
    "commercial_use": True,
    "languages": ["en", "zh", "ja", "fr", "de"],
}


def write_tiny_checkpoint(folder: Path, *, seed: int = 0) -> None:
    """Write the checkpoint that `AudioOmniPipeline.from_pretrained` reads: about 110 MB, in a few seconds.

    Args:
        folder: made if need be; files of the same names are replaced.
        seed: of the random weights; one seed gives the same weights everywhere.
    """
    tiny_pipeline(seed).save_pretrained(folder)


def tiny_pipeline(seed: int = 0) -> AudioOmniPipeline:
    """The tiny checkpoint's components in memory, on the CPU; the thinker in bfloat16, as it is published."""
    with _seeded(seed):
        return AudioOmniPipeline(
            transformer=AudioOmniTransformer(width=128, depth=2, heads=2),
            vae=_noisy_vae(),
            thinker=tiny_thinker(seed).bfloat16(),
            processor=tiny_processor(),
            omni_projection=OmniProjection(),
            speech_encoder=SpeechEncoder(),
            audio_encoder=AudioPromptEncoder(),
            sync_encoder=SyncEncoder(),
            prompts=_PROMPTS,
            vocab=tiny_vocab(),
            card=_CARD | {"revision": f"tiny-seed{seed}"},
            synchformer=Synchformer(width=64, depth=1, heads=2),
        )


def tiny_vocab() -> list[str]:
    """Tokens of speech text: a space, then ASCII, Western European letters, kana, punctuation, pinyin with tones."""
    readings = {reading for readings in PINYIN_DICT.values() for reading in readings.split(",")}
    blocks = ((" ", "~"), ("À", "ÿ"), ("ぁ", "ゖ"), ("ァ", "ー"))
    letters = [chr(code) for first, last in blocks for code in range(ord(first), ord(last) + 1)]
    # Readings without a tone, such as "a" and "o", are letters already; a token's first place is its id.
    return list(dict.fromkeys([*letters, *"ŒœŸ€…—、。「」！？，：", *sorted(map(to_tone3, readings))]))


def tiny_tokenizer() -> Qwen2Tokenizer:
    """A byte-level tokeniser: ids 0–255 are bytes, the chat's marks lie above 500, between them nothing is used."""
    tokens = sorted(ByteLevel.alphabet())
    vocab = {token: place for place, token in enumerate(tokens)} | dict(_MARKS.values())
    used = set(vocab.values())
    # A vocabulary with holes cannot be saved without a warning from the tokenizers library.
    vocab |= {f"<unused {place}>": place for place in range(_VOCAB_SIZE) if place not in used}
    marks = {name: mark for name, (mark, _) in _MARKS.items()}
    return Qwen2Tokenizer(vocab=vocab, merges=[], unk_token=marks["pad_token"], **marks)


def tiny_processor() -> Qwen2_5OmniProcessor:
    """Qwen2.5-Omni's own preprocessing, with the tiny tokeniser and large patches."""
    return Qwen2_5OmniProcessor(
        image_processor=Qwen2VLImageProcessor(patch_size=_PATCH_SIZE),
        video_processor=Qwen2VLVideoProcessor(patch_size=_PATCH_SIZE, cap_pixels_per_frame=False),
        feature_extractor=WhisperFeatureExtractor(feature_size=128, chunk_length=300, return_attention_mask=True),
        tokenizer=tiny_tokenizer(),
    )


def tiny_thinker(seed: int = 0) -> Qwen2_5OmniThinkerForConditionalGeneration:
    """A thinker with three text layers and random float32 weights that answers with random letters."""
    with _seeded(seed):
        model = Qwen2_5OmniThinkerForConditionalGeneration(_thinker_config()).eval()
    _answer_in_letters(model.lm_head)
    return model


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _noisy_vae() -> AudioOmniAutoencoder:
    vae = AudioOmniAutoencoder(encoder_hidden_size=8, decoder_channels=8)
    # Random biases repeat at the strides' rates: a whistle that drowns what the latents say.
    for name, weight in vae.decoder.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(weight)
    return vae


@torch.no_grad()
def _answer_in_letters(head: nn.Linear) -> None:
    """Leave letters, digits, spaces and the end of a turn as the likely tokens, also where tokens are drawn."""
    spoken = tiny_tokenizer().convert_tokens_to_ids([*string.ascii_letters, *string.digits, "Ġ", "<|im_end|>"])
    loudness = torch.zeros(_VOCAB_SIZE, 1)
    loudness[spoken] = 8.0
    head.weight *= loudness


def _thinker_config() -> Qwen2_5OmniThinkerConfig:
    ids = {name: place for name, (_, place) in _MARKS.items()}
    return Qwen2_5OmniThinkerConfig.from_dict(
        {
            "text_config": _TEXT_CONFIG,
            "audio_config": _AUDIO_CONFIG,
            "vision_config": _VISION_CONFIG,
            "tie_word_embeddings": False,
            "audio_token_index": ids["audio_token"],
            "image_token_index": ids["image_token"],
            "video_token_index": ids["video_token"],
            "audio_start_token_id": ids["audio_bos_token"],
            "audio_end_token_id": ids["audio_eos_token"],
            "vision_start_token_id": ids["vision_bos_token"],
            "vision_end_token_id": ids["vision_eos_token"],
        }
    )
