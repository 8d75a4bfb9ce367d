"""An engine of espeak-ng's voices (`OMNIFLEET_ENGINE=support.speech.espeak_engine`), of tests and of the demo: robots
that speak a hundred languages, which the small models of packages do not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import files, version
from pathlib import Path

import numpy as np
from omnifleet_shared.errors import JobFailed
from omnifleet_shared.schema.capabilities import Capabilities
from omnifleet_worker.engines.loaded_model import LoadedModel
from omnifleet_worker.engines.speech.engine import run_speech_model
from omnifleet_worker.models.speech_model import Samples, SpeechInputs
from omnifleet_worker.settings import WorkerSettings

NAME = "espeak-ng"
PACKAGE = "espeakng-loader"
RATE = 22_050
_PROGRAM = Path(__file__).with_name("espeak_program.py")


class EspeakModel:
    """See `SpeechModel`. Nothing in it is drawn: the seed changes nothing."""

    sample_rate = RATE
    places = 1
    most_steps = 1

    def speak(self, inputs: SpeechInputs) -> Iterator[Samples]:
        command = [sys.executable, "-I", str(_PROGRAM), inputs.language or "en"]
        done = subprocess.run(command, input=inputs.text.encode(), capture_output=True, check=False)
        if done.returncode != 0:
            raise JobFailed(done.stderr.decode(errors="replace").strip())
        yield (np.frombuffer(done.stdout, "<i2") / 32_768).astype(np.float32)

    def why_unwell(self) -> str | None:
        return None

    def close(self) -> None:
        """Nothing is held open."""


def load(settings: WorkerSettings) -> LoadedModel:
    """Make it ready; its voices are in its package, and nothing in a folder."""
    card = Capabilities(
        name=NAME,
        engine=NAME,
        revision=version(PACKAGE),
        # Of the program: it does not extend to what is said with it.
        licence="GPL-3.0-or-later",
        commercial_use=True,
        tasks={"generate.tts": {"languages": _languages()}},
        sample_rate=RATE,
        streaming=True,
    )
    return run_speech_model(EspeakModel(), card)


def _languages() -> list[str]:
    """By the voices in the package, without their regions and scripts."""
    voices = {Path(one).name for one in files(PACKAGE) or () if "lang" in Path(one).parts}
    names = {voice.partition("-")[0] for voice in voices}
    return sorted(name for name in names if 2 <= len(name) <= 3)
