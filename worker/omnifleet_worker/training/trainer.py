"""The loop: draw a batch, take a step, and now and then save, validate and export."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from omnifleet_shared.errors import InvalidTrainingConfig
from torch.utils.tensorboard import SummaryWriter

from ..models.audio_omni.sampling import SAMPLE_RATE
from .batches import Batch, EncodedDataset, MixedBatches, load_batches
from .config import TrainConfig
from .flow_matching import FlowMatchingLoss, seeded
from .run_states import RunState, RunStates
from .stop_signal import StopSignal
from .task_losses import MeanLosses, TaskLosses
from .validation import Validation
from .velocity_model import VelocityModel

logger = logging.getLogger(__name__)

LOG_EVERY = 10
"""Steps between lines in the log; TensorBoard has them all."""


class Trainer:
    """Trains one model, from the last state of its run on.

    Args:
        config: of the run.
        model: what is trained; moved to the accelerator's device.
        dataset: examples to learn from.
        validation: of the others; None where there are none.
        states: of this run.
        accelerator: precision, accumulation and processes.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: VelocityModel,
        dataset: EncodedDataset,
        validation: Validation | None,
        states: RunStates,
        accelerator: Accelerator,
    ) -> None:
        self._config = config
        self._core = model
        self._dataset = dataset
        self._validation = validation
        self._states = states
        self._accelerator = accelerator
        self._loss = FlowMatchingLoss(config.unconditional_share, config.time_shift)
        self._optimizer = torch.optim.AdamW(
            model.trained.values(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self._model, self._stepper = accelerator.prepare(model, self._optimizer)
        self._ema = None if config.ema is None else EMAModel(model.trained.values(), decay=config.ema)
        self._step = 0

    def run(self) -> int | None:
        """Take the steps that are left, and write what was learned.

        Returns:
            The signal that ended it before its last step, which the same run goes on from; None where it is done.

        Raises:
            InvalidTrainingConfig: the state is of another run, or the loss is no number any more.
        """
        self._restore()
        self._say("started", "training with %d processes", self._accelerator.num_processes)
        with StopSignal() as stop, self._open_log() as log:
            batches = self._batches()
            if self._step == 0:
                self._validate(log)
            while self._step < self._config.steps and not self._is_stopped(stop):
                self._log_step(log, *self._take_step(batches))
                if self._step % self._config.validate_every == 0 or self._step == self._config.steps:
                    self._validate(log)
                if self._step % self._config.save_every == 0 and self._step < self._config.steps:
                    self._save()
            self._save()
        return stop.number if self._step < self._config.steps else None

    def _batches(self) -> Iterator[Batch]:
        """Those of this process, from the next step on."""
        config, processes = self._config, self._accelerator.num_processes
        mixed = MixedBatches(self._dataset, config.weights, config.batch_size, config.seed)
        done = self._step * config.gradient_accumulation * processes
        start = done + self._accelerator.process_index
        return load_batches(self._dataset, mixed, start=start, stride=processes, workers=config.loader_workers)

    def _take_step(self, batches: Iterator[Batch]) -> tuple[MeanLosses, float]:
        """Losses of all processes, and the norm of the gradient before it was clipped."""
        losses, norm = TaskLosses((one.task for one in self._dataset.examples), self._accelerator), 0.0
        for group in self._optimizer.param_groups:
            group["lr"] = self._learning_rate()
        for number in range(self._config.gradient_accumulation):
            batch = next(batches)
            with self._accelerator.accumulate(self._model), seeded(*self._draws(number)):
                noised = self._loss.draw(batch).to(self._accelerator.device)
                each = self._loss.of_examples(self._model, noised)
                self._accelerator.backward(each.mean())
                losses.add(batch.tasks, each)
                if self._accelerator.sync_gradients:
                    norm = self._clip()
                self._stepper.step()
                self._stepper.zero_grad()
        self._step += 1
        if self._ema is not None:
            self._ema.step(self._core.trained.values())
        return losses.means(), norm

    def _draws(self, number: int) -> tuple[int, int, int]:
        """What a batch's draws follow from: its place among those of the step, on whichever process it is."""
        place = number * self._accelerator.num_processes + self._accelerator.process_index
        return self._config.seed, self._step, place

    def _learning_rate(self) -> float:
        rise = (self._step + 1) / self._config.warmup_steps if self._config.warmup_steps else 1.0
        return self._config.learning_rate * min(1.0, rise)

    def _clip(self) -> float:
        weights: Any = self._core.trained.values()
        clipped: Any = self._accelerator.clip_grad_norm_(weights, self._config.max_gradient_norm)
        norm = float(clipped)
        if not math.isfinite(norm):
            remedy = "Lower it; the states of before are kept"
            raise InvalidTrainingConfig(f"step {self._step + 1} has no finite gradient", "learning_rate", remedy)
        return norm

    def _is_stopped(self, stop: StopSignal) -> bool:
        """Whether any process was asked to end: all of them take the same steps."""
        if self._accelerator.num_processes == 1:
            return stop.number is not None
        asked = torch.tensor([float(stop.number or 0)], device=self._accelerator.device)
        reduced: Any = self._accelerator.reduce(asked, "sum")
        number = int(reduced.item())
        stop.number = stop.number or number or None
        return number > 0

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Put the averaged weights, where there are any, in the place of the last ones."""
        if self._ema is None or self._step == 0:
            yield
            return
        weights = list(self._core.trained.values())
        self._ema.store(weights)
        self._ema.copy_to(weights)
        try:
            yield
        finally:
            self._ema.restore(weights)

    def _validate(self, log: SummaryWriter | None) -> None:
        if self._validation is None:
            return
        self._core.eval()
        with self._averaged():
            # Not through the wrapper for several processes, whose every forward they must take together.
            losses = self._validation.losses(self._core)
            if log is not None:
                with self._accelerator.autocast():
                    for name, audio in self._validation.samples(self._core.transformer):
                        log.add_audio(name, audio.mean(dim=0, keepdim=True), self._step, SAMPLE_RATE)
                for task, loss in losses.items():
                    log.add_scalar(f"validation/{task}", loss, self._step)
        self._core.train()
        self._say("validated", "step %d: validation %s", self._step, _shown(losses), losses=losses)

    def _log_step(self, log: SummaryWriter | None, losses: MeanLosses, norm: float) -> None:
        if log is not None:
            log.add_scalar("train/loss", losses.overall, self._step)
            log.add_scalar("train/gradient_norm", norm, self._step)
            log.add_scalar("train/learning_rate", self._optimizer.param_groups[0]["lr"], self._step)
            for task, loss in losses.by_task.items():
                log.add_scalar(f"train/{task}", loss, self._step)
        if self._step % LOG_EVERY == 0 or self._step == 1:
            self._say("trained", "step %d: loss %.4f", self._step, losses.overall, loss=losses.overall)

    def _save(self) -> None:
        """Write the state of now, and what was learned so far, as a worker would use it."""
        if self._accelerator.is_main_process:
            optimizer: dict[str, Any] = {"adamw": self._optimizer.state_dict()}
            if self._ema is not None:
                optimizer["ema"] = self._ema.state_dict()
            self._states.save(RunState(self._step, self._core.trained, optimizer))
            with self._averaged():
                self._core.export(self._config.out)
        self._accelerator.wait_for_everyone()
        self._say("saved", "step %d is saved in %s", self._step, self._config.out)

    def _restore(self) -> None:
        state = self._states.latest()
        if state is None:
            return
        with torch.no_grad():
            for name, weight in self._core.trained.items():
                weight.copy_(state.weights[name])
        self._optimizer.load_state_dict(dict(state.optimizer["adamw"]))
        if self._ema is not None:
            self._ema.load_state_dict(dict(state.optimizer["ema"]))
            self._ema.to(self._accelerator.device)
        self._step = state.step
        self._say("resumed", "going on after step %d", self._step)

    @contextmanager
    def _open_log(self) -> Iterator[SummaryWriter | None]:
        """TensorBoard's, of the main process; what an earlier process wrote of later steps is not shown any more."""
        if not self._accelerator.is_main_process:
            yield None
            return
        with SummaryWriter(str(self._config.out / "logs"), purge_step=self._step + 1 if self._step else None) as log:
            yield log

    def _say(self, action: str, message: str, *values: object, **facts: object) -> None:
        if self._accelerator.is_main_process:
            logger.info(message, *values, extra={"action": action, "step": self._step, **facts})


def _shown(losses: dict[str, float]) -> str:
    return ", ".join(f"{task} {loss:.4f}" for task, loss in losses.items())
