"""Work beside the main stream of a GPU. On a CPU all of it is plain work."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Self

import torch
from torch import Tensor


class LaunchedWork:
    """What a block launches on the current stream; on a CPU it is done when the block ends.

    Args:
        device: that does it.
    """

    def __init__(self, device: torch.device) -> None:
        events = device.type == "cuda"
        # Whoever waits lets other threads have the processor meanwhile.
        self._start, self.end = (
            torch.cuda.Event(enable_timing=True, blocking=True) if events else None for _ in range(2)
        )
        self._seconds = 0.0

    def __enter__(self) -> Self:
        self._seconds = -time.perf_counter()
        if self._start is not None:
            self._start.record()
        return self

    def __exit__(self, *_: object) -> None:
        if self.end is not None:
            self.end.record()
        self._seconds += time.perf_counter()

    @property
    def done(self) -> bool:
        """Whether the device has done all of it."""
        return self.end is None or self.end.query()

    def wait(self) -> float:
        """Wait until the device has done it; the seconds from its first kernel's start to its last one's end."""
        if self._start is None or self.end is None:
            return self._seconds
        self.end.synchronize()
        return self._start.elapsed_time(self.end) / 1000


class SideStream:
    """A stream of its own for one thread, so that its kernels run beside those of the engine's steps.

    Args:
        device: where the work is done.
        urgent: its kernels are the next ones to start, whenever there is room for one. For short work, which would
            wait for large kernels of the steps else.
    """

    def __init__(self, device: torch.device, *, urgent: bool = False) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device, priority=-1 if urgent else 0) if device.type == "cuda" else None

    @contextmanager
    def working(self, after: Iterable[LaunchedWork] = ()) -> Iterator[LaunchedWork]:
        """Do the block's work on the stream, and return once the device has done it.

        Args:
            after: work of other streams whose outcome is read, and which may not be done yet.
        """
        if self._stream is None:
            with LaunchedWork(self._device) as work:
                yield work
            return
        for other in after:
            if other.end is not None:
                self._stream.wait_event(other.end)
        with torch.cuda.stream(self._stream), LaunchedWork(self._device) as work:
            yield work
        work.wait()

    def lend(self, tensors: Iterable[Tensor]) -> None:
        """Tensors of another stream are read on this one: their memory is not used again before that is done."""
        if self._stream is not None:
            for tensor in tensors:
                tensor.record_stream(self._stream)

    def hand_over(self, tensors: Iterable[Tensor], to: SideStream | None = None) -> None:
        """Tensors of this stream are read on another from now on, the main one by default; as `lend`."""
        if self._stream is not None:
            stream = (to and to._stream) or torch.cuda.default_stream(self._device)
            for tensor in tensors:
                tensor.record_stream(stream)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy from the host without waiting for the copy: from pinned memory, where the device is a GPU."""
    if device.type != "cuda":
        return tensor.to(device)
    # Pinning keeps the strides, and cannot write to an expanded tensor's memory, which several elements share.
    return tensor.contiguous().pin_memory().to(device, non_blocking=True)


def to_host(tensor: Tensor) -> Tensor:
    """Copy to the host, into pinned memory where the tensor is on a GPU; the stream is to be synchronised after it."""
    if tensor.device.type != "cuda":
        return tensor
    pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return pinned.copy_(tensor, non_blocking=True)
