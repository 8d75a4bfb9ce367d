"""Encodings on disk, under a hash of what they are made of: nothing is encoded twice, by whichever run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from omnifleet_shared.atomic_file import write_atomically
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from ...models.content_cache import digest

_TENSOR = "encoding"


class LatentCache:
    """A folder of safetensors, one for each encoding. Several processes may fill it at once.

    Args:
        folder: made if need be.
        scope: what all keys depend on besides: the checkpoint that encodes, and its dtype.
    """

    def __init__(self, folder: Path, scope: str) -> None:
        self._folder = folder
        self._scope = scope

    def key(self, kind: str, content: object) -> str:
        """The name of what is made of some content: text, numbers, None, and tuples of them."""
        return digest((self._scope, kind, content)).hex()

    def fill(self, key: str, make: Callable[[], Tensor]) -> None:
        """Make and write the encoding, unless it is there whole; a reader never sees half of it."""
        if not self._is_whole(key):
            path = self._path(key)
            path.parent.mkdir(parents=True, exist_ok=True)
            with write_atomically(path) as file:
                file.write(save({_TENSOR: make().detach().cpu().contiguous().clone()}))

    def read(self, key: str) -> Tensor:
        """Read what `fill` wrote."""
        return load_file(self._path(key))[_TENSOR]

    def _is_whole(self, key: str) -> bool:
        try:
            self.read(key)
        except (FileNotFoundError, SafetensorError, KeyError):  # a disk that failed may have left anything
            return False
        return True

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.safetensors"


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
