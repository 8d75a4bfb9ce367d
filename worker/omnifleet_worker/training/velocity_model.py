"""The part of a checkpoint that learns: its DiT, with LoRA matrices beside frozen weights or as a whole."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from omnifleet_shared.errors import InvalidTrainingConfig
from peft import LoraConfig, PeftModel
from torch import Tensor, nn

from ..models import folder as checkpoint_folder
from ..models.audio_omni.transformer import AudioOmniTransformer
from .config import TrainConfig

ADAPTER = "adapter"
"""Folder of a run's adapter: adapter_config.json and adapter_model.safetensors, as peft writes and reads them."""
TRANSFORMER = "transformer"
"""Folder of a run's whole transformer, as diffusers writes and reads it; also of a checkpoint's."""


class VelocityModel(nn.Module):
    """The DiT as a function of what a training batch holds.

    Args:
        transformer: an AudioOmniTransformer whose weights are trained, or a PeftModel around it.
    """

    def __init__(self, transformer: AudioOmniTransformer | PeftModel) -> None:
        super().__init__()
        self._trained: Any = transformer

    @classmethod
    def load(cls, config: TrainConfig, dtype: torch.dtype) -> VelocityModel:
        """Load the checkpoint's DiT for what is to be trained of it.

        Args:
            config: of the run.
            dtype: of the frozen weights; trained ones are float32.

        Raises:
            CheckpointInvalid: the transformer's files.
            InvalidTrainingConfig: no layer has a name of `lora.target_modules`.
        """
        stored = torch.float32 if config.method == "full" else dtype
        transformer: AudioOmniTransformer = checkpoint_folder.load_component(
            config.checkpoint / TRANSFORMER, AudioOmniTransformer, stored
        )
        if config.gradient_checkpointing:
            transformer.enable_gradient_checkpointing()
        transformer.train().requires_grad_(config.method == "full")
        transformer.time_proj.requires_grad_(False)  # frequencies that all else was learned for
        return cls(transformer if config.method == "full" else _with_adapter(transformer, config))

    @property
    def transformer(self) -> AudioOmniTransformer:
        """The DiT itself, with what was learned applied."""
        model = self._trained.get_base_model() if isinstance(self._trained, PeftModel) else self._trained
        assert isinstance(model, AudioOmniTransformer)
        return model

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """The weights that learn, by name."""
        return {name: weight for name, weight in self._trained.named_parameters() if weight.requires_grad}

    def forward(self, latents: Tensor, times: Tensor, context: Tensor, mask: Tensor, global_tokens: Tensor) -> Tensor:
        """Predict velocities; see `AudioOmniTransformer.predict_from_tokens`."""
        return self.transformer.predict_from_tokens(latents, times, context, mask, global_tokens)

    def export(self, out: Path) -> None:
        """Write `adapter` or `transformer` below a run's folder, in place of what was there."""
        name = ADAPTER if isinstance(self._trained, PeftModel) else TRANSFORMER
        part = out / f".part-{name}"
        shutil.rmtree(part, ignore_errors=True)
        if isinstance(self._trained, PeftModel):
            # Asked about embeddings, peft would look for the base model on a hub.
            self._trained.save_pretrained(str(part), save_embedding_layers=False)
        else:
            self.transformer.save_pretrained(part)
        replace_folder(part, out / name)


def replace_folder(new: Path, place: Path) -> None:
    """Put a finished folder in the place of another."""
    old = place.with_name(f".old-{place.name}")
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        place.rename(old)
    new.rename(place)
    shutil.rmtree(old, ignore_errors=True)


def _with_adapter(transformer: AudioOmniTransformer, config: TrainConfig) -> PeftModel:
    card = checkpoint_folder.read_data(config.checkpoint)["card"]
    lora = LoraConfig(
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,
        lora_dropout=config.lora.dropout,
        target_modules=list(config.lora.target_modules),
        base_model_name_or_path=card.get("name"),
        revision=card.get("revision"),
    )
    try:
        # Not by get_peft_model, which would note the transformer's name in place of the checkpoint's.
        return PeftModel(transformer, lora)
    except ValueError as error:
        raise InvalidTrainingConfig(str(error), "lora.target_modules", "Name layers of the transformer") from error
