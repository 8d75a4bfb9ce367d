"""Caches encodings by the content they are made of: no voice, video or prompt is encoded twice."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from typing import Generic, TypeVar

import numpy as np
from cachetools import LRUCache

Digest = bytes
T = TypeVar("T")


@dataclass(frozen=True)
class CacheFigures:
    """Counts of a cache so far."""

    hits: int
    misses: int
    bytes: int
    """Size of all values that are cached now."""


class ContentCache(Generic[T]):
    """Caches what is made of some content, keyed by that content; the least recently used goes first. Thread-safe.

    Args:
        max_bytes: of all values together; 0 keeps nothing.
        size: returns the bytes of one value.
    """

    def __init__(self, max_bytes: int, size: Callable[[T], int]) -> None:
        self._cached: LRUCache[Digest, T] = LRUCache(max_bytes, size)
        self._lock = threading.Lock()
        self._hits = self._misses = 0

    @property
    def figures(self) -> CacheFigures:
        """Hits, misses and size so far."""
        with self._lock:
            return CacheFigures(self._hits, self._misses, int(self._cached.currsize))

    def get(self, kind: str, content: object, make: Callable[[], T]) -> T:
        """Return what is made of the content, cached or made now. What `make` raises is raised, and not cached.

        Args:
            kind: what is made; different things may be made of the same content.
            content: text, arrays, numbers, None, and tuples and dataclasses of them, of which the fields count that are
                compared.
            make: makes it.
        """
        key = digest((kind, content))
        with self._lock:
            cached = self._cached.get(key)
            if cached is not None:
                self._hits += 1
                return cached
        made = make()
        with self._lock, suppress(ValueError):  # raised where it alone is larger than the cache
            self._misses += 1
            self._cached.setdefault(key, made)
        return made


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
        _feed(hashed, tuple(getattr(content, field.name) for field in fields(content) if field.compare))
    else:
        text = repr(content).encode()
        hashed.update(b"%d:" % len(text) + text)
