"""A program for the clone's own environment: takes sounds out of waves with AudioSep, for the worker that started it.

It imports nothing of omnifleet, and runs in the clone's folder, where its code looks for its files. On both pipes a
message is one line of JSON, and behind it as many float32 samples as that says.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch


class Separator:
    """AudioSep, as the clone's `pipeline.py` builds it.

    Args:
        config: path of the configuration.
        checkpoint: path of the weights.
        device: name of the torch device.

    Raises:
        ValueError: the checkpoint lacks weights, which the clone would leave as they came by chance.
    """

    def __init__(self, config: str, checkpoint: str, device: str) -> None:
        from pipeline import build_audiosep  # type: ignore[import-not-found] # pyright: ignore

        self._device = torch.device(device)
        self._model: Any = build_audiosep(config_yaml=config, checkpoint_path=checkpoint, device=self._device)
        held = torch.load(checkpoint, map_location="cpu")["state_dict"]
        learned = [name for name, weight in self._model.ss_model.named_parameters() if weight.requires_grad]
        if missing := [name for name in learned if "ss_model." + name not in held]:
            raise ValueError(f"{checkpoint} lacks {len(missing)} weights, the first is {missing[0]}")

    def take(self, wave: np.ndarray, about: str) -> np.ndarray:
        """Take the sound that is described out of a wave, float32 [n] at 32 kHz; gives float32 [n]."""
        with torch.no_grad():
            mixture = torch.from_numpy(wave)[None, None].to(self._device)
            found = self._model.ss_model({"mixture": mixture, "condition": self._condition(about)})["waveform"]
        taken: np.ndarray = found.reshape(-1).float().cpu().numpy()
        return taken

    @functools.lru_cache(maxsize=64)  # noqa: B019 - one for the whole process
    def _condition(self, about: str) -> torch.Tensor:
        condition = self._model.query_encoder.get_query_embed(modality="text", text=[about], device=self._device)
        moved: torch.Tensor = condition.to(self._device)
        return moved


def main() -> None:
    """Load the model that the arguments name, and answer until the worker closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, for the worker alone
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the clone prints is no answer
    sys.path[0] = str(Path.cwd())
    separator = Separator(*sys.argv[1:])
    send(answers, {"ready": True})
    while line := sys.stdin.buffer.readline():
        asked = json.loads(line)
        wave = np.frombuffer(sys.stdin.buffer.read(4 * asked["samples"]), "<f4").copy()
        try:
            send(answers, {}, separator.take(wave, asked["about"]))
        except Exception as error:
            send(answers, {"error": f"{type(error).__name__}: {error}"})


def send(answers: BinaryIO, header: dict[str, Any], wave: np.ndarray | None = None) -> None:
    """Write a message."""
    samples = np.zeros(0) if wave is None else wave
    answers.write(json.dumps({**header, "samples": len(samples)}).encode() + b"\n")
    answers.write(samples.astype("<f4").tobytes())
    answers.flush()


if __name__ == "__main__":
    main()
