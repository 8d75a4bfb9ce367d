"""Work beside the main stream of a GPU. On a CPU all of it is plain work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class SideStream:
    """A stream of its own for one thread, so that its kernels run beside those of the engine's steps.

    Args:
        device: where the work is done.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    @contextmanager
    def working(self) -> Iterator[None]:
        """Do the block's work on the stream, and return once the device has done it."""
        if self._stream is None:
            yield
            return
        # What it reads was made on the main stream, perhaps a moment ago.
        self._stream.wait_stream(torch.cuda.default_stream(self._stream.device))
        with torch.cuda.stream(self._stream):
            yield
        self._stream.synchronize()

    def lend(self, tensors: Iterable[Tensor]) -> None:
        """Tensors of the main stream are read on this one: their memory is not used again before that is done."""
        if self._stream is not None:
            for tensor in tensors:
                tensor.record_stream(self._stream)

    def hand_over(self, tensors: Iterable[Tensor]) -> None:
        """Tensors of this stream are read on the main one from now on; as `lend`."""
        if self._stream is not None:
            for tensor in tensors:
                tensor.record_stream(torch.cuda.default_stream(self._stream.device))


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
