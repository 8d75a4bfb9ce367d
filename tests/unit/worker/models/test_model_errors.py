"""What torch raises for a device, as it words it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from omnifleet_shared.errors import DeviceFailed, JobFailed, OutOfMemory
from omnifleet_worker.models.model_errors import read_device_error, read_model_error

CUDA = "CUDA error: {}\nCUDA kernel errors might be asynchronously reported at some other API call"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79 GiB"),
        torch.AcceleratorError(CUDA.format("out of memory")),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=str,
)
def test_memory_that_ran_out_is_out_of_memory_whoever_wanted_it(error: Exception) -> None:
    read = read_device_error(error)

    assert type(read) is OutOfMemory
    assert read.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError(CUDA.format("an illegal memory access was encountered")),
        torch.AcceleratorError(CUDA.format("device-side assert triggered")),
        torch.AcceleratorError(CUDA.format("unspecified launch failure")),
        torch.AcceleratorError(CUDA.format("uncorrectable ECC error encountered")),
        torch.AcceleratorError(CUDA.format("misaligned address")),
        torch.AcceleratorError(CUDA.format("CUDA-capable device(s) is/are busy or unavailable")),
        torch.AcceleratorError(CUDA.format("unknown error")),
        RuntimeError("CUDA driver error: the launch timed out and was terminated"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx(...)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"),
        RuntimeError("NVML_SUCCESS == r INTERNAL ASSERT FAILED at CUDACachingAllocator.cpp:1016"),
    ],
    ids=str,
)
def test_what_only_a_new_process_can_help_is_a_failed_device(error: Exception) -> None:
    read = read_device_error(error)

    assert type(read) is DeviceFailed
    assert str(error).partition("\n")[0] in read.problem
    assert "\n" not in read.problem


@pytest.mark.parametrize(
    "error",
    [
        ValueError("poison"),
        ValueError("CUDA error: a caption of a job, say"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
        torch.AcceleratorError(CUDA.format("invalid argument")),
        torch.AcceleratorError(CUDA.format("too many resources requested for launch")),
        torch.AcceleratorError(CUDA.format("operation not permitted when stream is capturing")),
        RuntimeError("CUDA error: CUBLAS_STATUS_INVALID_VALUE when calling `cublasGemmEx(...)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if you passed in"),
    ],
    ids=str,
)
def test_a_call_that_was_wrong_says_nothing_of_the_device(error: Exception) -> None:
    assert read_device_error(error) is error
    failed = read_model_error(error)
    assert type(failed) is JobFailed
    assert failed.details == {"type": type(error).__name__}
    assert failed.__cause__ is error


def test_what_is_typed_stays_as_it_is() -> None:
    error = DeviceFailed("it broke")

    assert read_device_error(error) is error
    assert read_model_error(error) is error


def test_reading_errors_needs_no_torch() -> None:
    check = "import sys, omnifleet_worker.models.model_errors; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
