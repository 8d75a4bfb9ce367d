"""The checkpoint of the demo: what was trained of it lies in `demo/checkpoint`, and the rest of it is computed here."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import torch
from omnifleet_worker.models.audio_omni.pipeline import AudioOmniPipeline
from safetensors.torch import load_file, save_file
from transformers.utils.logging import disable_progress_bar

from .checkpoint import untrained_pipeline

TRAINED = Path(__file__).parents[1] / "checkpoint" / "trained.safetensors"
_PARTS = ("transformer", "omni_projection")
"""What is stored: the DiT, and the projection that is fitted to the thinker's states."""


def store(pipeline: AudioOmniPipeline, file: Path) -> None:
    """Write what was trained or fitted of a pipeline, in half precision."""
    tensors = {
        f"{part}.{name}": tensor.half().contiguous()
        for part in _PARTS
        for name, tensor in getattr(pipeline, part).state_dict().items()
    }
    save_file(tensors, file)


@torch.no_grad()
def trained_pipeline(file: Path = TRAINED) -> AudioOmniPipeline:
    """The whole pipeline of what `store` wrote."""
    pipeline, tensors = untrained_pipeline(), load_file(file)
    for part in _PARTS:
        held = {name.removeprefix(f"{part}."): tensor for name, tensor in tensors.items() if name.startswith(part)}
        getattr(pipeline, part).load_state_dict(held)
    return pipeline


def write_trained_checkpoint(folder: Path) -> None:
    """Write the checkpoint that workers serve, unless what was trained of it is there already."""
    digest, note = hashlib.sha256(TRAINED.read_bytes()).hexdigest(), folder / "trained.sha256"
    if note.exists() and note.read_text() == digest:
        return
    disable_progress_bar()
    trained_pipeline().save_pretrained(folder)
    note.write_text(digest)  # last: what is there is whole


if __name__ == "__main__":
    write_trained_checkpoint(Path(sys.argv[1]))
