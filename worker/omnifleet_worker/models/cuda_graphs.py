"""Calls that the host issues as one: captured as a CUDA graph for each shape, replayed from then on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

_capturing = threading.Lock()
"""One capture at a time in the process: they share the random generator's capture state."""


class CudaGraph:
    """One call of a function, captured with tensors of fixed shapes. Made by `CudaGraphs`.

    Args:
        function: of tensors, to a tensor or a tuple of them. It must not look at their values on the host; what it
            reads and writes besides its arguments (weights, caches) has the same addresses at every replay. Capturing
            calls it once for nothing, so that what it writes must be the same the second time.
        inputs: as they are to be in every call; copied into buffers of the graph's own.
        stream: captured on; no other graph that is captured on it may be replayed at the same time.
        pool: of memory, shared with graphs that are replayed one after another.
    """

    def __init__(
        self, function: Callable[..., Any], inputs: tuple[Tensor, ...], stream: torch.cuda.Stream, pool: Any
    ) -> None:
        self._inputs = tuple(one.clone() for one in inputs)
        self._graph = torch.cuda.CUDAGraph()
        current = torch.cuda.current_stream()
        stream.wait_stream(current)
        with _capturing, torch.cuda.stream(stream):
            # Kernels are loaded, tuned and given their workspaces now: none of that may happen during the capture.
            function(*self._inputs)
            stream.synchronize()
            # Other threads go on allocating and copying meanwhile; by default that would end the capture.
            self._graph.capture_begin(pool=pool, capture_error_mode="thread_local")
            try:
                self._output = function(*self._inputs)
            finally:
                self._graph.capture_end()
        current.wait_stream(stream)

    def replay(self, *inputs: Tensor) -> Any:
        """Run the call with other values of the inputs, on the current stream.

        Returns the graph's own output: the next replay overwrites it.
        """
        for own, value in zip(self._inputs, inputs, strict=True):
            own.copy_(value, non_blocking=True)
        self._graph.replay()
        return self._output


class CudaGraphs:
    """A function whose calls are captured, one graph for each shape of its inputs. On a CPU it is the plain function.

    The graphs share one stream and one memory pool, so calls must follow one another, and what a call returns must be
    used before the next one. Functions that run beside each other need a `CudaGraphs` each: two graphs captured on one
    stream and replayed on two at once share cuBLAS's workspace, and hung the device (measured on an H100).

    Args:
        function: see `CudaGraph`; it takes tensors, then keyword arguments that are hashable.
        device: of its tensors.
    """

    def __init__(self, function: Callable[..., Any], device: torch.device) -> None:
        self._function = function
        self._captured: dict[Hashable, CudaGraph] = {}
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None

    def __call__(self, *inputs: Tensor, **fixed: Hashable) -> Any:
        """Call the function, from the second time with the same shapes and keyword arguments on as a replay.

        Args:
            inputs: tensors of the device; their values may differ from call to call.
            fixed: handed to the function as they are, and part of what a graph is chosen by.
        """
        if self._stream is None:
            return self._function(*inputs, **fixed)
        key = (tuple((one.shape, one.dtype) for one in inputs), tuple(sorted(fixed.items())))
        graph = self._captured.get(key)
        if graph is None:
            graph = CudaGraph(lambda *tensors: self._function(*tensors, **fixed), inputs, self._stream, self._pool)
            self._captured[key] = graph
        return graph.replay(*inputs)
