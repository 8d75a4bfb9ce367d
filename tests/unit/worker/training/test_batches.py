"""Batches follow from the seed alone: mixed by weight, each of one bucket, in rounds, from any batch on."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omnifleet_worker.training.batches import EncodedDataset, MixedBatches, Row, collate, frames_of, load_batches
from omnifleet_worker.training.examples.example_encoder import EncodedExample
from omnifleet_worker.training.examples.latent_cache import LatentCache
from torch import Tensor

PARTS = ("prompt", "speech", "sync", "audio", "latents")


def example(task: str, seconds: float) -> EncodedExample:
    return EncodedExample(task, seconds, *PARTS)


def dataset(*examples: EncodedExample, buckets: tuple[float, ...] = (), folder: Path = Path()) -> EncodedDataset:
    return EncodedDataset(examples, LatentCache(folder, ""), buckets)


MIXED = [example("add", 1.0)] * 3 + [example("t2a", 6.0)] * 5


@given(st.integers(0, 2**63), st.integers(1, 3))
def test_every_batch_is_of_one_bucket_and_every_round_has_each_example_once(seed: int, size: int) -> None:
    data = dataset(*MIXED, buckets=(2.0,))

    drawn = list(islice(MixedBatches(data, {}, size, seed), 30))

    assert {len({data.frames(index) for index in batch}) for batch in drawn} == {1}
    for indexes in ({0, 1, 2}, {3, 4, 5, 6, 7}):
        of_task = [index for batch in drawn for index in batch if index in indexes]
        rounds = [of_task[at : at + len(indexes)] for at in range(0, len(of_task), len(indexes))]
        assert all(set(one) == indexes for one in rounds if len(one) == len(indexes))


def test_tasks_are_drawn_by_their_weights() -> None:
    drawn = islice(MixedBatches(dataset(*MIXED), {"add": 3.0}, 1, seed=1), 4000)

    counts = Counter(MIXED[index].task for batch in drawn for index in batch)

    assert counts["add"] / counts["t2a"] == pytest.approx(3, rel=0.1)


def test_another_seed_is_another_order() -> None:
    one, other = (list(islice(MixedBatches(dataset(*MIXED), {}, 2, seed), 20)) for seed in (1, 2))

    assert one != other


def test_a_bucket_is_the_shortest_that_holds_the_example() -> None:
    data = dataset(*(example("t2a", seconds) for seconds in (0.1, 2.0, 2.1, 10.96, 11.0)), buckets=(2.0, 5.0))

    assert [data.frames(index) for index in range(5)] == [frames_of(2.0), frames_of(2.0), frames_of(5.0), 236, 236]
    assert frames_of(2.0) * 2048 >= 2.0 * 44_100 > (frames_of(2.0) - 1) * 2048


@pytest.fixture
def cached(tmp_path: Path) -> EncodedDataset:
    """Three examples of two lengths, whose latents tell which they are."""
    cache = LatentCache(tmp_path, "")
    sizes = {"prompt": (3, 768), "speech": (2, 768), "sync": (128, 768), "audio": (236, 768)}
    for number in range(3):
        for name, shape in sizes.items():
            cache.fill(f"{name}{number}", lambda shape=shape: torch.ones(shape))
        cache.fill(f"latents{number}", lambda number=number: torch.full((64, 236), float(number)))
    examples = [EncodedExample("t2a", 1.0, *(f"{part}{number}" for part in PARTS)) for number in range(3)]
    return EncodedDataset(examples, cache, (1.0,))


@pytest.mark.parametrize("workers", [0, 1])
def test_processes_share_the_batches_and_a_run_goes_on_at_any(cached: EncodedDataset, workers: int) -> None:
    mixed = MixedBatches(cached, {}, 2, seed=0)
    whole = [[float(index) for index in batch] for batch in islice(mixed, 12)]

    def numbers(start: int) -> list[list[float]]:
        loaded = load_batches(cached, mixed, start=start, stride=2, workers=workers)
        return [batch.latents[:, 0, 0].tolist() for batch in islice(loaded, 4)]

    assert numbers(0) == whole[0:8:2]
    assert numbers(5) == whole[5:12:2]


def test_a_batch_is_padded_to_its_longest_context_and_cut_to_its_bucket(cached: EncodedDataset) -> None:
    short = cached[0]
    long = Row("tts", torch.ones(9, 768), short.global_tokens, short.latents)

    batch = collate([short, long])

    assert batch.tasks == ("t2a", "tts")
    assert batch.mask.tolist() == [[True] * 5 + [False] * 4, [True] * 9]
    assert not batch.context[0, 5:].any()
    assert shapes(batch.context, batch.global_tokens, batch.latents) == [(2, 9, 768), (2, 364, 768), (2, 64, 22)]


def shapes(*tensors: Tensor) -> list[tuple[int, ...]]:
    return [tuple(tensor.shape) for tensor in tensors]
