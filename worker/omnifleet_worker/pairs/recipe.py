"""What pairs are to be made of which recordings: a YAML file, read strictly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from omnifleet_shared.errors import InvalidTrainingConfig
from omnifleet_shared.schema.base import Record
from pydantic import Field, ValidationError, model_validator

Split = Literal["train", "validation", "test"]
PairTask = Literal["add", "remove", "extract", "style"]
CorpusKind = Literal["folder", "esc50", "fsd50k", "musan"]
Decibels = Annotated[float, Field(ge=-60, le=60)]


_ALL_ALIKE: Mapping[PairTask, float] = {"add": 1.0, "remove": 1.0, "extract": 1.0, "style": 1.0}


class Corpus(Record):
    """Recordings with tags, as their publishers' archives unpack."""

    kind: CorpusKind
    """`folder`: any, with one subfolder for each tag."""
    folder: Path


class Levels(Record):
    """How loud the named sound is beside the other one, in dB: drawn from a normal distribution, and cut off."""

    mean: Decibels = 0.0
    deviation: Annotated[float, Field(ge=0, le=60)] = 6.0
    least: Decibels = -10.0
    most: Decibels = 15.0

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.least > self.most:
            raise ValueError("least is above most")
        return self


class PairRecipe(Record):
    """The pairs of one data set. Relative paths are taken from the folder of the file."""

    out: Path
    """Folder of the lists and of `audio`."""
    corpora: Annotated[tuple[Corpus, ...], Field(min_length=1)]
    pairs: Annotated[Mapping[Split, Annotated[int, Field(ge=1)]], Field(min_length=1)]
    """How many of each split, made of that split's recordings alone."""
    tasks: Annotated[Mapping[PairTask, Annotated[float, Field(gt=0)]], Field(min_length=1)] = Field(
        default_factory=lambda: _ALL_ALIKE
    )
    """How often each is drawn beside the others."""
    seconds: tuple[Annotated[float, Field(ge=0.5)], Annotated[float, Field(le=10)]] = (2.0, 10.0)
    """Shortest and longest pair."""
    snr: Levels = Levels()
    gain_db: Annotated[float, Field(ge=0, le=20)] = 6.0
    """Most by which a pair is louder or quieter than -26 dB of full scale."""
    speed: Annotated[float, Field(ge=0, lt=0.5)] = 0.05
    """Most by which a recording is played faster or slower, as a share."""
    seed: int = 0

    @model_validator(mode="after")
    def _seconds_in_order(self) -> Self:
        if self.seconds[0] > self.seconds[1]:
            raise ValueError("seconds: the shortest is longer than the longest")
        return self


def read_recipe(path: Path) -> PairRecipe:
    """Read a recipe's YAML file. Raises InvalidTrainingConfig, naming the field."""
    try:
        recipe = PairRecipe.model_validate(yaml.safe_load(path.read_bytes()))
    except OSError as error:
        raise InvalidTrainingConfig(f"{path} cannot be read: {error.strerror}", "recipe") from error
    except yaml.YAMLError as error:
        raise InvalidTrainingConfig(f"{path} is no YAML: {' '.join(str(error).split())}", "recipe") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "recipe"
        raise InvalidTrainingConfig(first["msg"], field, f"Correct it in {path}") from error
    corpora = tuple(one.model_copy(update={"folder": path.parent / one.folder}) for one in recipe.corpora)
    return recipe.model_copy(update={"out": path.parent / recipe.out, "corpora": corpora})
