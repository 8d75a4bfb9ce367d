"""What one pair is made of: drawn from the seed and the pair's number alone, and enough to make it again."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from omnifleet_shared.errors import InvalidTrainingData
from omnifleet_shared.schema.base import Record, Sha256

from .corpora import Recording
from .recipe import PairRecipe, PairTask, Split

WORDINGS = ("{tag}", "the sound of {tag}", "{tag} sounds", "some {tag}")
"""How a tag is said; the checkpoint's own sentence goes around it."""


class Ingredient(Record):
    """A stretch of a recording."""

    path: Path
    sha256: Sha256
    speed: float
    """That it is played at."""
    place: float
    """Where it lies in a longer pair: 0 at its beginning, 1 at its end."""


class PairPlan(Record):
    """A pair: the sound that the text names, and another one."""

    task: PairTask
    named: Ingredient
    other: Ingredient
    seconds: float
    snr_db: float
    """Level of the named sound over the other's."""
    level_db: float
    """Level of the other sound, of full scale."""
    text: str
    replaces: str | None = None


class PairPlanner:
    """Draws the pairs of one split from its recordings.

    Args:
        recipe: how they are drawn.
        recordings: of all splits.
        split: whose recordings are used.

    Raises:
        InvalidTrainingData: the split has recordings of fewer than two tags.
    """

    def __init__(self, recipe: PairRecipe, recordings: Sequence[Recording], split: Split) -> None:
        self._recipe = recipe
        self._split = split
        self._by_tag: dict[str, list[Recording]] = defaultdict(list)
        for one in recordings:
            if one.split == split:
                self._by_tag[one.tag].append(one)
        if len(self._by_tag) < 2:
            problem = f"{split} has recordings of {len(self._by_tag)} tags, and a pair is made of two"
            raise InvalidTrainingData(problem, "corpora", "Add recordings, or ask for no pairs of this split")

    def plan(self, number: int) -> PairPlan:
        """Draw pair number `number`, from 0; the others' draws are not needed for it."""
        recipe = self._recipe
        draws = np.random.default_rng([recipe.seed, zlib.crc32(self._split.encode()), number])
        shares = np.array(list(recipe.tasks.values()))
        task = list(recipe.tasks)[draws.choice(len(shares), p=shares / shares.sum())]
        tags = sorted(self._by_tag)
        named, other = (tags[index] for index in draws.choice(len(tags), 2, replace=False))
        snr = draws.normal(recipe.snr.mean, recipe.snr.deviation)
        return PairPlan(
            task=task,
            named=self._ingredient(named, draws),
            other=self._ingredient(other, draws),
            seconds=round(float(draws.uniform(*recipe.seconds)), 2),
            snr_db=round(float(np.clip(snr, recipe.snr.least, recipe.snr.most)), 2),
            level_db=round(float(-26 + draws.uniform(-recipe.gain_db, recipe.gain_db)), 2),
            text=_worded(named, draws),
            replaces=_worded(other, draws) if task == "style" else None,
        )

    def _ingredient(self, tag: str, draws: np.random.Generator) -> Ingredient:
        recording = self._by_tag[tag][draws.integers(len(self._by_tag[tag]))]
        speed = 1 + draws.uniform(-self._recipe.speed, self._recipe.speed)
        return Ingredient(
            path=recording.path.absolute(),
            sha256=recording.sha256,
            speed=round(float(speed), 4),
            place=round(float(draws.uniform()), 4),
        )


def _worded(tag: str, draws: np.random.Generator) -> str:
    return WORDINGS[draws.integers(len(WORDINGS))].format(tag=tag)
