"""Files of results over HTTP: whole or in part, from the storage as they are read."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator

from fastapi import Request
from fastapi.responses import Response, StreamingResponse
from omnifleet_shared.content_types import CONTENT_TYPES
from omnifleet_shared.schema import results as records
from omnifleet_shared.schema.results import Artifact, VideoArtifact
from omnifleet_shared.storage import Storage
from omnifleet_shared.storage.base import ByteStream

CHUNK = 256 * 1024
"""Bytes that are read at once."""
RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


async def send_file(request: Request, storage: Storage, stored: Artifact | VideoArtifact, name: str) -> Response:
    """Answer with a file that a job made, or the part of it that `Range` asks for.

    Args:
        request: of the caller.
        storage: where the file is.
        stored: which one.
        name: to save it under, without its suffix: ASCII letters, digits and `-`.

    Raises:
        MediaNotFound: it was deleted since.
        StorageUnavailable, StorageRefused, ForeignURI: the storage.
    """
    headers = _headers(stored, name)
    wanted = request.headers.get("range")
    if request.headers.get("if-range", headers["ETag"]) != headers["ETag"]:
        wanted = None  # of another file than this one
    part = byte_range(wanted, stored.bytes)
    start, end = part or (0, stored.bytes)
    if start >= end:
        return Response(status_code=416, headers=headers | {"Content-Range": f"bytes */{stored.bytes}"})
    if part is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{stored.bytes}"
    headers["Content-Length"] = str(end - start)
    status, kind = (200 if part is None else 206), CONTENT_TYPES[stored.format]
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=kind)
    # Opened before the answer begins: that nothing is there any more is an error of its own.
    stream = await asyncio.to_thread(storage.open, stored.uri, start=start)
    return StreamingResponse(_chunks(stream, end - start), status, headers, kind)


def result_name(record: records.JobResult) -> str:
    """Name what a job made, without a suffix."""
    return f"{record.namespace}-{record.task}-{record.job_id[:8]}"


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Read `Range`: the first byte of the part, and its end, which is not after the start where it lies outside.

    None where there is no range, or several at once, which are not served: HTTP lets a server send the whole then.
    """
    found = RANGE.fullmatch(header.strip()) if header else None
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        return max(size - int(found[2]), 0), size
    if not found[2]:
        return int(found[1]), size
    first, last = int(found[1]), int(found[2])
    return None if last < first else (first, min(last + 1, size))


def _headers(stored: Artifact | VideoArtifact, name: str) -> dict[str, str]:
    return {
        "Accept-Ranges": "bytes",
        "ETag": f'"{stored.sha256}"',
        "Content-Disposition": f'inline; filename="{name}.{stored.format}"',
        "Cache-Control": "private, max-age=31536000, immutable",
    }


async def _chunks(stream: ByteStream, left: int) -> AsyncGenerator[bytes]:
    try:
        while left > 0 and (chunk := await asyncio.to_thread(stream.read, min(CHUNK, left))):
            left -= len(chunk)
            yield chunk
    finally:
        await asyncio.shield(asyncio.to_thread(stream.__exit__, None, None, None))
