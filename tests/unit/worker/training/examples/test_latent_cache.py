"""What is encoded once is read from then on, and half a file counts as none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from omnifleet_worker.training.examples.latent_cache import LatentCache


@pytest.fixture
def cache(tmp_path: Path) -> LatentCache:
    return LatentCache(tmp_path, "a checkpoint")


def refuse() -> torch.Tensor:
    raise AssertionError("encoded again")


def test_content_is_encoded_once(cache: LatentCache, tmp_path: Path) -> None:
    key = cache.key("prompt", ("a system", "a question", None))
    cache.fill(key, lambda: torch.arange(6.0).reshape(2, 3))

    again = LatentCache(tmp_path, "a checkpoint")
    again.fill(again.key("prompt", ("a system", "a question", None)), refuse)

    assert torch.equal(again.read(key), torch.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize(
    "other", [("speech", "rain", "a checkpoint"), ("prompt", "snow", "a checkpoint"), ("prompt", "rain", "b")]
)
def test_other_content_kind_or_checkpoint_is_another_key(
    cache: LatentCache, tmp_path: Path, other: tuple[str, str, str]
) -> None:
    kind, content, scope = other

    assert LatentCache(tmp_path, scope).key(kind, content) != cache.key("prompt", "rain")


@pytest.mark.parametrize("left", [0, 5, 60])
def test_a_damaged_file_is_made_again(cache: LatentCache, tmp_path: Path, left: int) -> None:
    key = cache.key("prompt", "rain")
    cache.fill(key, lambda: torch.ones(100))
    (path,) = tmp_path.glob("*/*.safetensors")
    path.write_bytes(path.read_bytes()[:left])

    cache.fill(key, lambda: torch.ones(100))

    assert torch.equal(cache.read(key), torch.ones(100))


def test_an_encoding_that_fails_leaves_nothing(cache: LatentCache, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="encoded again"):
        cache.fill(cache.key("prompt", "rain"), refuse)

    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
