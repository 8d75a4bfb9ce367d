"""What a worker reports of its device."""

from __future__ import annotations

import pytest
import torch
from omnifleet_shared.errors import DeviceFailed
from omnifleet_worker.observability.device import Device


@pytest.fixture
def failures() -> list[DeviceFailed]:
    return []


@pytest.fixture
def gpu(failures: list[DeviceFailed], monkeypatch: pytest.MonkeyPatch) -> Device:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (30, 80))
    monkeypatch.setattr(torch.cuda, "utilization", lambda device: 50)
    return Device("auto", failures.append)


def test_a_cpu_has_no_such_state(failures: list[DeviceFailed]) -> None:
    assert Device("cpu", failures.append).gpu() is None
    assert failures == []


def test_a_gpu_reports_its_memory_and_its_load(gpu: Device, failures: list[DeviceFailed]) -> None:
    record = gpu.gpu()

    assert record is not None
    assert (record.name, record.memory_used, record.memory_total, record.busy) == ("a GPU", 50, 80, 0.5)
    assert failures == []


def test_a_gpu_that_broke_while_the_engine_was_idle_is_found_by_the_report(
    gpu: Device, failures: list[DeviceFailed], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(device: torch.device) -> tuple[int, int]:
        raise torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered")

    monkeypatch.setattr(torch.cuda, "mem_get_info", broken)

    assert gpu.gpu() is None
    assert [error.problem for error in failures] == [
        "the device failed: CUDA error: uncorrectable ECC error encountered"
    ]
