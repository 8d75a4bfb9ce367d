"""What a training run is to do: a YAML file, read strictly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from omnifleet_shared.errors import InvalidTrainingConfig
from omnifleet_shared.schema.base import Record
from pydantic import Field, ValidationError

LORA_TARGETS = ("to_qkv", "to_q", "to_kv", "to_out", "net.0.proj", "net.2")
"""Every linear layer of a block: both attentions and the feed-forward."""

Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


class LoraOptions(Record):
    """Which low-rank matrices are trained beside the frozen weights."""

    rank: Count = 16
    alpha: Count = 16
    """Their product is scaled by `alpha / rank`."""
    dropout: Share = 0.0
    """Share of a layer's inputs that the matrices do not see in a step."""
    target_modules: Annotated[tuple[str, ...], Field(min_length=1)] = LORA_TARGETS
    """Ends of the names of the layers that get them."""


class SampleOptions(Record):
    """What is made to be listened to at each validation, always from the same noise."""

    count: Annotated[int, Field(ge=0)] = 2
    """Validation examples, from the first one on."""
    steps: Count = 25
    guidance: Positive = 7.0
    seed: int = 0


class TrainConfig(Record):
    """A training run. Relative paths are taken from the folder of the file."""

    checkpoint: Path
    """Folder of the checkpoint whose DiT is trained; it is only read."""
    out: Path
    """Folder of the run: states, logs, and the adapter or the transformer."""
    train: Annotated[tuple[Path, ...], Field(min_length=1)]
    """JSON Lines of examples."""
    validation: tuple[Path, ...] = ()
    """JSON Lines of examples that nothing is learned from."""
    cache: Path | None = None
    """Folder of what was encoded, which runs may share; `cache` below `out` by default."""
    weights: Mapping[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """How often each task is drawn beside the others, whose weight is 1."""

    method: Literal["lora", "full"] = "lora"
    lora: LoraOptions = LoraOptions()
    """Read by the method `lora`."""
    steps: Count
    """Steps of the optimizer in all; a finished run goes on where a larger number is given."""
    batch_size: Count = 4
    """Examples of a batch, on each process."""
    gradient_accumulation: Count = 1
    """Batches of one step."""
    buckets: tuple[Positive, ...] = ()
    """Seconds; a batch holds examples of one bucket, and computes no more than its length. By default all have the
    whole window, as clips are made."""
    learning_rate: Positive = 1e-4
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    """Steps in which the learning rate rises to what it stays at."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_gradient_norm: Positive = 1.0
    unconditional_share: Share = 0.1
    """Share of examples that are learned without their text, for guidance."""
    time_shift: Positive = 1.0
    """1 draws all times alike; above, more of them near the noise: t = s u / (1 + (s - 1) u)."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of the averaged weights, which are validated and exported in place of the last ones; none by default."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """What is computed in; `auto` is bfloat16 on a GPU. Trained weights are float32 always."""
    gradient_checkpointing: bool = False
    """Compute each block twice, and keep nothing of its inside."""
    loader_workers: Annotated[int, Field(ge=0)] = 0
    """Processes that read encoded examples ahead."""
    seed: int = 0

    save_every: Count = 500
    """Steps between states that the run can go on from; the last two are kept."""
    validate_every: Count = 500
    samples: SampleOptions = SampleOptions()

    @property
    def cache_folder(self) -> Path:
        """Where encodings are kept."""
        return self.cache or self.out / "cache"

    def recipe(self) -> dict[str, Any]:
        """What the numbers of a run follow from, beside its data: a state is gone on from under the same one alone."""
        places = {"checkpoint", "out", "train", "validation", "cache"}
        changeable = {"steps", "save_every", "validate_every", "samples", "loader_workers"}
        return self.model_dump(mode="json", exclude=places | changeable)


def read_config(path: Path) -> TrainConfig:
    """Read a run's YAML file.

    Raises:
        InvalidTrainingConfig: it cannot be read, is no YAML, or a field is wrong; the error names it.
    """
    try:
        values = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise InvalidTrainingConfig(f"{path} cannot be read: {error.strerror}", "config") from error
    except yaml.YAMLError as error:
        raise InvalidTrainingConfig(f"{path} is no YAML: {' '.join(str(error).split())}", "config") from error
    try:
        return _below(path.parent, TrainConfig.model_validate(values))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "config"
        raise InvalidTrainingConfig(first["msg"], field, f"Correct it in {path}") from error


def _below(folder: Path, config: TrainConfig) -> TrainConfig:
    places = {
        "checkpoint": folder / config.checkpoint,
        "out": folder / config.out,
        "train": tuple(folder / path for path in config.train),
        "validation": tuple(folder / path for path in config.validation),
        "cache": None if config.cache is None else folder / config.cache,
    }
    return config.model_copy(update=places)
