"""Messages between the worker and the processes that decode: a small JSON header, and large things as shared memory.

Nothing is pickled, for the other side reads what strangers sent. Memory files go away with their last descriptor, so
that a crash leaves nothing behind, and need no room in /dev/shm, of which containers have 64 MB.
"""

from __future__ import annotations

import json
import mmap
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Buffer = bytes | NDArray[Any]
"""What is sent beside the header."""

LARGEST_HEADER = 128 * 1024
MOST_BUFFERS = 2
_TYPES = ("float32", "float64", "int16", "uint8")


class ChannelClosed(Exception):
    """The other side is gone, or sent what is no message."""


def pair() -> tuple[socket.socket, socket.socket]:
    """Make the two ends of a channel, on which every message comes whole."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(channel: socket.socket, header: Mapping[str, Any], buffers: Sequence[Buffer] = ()) -> None:
    """Send a message. Raises ChannelClosed, and MemoryError where there is no memory for a copy of the buffers."""
    files: list[int] = []
    try:
        files.extend(map(_memory_file, buffers))
        message = json.dumps({"header": header, "buffers": [_form(one) for one in buffers]}).encode()
        socket.send_fds(channel, [message], files)
    except TimeoutError:
        raise
    except OSError as error:
        raise ChannelClosed(str(error)) from error
    finally:
        for file in files:
            os.close(file)


def receive(channel: socket.socket) -> tuple[dict[str, Any], list[Buffer]]:
    """Wait for a message. Raises ChannelClosed, and TimeoutError by the channel's timeout."""
    try:
        message, files, _, _ = socket.recv_fds(channel, LARGEST_HEADER, MOST_BUFFERS)
    except TimeoutError:
        raise
    except OSError as error:
        raise ChannelClosed(str(error)) from error
    try:
        found = json.loads(message)
        return found["header"], [_read(file, form) for file, form in zip(files, found["buffers"], strict=True)]
    except (ValueError, TypeError, KeyError) as error:  # an empty message is the other side's end
        raise ChannelClosed(str(error)) from error
    finally:
        for file in files:
            os.close(file)


def _form(buffer: Buffer) -> dict[str, Any] | None:
    return None if isinstance(buffer, bytes) else {"type": buffer.dtype.name, "shape": list(buffer.shape)}


def _memory_file(buffer: Buffer) -> int:
    file = os.memfd_create("omnifleet-media", os.MFD_CLOEXEC)
    content: Any = buffer if isinstance(buffer, bytes) else np.ascontiguousarray(buffer).reshape(-1).view(np.uint8)
    left = memoryview(content)
    try:
        while left:
            left = left[os.write(file, left) :]
    except BaseException:
        os.close(file)
        raise
    return file


def _read(file: int, form: Mapping[str, Any] | None) -> Buffer:
    size = os.fstat(file).st_size
    if form is None:
        return os.pread(file, size, 0) if size < 2**30 else _mapped(file, size)[:]
    if form["type"] not in _TYPES:
        raise ValueError(f"no numbers of the type {form['type']!r} are sent")
    if not size:
        return np.zeros(form["shape"], form["type"])
    # Private: pages are shared until somebody writes to them.
    return np.frombuffer(_mapped(file, size), form["type"]).reshape(form["shape"])


def _mapped(file: int, size: int) -> mmap.mmap:
    return mmap.mmap(file, size, access=mmap.ACCESS_COPY)
