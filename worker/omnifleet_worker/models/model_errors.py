"""Reads what a model raises: memory that ran out, a device that broke, or an unforeseen error. Needs no torch.

After most errors of a kernel or of the hardware CUDA refuses every further call of the process ("the process must be
terminated and relaunched", as the CUDA runtime's list of errors has it), and torch reports them late, from whatever
call comes next. torch.AcceleratorError, Triton, cuBLAS and cuDNN say which one it was in their text alone.
"""

from __future__ import annotations

import logging
import re

from omnifleet_shared.errors import DeviceFailed, JobFailed, OmnifleetError, OutOfMemory

logger = logging.getLogger(__name__)

_NO_MEMORY = re.compile(r"out of memory|_ALLOC_FAILED|ALLOCATION_FAILED|DefaultCPUAllocator")
"""Of the caching allocator, CUDA itself, cuBLAS, cuDNN, cuFFT and cuSOLVER (handles and workspaces), and of a CPU."""
_DEVICE = re.compile(
    r"(?:CUDA|HIP)(?: driver)? error|Triton Error \[(?:CUDA|HIP)\]|NVML|device-side assert"
    r"|CUDNN_STATUS_(?:EXECUTION_FAILED|INTERNAL_ERROR|NOT_INITIALIZED)|CUFFT_(?:EXEC_FAILED|INTERNAL_ERROR)"
    r"|CUSOLVER_STATUS_(?:EXECUTION_FAILED|INTERNAL_ERROR)"
)
_NOT_STICKY = re.compile(
    r"invalid (?:argument|configuration argument|device function|resource handle)|too many resources requested"
    r"|no kernel image|operation not (?:permitted|supported)|device not ready|capture"
    r"|CUBLAS_STATUS_(?:INVALID_VALUE|NOT_SUPPORTED|ARCH_MISMATCH)"
)
"""What CUDA refuses and forgets: the call was wrong, and the next one is made as if nothing had happened."""


def read_device_error(error: Exception) -> Exception:
    """Return OutOfMemory or DeviceFailed for what torch raised, caused by it; any other error as it is."""
    text = str(error)
    if not isinstance(error, RuntimeError) and "Triton" not in text:
        return error
    typed: Exception
    if _NO_MEMORY.search(text):
        typed = OutOfMemory("the device had no memory left for the job", None, "It is tried again")
    elif _DEVICE.search(text) and not _NOT_STICKY.search(text):
        typed = DeviceFailed(f"the device failed: {text.partition(chr(10))[0]}", None, "Another worker does the job")
    else:
        return error
    typed.__cause__ = error
    return typed


def read_model_error(error: Exception) -> OmnifleetError:
    """Return the outcome of a request for which the model raised this: what is not foreseen is JobFailed."""
    typed = read_device_error(error)
    if isinstance(typed, OmnifleetError):
        return typed
    logger.error("a request failed in the model", exc_info=error, extra={"action": "request_failed"})
    name = type(error).__name__
    failed = JobFailed(f"the model failed with {name}: {error}", details={"type": name})
    failed.__cause__ = error
    return failed
