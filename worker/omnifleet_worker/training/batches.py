"""Which examples make up a batch, in an order that follows from the seed alone, and how they are put side by side."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Self

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from ..models.audio_omni.sampling import FRAME_SAMPLES, LATENT_FRAMES, SAMPLE_RATE
from .examples.example_encoder import EncodedExample
from .examples.latent_cache import LatentCache


@dataclass(frozen=True)
class Batch:
    """Examples side by side.

    Attributes:
        tasks: of the B examples.
        context: tokens [B, n, 768], padded with zeros.
        mask: bool [B, n], True where a token is real.
        global_tokens: [B, 364, 768].
        latents: clean, [B, 64, frames].
    """

    tasks: tuple[str, ...]
    context: Tensor
    mask: Tensor
    global_tokens: Tensor
    latents: Tensor

    def to(self, device: torch.device) -> Self:
        """Copy it to the device."""
        tensors = (self.context, self.mask, self.global_tokens, self.latents)
        return type(self)(self.tasks, *(tensor.to(device) for tensor in tensors))


@dataclass(frozen=True)
class Row:
    """One example's tensors: context [n, 768], global tokens [364, 768], latents [64, frames]."""

    task: str
    context: Tensor
    global_tokens: Tensor
    latents: Tensor


class EncodedDataset(Dataset[Row]):
    """Reads encoded examples from the cache.

    Args:
        examples: their names in it.
        cache: that holds them.
        buckets: seconds; an example is cut to the shortest one that it fits in.
    """

    def __init__(self, examples: Sequence[EncodedExample], cache: LatentCache, buckets: Sequence[float] = ()) -> None:
        self.examples = examples
        self._cache = cache
        self._frames = sorted({min(frames_of(seconds), LATENT_FRAMES) for seconds in buckets} | {LATENT_FRAMES})

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Row:
        """Read one example."""
        one, read = self.examples[index], self._cache.read
        return Row(
            task=one.task,
            context=torch.cat([read(one.prompt), read(one.speech)]),
            global_tokens=torch.cat([read(one.sync), read(one.audio)]),
            latents=read(one.latents)[:, : self.frames(index)],
        )

    def frames(self, index: int) -> int:
        """Frames of the bucket that the example is in."""
        return self._frames[bisect_left(self._frames, min(frames_of(self.examples[index].seconds), LATENT_FRAMES))]


def frames_of(seconds: float) -> int:
    """Latent frames that hold so many seconds."""
    return -int(-seconds * SAMPLE_RATE // FRAME_SAMPLES)


def collate(rows: Sequence[Row]) -> Batch:
    """Put examples of one bucket side by side."""
    lengths = torch.tensor([len(row.context) for row in rows])
    context = pad_sequence([row.context for row in rows], batch_first=True)
    return Batch(
        tasks=tuple(row.task for row in rows),
        context=context,
        mask=torch.arange(context.shape[1]) < lengths[:, None],
        global_tokens=torch.stack([row.global_tokens for row in rows]),
        latents=torch.stack([row.latents for row in rows]),
    )


class MixedBatches:
    """Draws tasks by weight, of each its examples in shuffled rounds, and fills the batches of each bucket. Endless.

    Args:
        dataset: what to draw from.
        weights: by task; 1 for those that are not named.
        batch_size: examples of a batch.
        seed: everything that is drawn follows from it.
    """

    def __init__(self, dataset: EncodedDataset, weights: Mapping[str, float], batch_size: int, seed: int) -> None:
        self._dataset = dataset
        self._batch_size = batch_size
        self._seed = seed
        self._by_task: dict[str, list[int]] = defaultdict(list)
        for index, example in enumerate(dataset.examples):
            self._by_task[example.task].append(index)
        self._weights = {task: weights.get(task, 1.0) for task in self._by_task}

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the indexes of each batch's examples, from the first batch on."""
        draws = random.Random(self._seed)
        rounds = {task: self._rounds(task) for task in self._by_task}
        waiting: dict[int, list[int]] = defaultdict(list)
        while True:
            (task,) = draws.choices(list(self._weights), list(self._weights.values()))
            index = next(rounds[task])
            batch = waiting[self._dataset.frames(index)]
            batch.append(index)
            if len(batch) == self._batch_size:
                yield batch.copy()
                batch.clear()

    def _rounds(self, task: str) -> Iterator[int]:
        indexes = self._by_task[task]
        for number in count():
            yield from random.Random(f"{self._seed} {task} {number}").sample(indexes, len(indexes))


class _Part:
    """Every `stride`-th of endless batches, from `start` on."""

    def __init__(self, batches: MixedBatches, start: int, stride: int) -> None:
        self._batches, self._start, self._stride = batches, start, stride

    def __iter__(self) -> Iterator[list[int]]:
        return islice(iter(self._batches), self._start, None, self._stride)


def load_batches(
    dataset: EncodedDataset, batches: MixedBatches, *, start: int, stride: int, workers: int
) -> Iterator[Batch]:
    """Read batches number `start`, `start + stride` and so on, ahead of their use where there are workers."""
    part = _Part(batches, start, stride)
    loader: DataLoader[Batch] = DataLoader(dataset, batch_sampler=part, collate_fn=collate, num_workers=workers)  # type: ignore[arg-type]
    yield from loader
