"""The process that a clone of AudioSep runs in, as the worker sees it: a model that works through recordings."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from omnifleet_shared.errors import CheckpointInvalid, DeviceFailed, InvalidSetting, JobFailed

from ...models.model_errors import read_device_error
from ...models.recording_model import RecordingInputs
from ...models.speech_model import Samples

RATE = 32_000
"""Hz, of the waves that AudioSep takes and gives."""
PROGRAM = Path(__file__).with_name("clone_program.py")
LEAST_SAMPLES = RATE
"""Shorter waves get silence behind them: the clone's spectra need more than a thousand samples."""
END_SECONDS = 10.0
_KEPT_FROM_IT = ("OMNIFLEET_", "AWS_", "PYTHON")
"""Beginnings of variables that are none of the clone's business: passwords, and paths of another Python."""
_DEFAULTS = {
    # What is not on this machine is an error, and no download.
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    # The published weights are pickles with more than weights in them, which newer torch refuses by default.
    "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1",
}
_SHOWN = 2000


class CloneProcess:
    """See `RecordingModel`. One wave at a time.

    Args:
        python: of the clone's environment.
        folder: of the clone.
        arguments: of the program: paths of configuration and checkpoint within the folder, and the device.

    Raises:
        InvalidSetting: there is no such Python.
        CheckpointInvalid: the clone does not load its model; with what it says of that.
    """

    def __init__(self, python: Path, folder: Path, arguments: Sequence[str]) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
        try:
            self._process = subprocess.Popen(
                [python, "-u", PROGRAM, *arguments],
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=_DEFAULTS | {k: v for k, v in os.environ.items() if not k.startswith(_KEPT_FROM_IT)},
            )
        except OSError as error:
            self._log.close()
            raise InvalidSetting(f"{python} cannot be run: {error}", "OMNIFLEET_CLONE_PYTHON") from error
        assert self._process.stdin is not None and self._process.stdout is not None
        self._questions: IO[bytes] = self._process.stdin
        self._answers: IO[bytes] = self._process.stdout
        try:
            self._receive()
        except EOFError as error:
            said = self._said()
            self.close()
            remedy = "Run the clone's own example with the Python of OMNIFLEET_CLONE_PYTHON first"
            raise CheckpointInvalid(f"{folder} does not load: {said}", "OMNIFLEET_CHECKPOINT", remedy) from error

    def work(self, inputs: RecordingInputs) -> Samples:
        """Take the sound that the inputs are about, float32 [1, n], out of a wave of at most some seconds.

        Raises:
            DeviceFailed: the process has ended.
            JobFailed: what it gave are no samples of the wave.
        """
        wave = np.pad(inputs.wave, (0, max(0, LEAST_SAMPLES - len(inputs.wave)))).astype("<f4")
        try:
            header = {"about": inputs.about or "", "samples": len(wave)}
            self._questions.write(json.dumps(header).encode() + b"\n" + wave.tobytes())
            self._questions.flush()
            answer, taken = self._receive()
        except (EOFError, BrokenPipeError) as error:
            raise DeviceFailed(f"AudioSep's process has ended: {self._said()}") from error
        if "error" in answer:
            raise read_device_error(RuntimeError(answer["error"]))
        if len(taken) != len(wave) or not np.isfinite(taken).all():
            raise JobFailed("the model made samples that are no numbers, or not as many as it was given")
        return taken[None, : len(inputs.wave)]

    def close(self) -> None:
        """End the process."""
        with suppress(BrokenPipeError):
            self._questions.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answers.close()
        self._log.close()

    def _receive(self) -> tuple[dict[str, Any], Samples]:
        """Wait for a message. Raises EOFError where the process ends before all of it is there."""
        line = self._answers.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        header: dict[str, Any] = json.loads(line)
        data = self._answers.read(4 * header["samples"])
        if len(data) < 4 * header["samples"]:
            raise EOFError
        return header, np.frombuffer(data, "<f4").astype(np.float32)

    def _said(self) -> str:
        """The end of what the process wrote to its log."""
        self._process.wait()
        end = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, end - _SHOWN))
        return self._log.read().decode(errors="replace").strip() or f"exit code {self._process.returncode}"
