"""Makes an engine of a model that speaks: all that a new one of its kind has to call."""

from __future__ import annotations

from omnifleet_shared.schema.capabilities import Capabilities

from ...engine.limits import EngineLimits
from ...models.speech_model import SpeechInputs, SpeechModel
from ..loaded_model import LoadedModel
from .runner import SpeechRunner
from .tasks import SpeechTasks

MOST_TEXT = 300
"""Characters, some twenty seconds of speech: what models say well in one go."""


def run_speech_model(
    model: SpeechModel, capabilities: Capabilities, *, precision: str = "", most_text: int = MOST_TEXT
) -> LoadedModel:
    """Make a model that speaks ready for a worker.

    Args:
        model: loaded.
        capabilities: what it can do and may be used for.
        precision: what it computes in, and where; with its revision it decides a seed's samples.
        most_text: characters that it says in one go; longer texts are cut at their sentences.
    """
    return LoadedModel(
        model=SpeechTasks(capabilities, model, precision=precision, most_text=most_text),
        runner=SpeechRunner(model),
        limits=EngineLimits(speeches=model.places),
        probes=[SpeechInputs(text="1, 2, 3.", language=_language(capabilities), most_steps=model.most_steps, seed=0)],
        why_unwell=model.why_unwell,
        close=model.close,
    )


def _language(capabilities: Capabilities) -> str | None:
    languages = [code for task in capabilities.tasks.values() for code in task.languages or ()]
    return languages[0] if languages else None
