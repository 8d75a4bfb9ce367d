"""Qwen2.5-Omni's processor (tokeniser, mel, pictures), which the published checkpoint uses and does not hold."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from omnifleet_shared.errors import CheckpointInvalid
from transformers import Qwen2_5OmniProcessor, Qwen2_5OmniThinkerConfig

FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "video_preprocessor_config.json",
    "vocab.json",
)
"""What transformers reads a processor from, by its older and its present layout; no model has all of them."""

_MEDIA = ("audio", "image", "video")


def find_processor(model: str, folder: Path | None = None) -> Path:
    """Folder of the processor's files: the one given, else the model's in the Hugging Face cache (`HF_HOME`).

    Args:
        model: its name on the Hugging Face Hub, from the published configuration. Nothing is downloaded.
        folder: given by the user.

    Raises:
        CheckpointInvalid: there is no processor.
    """
    found = folder or _cached(model)
    if found is None or not any((found / name).is_file() for name in FILES):
        where = found or "the Hugging Face cache"
        remedy = f'Run `hf download {model} --include "*.json" "*.txt"`, or name a folder with --qwen'
        raise CheckpointInvalid(f"{where} holds no processor of {model}", "--qwen", remedy)
    return found


def load_processor(folder: Path, thinker: Qwen2_5OmniThinkerConfig) -> Qwen2_5OmniProcessor:
    """The processor, once it is sure that it marks media by the thinker's own tokens.

    Raises:
        CheckpointInvalid: files are missing or damaged, or of another model.
    """
    remedy = "Give the processor of Qwen2.5-Omni-3B"
    try:
        processor = Qwen2_5OmniProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointInvalid(f"{folder} holds no whole processor: {error}", "--qwen", remedy) from error
    for medium in _MEDIA:
        found, wanted = (getattr(owner, f"{medium}_token_id") for owner in (processor, thinker))
        if found != wanted:
            problem = f"{folder} marks {medium} by token {found}, and the thinker reads it as {wanted}"
            raise CheckpointInvalid(problem, "--qwen", remedy)
    return processor


def _cached(model: str) -> Path | None:
    try:
        return Path(snapshot_download(model, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
