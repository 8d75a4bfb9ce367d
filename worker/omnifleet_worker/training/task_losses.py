"""Mean losses by task, over all processes of a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor


@dataclass(frozen=True)
class MeanLosses:
    """Means over examples.

    Attributes:
        overall: of all of them.
        by_task: of those of each task that there were any of.
    """

    overall: float
    by_task: dict[str, float]


class TaskLosses:
    """Adds up the losses of examples on each process, until all processes ask for the means.

    Args:
        tasks: that an example can be of; the same on every process.
        accelerator: of the run.
    """

    def __init__(self, tasks: Iterable[str], accelerator: Accelerator) -> None:
        self._tasks = sorted(set(tasks))
        self._accelerator = accelerator
        self._sums = torch.zeros(len(self._tasks), 2, device=accelerator.device)

    def add(self, tasks: Sequence[str], losses: Tensor) -> None:
        """Add losses [B] of examples of these tasks; nothing waits for the device."""
        places = torch.tensor([self._tasks.index(task) for task in tasks], device=losses.device)
        self._sums.index_add_(0, places, torch.stack([losses.detach(), torch.ones_like(losses)], dim=1))

    def means(self) -> MeanLosses:
        """The means of what all processes added; called by every one of them."""
        reduced: Any = self._accelerator.reduce(self._sums, "sum")
        sums: list[tuple[float, float]] = reduced.tolist()
        total, count = (sum(column) for column in zip(*sums, strict=True))
        by_task = {task: loss / number for task, (loss, number) in zip(self._tasks, sums, strict=True) if number}
        return MeanLosses(total / count, by_task)
