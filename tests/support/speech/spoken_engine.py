"""An engine of real speech, hibari's one English voice (`OMNIFLEET_ENGINE=support.speech.spoken_engine`): of tests
and of the demo."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version

from omnifleet_shared.schema.capabilities import Capabilities
from omnifleet_worker.engines.loaded_model import LoadedModel
from omnifleet_worker.engines.speech.engine import run_speech_model
from omnifleet_worker.models.speech_model import Samples, SpeechInputs
from omnifleet_worker.settings import WorkerSettings

from .real_speech import SPOKEN_RATE, speak

NAME = "hibari"


class SpokenModel:
    """See `SpeechModel`. No model that clones voices is small; recordings that it made have its own voice."""

    sample_rate = SPOKEN_RATE
    places = 1
    most_steps = 1

    def speak(self, inputs: SpeechInputs) -> Iterator[Samples]:
        yield speak(inputs.text, seed=inputs.seed)

    def why_unwell(self) -> str | None:
        return None

    def close(self) -> None:
        """Nothing is held open."""


def load(settings: WorkerSettings) -> LoadedModel:
    """Make it ready; its voice is in its package, and nothing in a folder."""
    card = Capabilities(
        name=NAME,
        engine=NAME,
        revision=version("hibari-tts"),
        licence="Apache-2.0",
        commercial_use=True,
        tasks={"generate.tts": {"languages": ["en"]}},
        sample_rate=SPOKEN_RATE,
        cloning=True,
        streaming=True,
    )
    return run_speech_model(SpokenModel(), card)
