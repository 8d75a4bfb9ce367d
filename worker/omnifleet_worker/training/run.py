"""One training run: everything is checked, then encoded, then trained."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from accelerate import Accelerator
from omnifleet_shared.errors import InvalidTrainingConfig

from ..models import folder as checkpoint_folder
from ..models.audio_omni.components import CONFIGS, OPTIONAL, PIPELINE
from .batches import EncodedDataset
from .config import TrainConfig
from .examples.data import Example, read_examples
from .examples.example_encoder import EncodedExample, ExampleEncoder, data_digest
from .flow_matching import seeded
from .run_states import RunStates
from .trainer import Trainer
from .validation import Validation
from .velocity_model import VelocityModel

logger = logging.getLogger(__name__)


def train(config: TrainConfig) -> int | None:
    """Run what the configuration says, or go on with it where it was interrupted.

    Returns:
        The signal that ended it early; None where it is done.

    Raises:
        InvalidTrainingConfig, InvalidTrainingData, MediaError, CheckpointInvalid: before anything is computed.
    """
    examples = read_examples(config.train)
    held_out = read_examples(config.validation)
    _check_weights(config, examples)
    checkpoint_folder.list_components(config.checkpoint, PIPELINE, CONFIGS, OPTIONAL)
    dtype = _dtype(config)
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),  # said outright: several processes find each other only so
        mixed_precision="bf16" if dtype == torch.bfloat16 else "no",
        gradient_accumulation_steps=config.gradient_accumulation,
    )
    encoder = ExampleEncoder(config.checkpoint, config.cache_folder, accelerator.device, dtype)
    dataset, validation = _encode(examples, encoder, accelerator), _encode(held_out, encoder, accelerator)
    encoder.free()
    with seeded(config.seed):
        model = VelocityModel.load(config, dtype)
    facts = {**config.recipe(), "train": data_digest(dataset), "processes": accelerator.num_processes}
    states = RunStates(config.out / "states", facts)
    trainer = Trainer(
        config,
        model,
        EncodedDataset(dataset, encoder.cache, config.buckets),
        _validation(config, EncodedDataset(validation, encoder.cache), accelerator),
        states,
        accelerator,
    )
    with states.locked() if accelerator.is_main_process else nullcontext():
        return trainer.run()


def _encode(examples: Sequence[Example], encoder: ExampleEncoder, accelerator: Accelerator) -> list[EncodedExample]:
    """Encode the share of this process; once all have done theirs, everything is in the cache."""
    mine = examples[accelerator.process_index :: accelerator.num_processes]
    for number, example in enumerate(mine, 1):
        encoder.encode(example)
        if accelerator.is_main_process and (number % 100 == 0 or number == len(mine)):
            logger.info("encoded %d of %d examples", number, len(mine), extra={"action": "encoded"})
    accelerator.wait_for_everyone()
    return [encoder.encode(example) for example in examples]


def _validation(config: TrainConfig, dataset: EncodedDataset, accelerator: Accelerator) -> Validation | None:
    return Validation(dataset, config.checkpoint, config.samples, accelerator) if len(dataset) else None


def _check_weights(config: TrainConfig, examples: Sequence[Example]) -> None:
    tasks = {example.line.task for example in examples}
    for task in config.weights:
        if task not in tasks:
            raise InvalidTrainingConfig("no example is of this task", f"weights.{task}", "Leave it out")
    if not any(config.weights.get(task, 1.0) for task in tasks):
        raise InvalidTrainingConfig("all tasks have weight 0", "weights", "Give one of them more")


def _dtype(config: TrainConfig) -> torch.dtype:
    if config.precision == "auto":
        return torch.bfloat16 if torch.cuda.is_available() else torch.float32
    return torch.bfloat16 if config.precision == "bfloat16" else torch.float32
