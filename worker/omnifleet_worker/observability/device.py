"""The device that a worker runs on, as its driver reports it."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from omnifleet_shared.broker.worker_registry import GpuRecord
from omnifleet_shared.errors import DeviceFailed

from ..models.model_errors import read_device_error

logger = logging.getLogger(__name__)


class Device:
    """Reads name, memory and load of the device, on the threads that report; the engine is not involved.

    Args:
        name: as in the settings; `auto` is the first visible GPU, else the CPU.
        on_failed: called each time that the device is found broken, which an idle engine would not notice.
    """

    def __init__(self, name: str, on_failed: Callable[[DeviceFailed], None]) -> None:
        auto = "cuda" if torch.cuda.is_available() else "cpu"
        self._device = torch.device(auto if name == "auto" else name)
        self._on_failed = on_failed
        self._reports_load = True

    @property
    def name(self) -> str:
        """`cpu`, or the GPU's product name."""
        return torch.cuda.get_device_name(self._device) if self._is_gpu else str(self._device)

    def gpu(self) -> GpuRecord | None:
        """The GPU's state; None on a CPU, and of a GPU that broke."""
        if not self._is_gpu:
            return None
        try:
            free, total = torch.cuda.mem_get_info(self._device)
        except RuntimeError as raised:
            error = read_device_error(raised)
            if not isinstance(error, DeviceFailed):
                raise
            self._on_failed(error)
            return None
        return GpuRecord(name=self.name, memory_used=total - free, memory_total=total, busy=self._busy())

    @property
    def _is_gpu(self) -> bool:
        return self._device.type == "cuda" and torch.cuda.is_available()

    def _busy(self) -> float | None:
        if not self._reports_load:
            return None
        try:
            return torch.cuda.utilization(self._device) / 100
        except Exception as error:  # NVML's own errors: slices of a GPU (MIG) have no such number
            self._reports_load = False
            logger.info("this GPU does not report its load: %s", error, extra={"action": "gpu_load_unknown"})
            return None
