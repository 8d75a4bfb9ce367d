"""Bytes that are kept in storage behind a hash, which tells whether they are whole and of what they are asked for."""

from __future__ import annotations

import hashlib


def seal(body: bytes, fingerprint: str) -> bytes:
    """Put a hash of the bytes, and of the fingerprint of what they were made of, before them."""
    return _hash(body, fingerprint) + body


def unseal(data: bytes, fingerprint: str) -> bytes | None:
    """Return the bytes that `seal` was given; None where they are damaged, or of another fingerprint."""
    length = hashlib.sha256().digest_size
    found, body = data[:length], data[length:]
    return body if found == _hash(body, fingerprint) else None


def _hash(body: bytes, fingerprint: str) -> bytes:
    return hashlib.sha256(fingerprint.encode() + body).digest()
