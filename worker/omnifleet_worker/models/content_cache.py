"""What was made of some content, kept by that content: no voice, video or prompt is encoded twice."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Generic, TypeVar

import numpy as np

Digest = bytes
T = TypeVar("T")


@dataclass(frozen=True)
class CacheFigures:
    """What a cache did so far."""

    hits: int
    misses: int
    bytes: int
    """Held now."""


class ContentCache(Generic[T]):
    """What was made of some content, by that content. Safe to use from several threads; the oldest use goes first.

    Args:
        max_bytes: of everything together; 0 keeps nothing.
        size: bytes of one thing.
    """

    def __init__(self, max_bytes: int, size: Callable[[T], int]) -> None:
        self._max_bytes = max_bytes
        self._size = size
        self._kept: OrderedDict[Digest, T] = OrderedDict()
        self._lock = threading.Lock()
        self._hits = self._misses = self._bytes = 0

    @property
    def figures(self) -> CacheFigures:
        """Hits, misses and size so far."""
        with self._lock:
            return CacheFigures(self._hits, self._misses, self._bytes)

    def get(self, kind: str, content: object, make: Callable[[], T]) -> T:
        """What is made of the content, now where it is not kept. What `make` raises is raised, and not kept.

        Args:
            kind: what is made; different things may be made of the same content.
            content: text, arrays, numbers, None, and dataclasses and tuples of them.
            make: makes it.
        """
        key = digest((kind, content))
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
                self._hits += 1
                return kept
        made = make()
        self._keep(key, made)
        return made

    def _keep(self, key: Digest, made: T) -> None:
        with self._lock:
            self._misses += 1
            if key in self._kept:  # another thread was as quick
                return
            self._kept[key] = made
            self._bytes += self._size(made)
            while self._bytes > self._max_bytes:
                _, oldest = self._kept.popitem(last=False)
                self._bytes -= self._size(oldest)


def digest(content: object) -> Digest:
    """A hash that equal contents share, and others do not."""
    hashed = hashlib.blake2b(digest_size=32)
    _feed(hashed, content)
    return hashed.digest()


def _feed(hashed: hashlib.blake2b, content: object) -> None:
    """Every part behind its type and size, so that parts cannot be taken for one another."""
    if isinstance(content, np.ndarray):
        _feed(hashed, (str(content.dtype), *content.shape))
        hashed.update(np.ascontiguousarray(content).data)
    elif isinstance(content, tuple):
        hashed.update(b"(%d" % len(content))
        for part in content:
            _feed(hashed, part)
    elif is_dataclass(content):
        _feed(hashed, tuple(getattr(content, field.name) for field in fields(content)))
    else:
        said = repr(content).encode()
        hashed.update(b"%d:" % len(said) + said)
