"""Makes the pairs that are not there yet, and writes the lists that training reads."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from omnifleet_shared.atomic_file import write_atomically
from omnifleet_shared.errors import InvalidTrainingData
from pydantic import ValidationError

from ..models.audio_omni.sampling import SAMPLE_RATE
from ..models.content_cache import digest
from ..training.examples.data import ExampleLine
from .corpora import find_recordings
from .mixer import mix
from .pair_plan import PairPlan, PairPlanner
from .recipe import PairRecipe

logger = logging.getLogger(__name__)


def make_pairs(recipe: PairRecipe, workers: int = 1) -> list[Path]:
    """Make all pairs of a recipe, or those that an interrupted run left; files that are there are left alone.

    Args:
        recipe: what to make.
        workers: threads that decode and mix.

    Returns:
        The lists, one for each split. A list appears once all of its pairs are there.

    Raises:
        InvalidTrainingData: a corpus.
        MediaError: a recording.
    """
    recordings = find_recordings(recipe.corpora, workers)
    planners = [PairPlanner(recipe, recordings, split) for split in recipe.pairs]
    lists: list[Path] = []
    for planner, (split, count) in zip(planners, recipe.pairs.items(), strict=True):
        lines = [_line(planner.plan(number), f"{split}-{number:06}") for number in range(count)]
        lists.append(recipe.out / f"{split}.jsonl")
        _make_files(lines, recipe.out, workers)
        _write_list(lines, lists[-1])
        logger.info("%d pairs in %s", len(lines), lists[-1], extra={"action": "pairs_made", "split": split})
    return lists


def rebuild_pairs(path: Path, workers: int = 1) -> int:
    """Make the files that a list names and that are gone, from its lines alone; their number is returned.

    Raises:
        InvalidTrainingData: a line is no pair of `make-pairs`, or a recording is not the one it was made of.
        MediaError: a recording.
    """
    return _make_files(list(_read_lines(path)), path.parent, workers)


def _line(plan: PairPlan, name: str) -> ExampleLine:
    made = plan.model_dump(mode="json")
    # Of the plan itself, or a changed recipe would take the files of the one before for its own.
    name = f"{name}-{digest(repr(made)).hex()[:8]}"
    return ExampleLine(
        task=plan.task,
        audio=Path(f"audio/{name}-source.flac"),
        target=Path(f"audio/{name}-target.flac"),
        text=plan.text,
        replaces=plan.replaces,
        seconds=plan.seconds,
        made=made,
    )


def _read_lines(path: Path) -> Iterator[ExampleLine]:
    for number, text in enumerate(path.read_bytes().splitlines(), 1):
        try:
            line = ExampleLine.model_validate_json(text)
            PairPlan.model_validate(line.made)
        except ValidationError as error:
            problem = f"it is no pair that was made: {error.errors()[0]['msg']}"
            raise InvalidTrainingData(problem, f"{path.name}:{number}") from error
        yield line


def _make_files(lines: Sequence[ExampleLine], folder: Path, workers: int) -> int:
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    missing = [line for line in lines if not all((folder / path).exists() for path in _files(line))]
    with ThreadPoolExecutor(workers) as threads:
        try:
            for _ in threads.map(partial(_make, folder), missing):
                pass
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise
    return len(missing)


def _files(line: ExampleLine) -> tuple[Path, Path]:
    assert line.audio is not None
    return line.audio, line.target


def _make(folder: Path, line: ExampleLine) -> None:
    for path, samples in zip(_files(line), mix(PairPlan.model_validate(line.made)), strict=True):
        with write_atomically(folder / path) as file:
            file.write(_flac(samples))


def _flac(samples: NDArray[np.float32]) -> bytes:
    encoded = io.BytesIO()
    soundfile.write(encoded, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return encoded.getvalue()


def _write_list(lines: Sequence[ExampleLine], path: Path) -> None:
    with write_atomically(path) as file:
        for line in lines:
            file.write(line.model_dump_json(exclude_none=True).encode() + b"\n")
