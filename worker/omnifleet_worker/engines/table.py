"""The engines by name, and which of them a checkpoint's folder is for. Imports none of them until one is chosen."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omnifleet_shared.errors import CheckpointInvalid, InvalidSetting

from ..installation import checkpoint_folder
from ..settings import WorkerSettings

if TYPE_CHECKING:
    from .loaded_model import LoadedModel

ENGINES = {
    "audio-omni": "omnifleet_worker.engines.audio_omni",
    "audiosep": "omnifleet_worker.engines.audiosep.engine",
    "fish": "omnifleet_worker.engines.speech_server.fish",
    "omnivoice": "omnifleet_worker.engines.omnivoice_speech",
    "openai": "omnifleet_worker.engines.speech_server.openai",
    "transformers": "omnifleet_worker.engines.transformers_speech",
    "voxcpm": "omnifleet_worker.engines.voxcpm_speech",
}
"""Modules by the names of their engines; each has `load(settings) -> LoadedModel`."""
RUN_THEIR_FOLDER = ("audiosep",)
"""Engines that run the code in their folder, which therefore only the setting names."""
LIBRARIES = {"omnivoice": "omnivoice", "voxcpm": "voxcpm"}
"""Libraries of engines that an extra of the engine's own name brings."""
CARD = "card.json"
_REMEDY = "Convert or download a checkpoint, and give the folder that holds model_index.json, card.json or config.json"


def load_model(settings: WorkerSettings) -> LoadedModel:
    """Load the model of the settings with its engine.

    Raises:
        InvalidSetting: there is no such engine, no folder is named, the device will not do, or a recogniser is named
            beside a model that has no use for it.
        CheckpointInvalid: the folder is not what the engine needs, or the recogniser's holds none.
    """
    name = choose_engine(settings)
    try:
        module = import_module(module_of(name))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != LIBRARIES.get(name):
            raise
        remedy = f"pip install 'omnifleet[{name}]', or run the image omnifleet-worker-voices"
        raise InvalidSetting(f"not installed: {error.name}", "OMNIFLEET_ENGINE", remedy) from error
    load: Callable[[WorkerSettings], LoadedModel] | None = getattr(module, "load", None)
    if load is None:
        problem = f"the module {name} is no engine: it has no function load"
        raise InvalidSetting(problem, "OMNIFLEET_ENGINE", "docs/engines.md says what an engine is")
    loaded = load(settings)
    return loaded if settings.recogniser is None else _with_recogniser(loaded, settings.recogniser)


def _with_recogniser(loaded: LoadedModel, folder: Path) -> LoadedModel:
    from .speech.recogniser import TransformersRecogniser
    from .speech.tasks import SpeechTasks

    model = loaded.model
    if not isinstance(model, SpeechTasks) or not model.capabilities.cloning:
        problem = f"{model.capabilities.name} does not speak in the voices of recordings, or hears by itself"
        raise InvalidSetting(problem, "OMNIFLEET_RECOGNISER", "Leave it out, or run a model that clones voices")
    return replace(loaded, model=model.with_recogniser(TransformersRecogniser.from_pretrained(folder)))


def choose_engine(settings: WorkerSettings) -> str:
    """Name the engine: that of OMNIFLEET_ENGINE, else of the folder's card, else the one that its files are for.

    Raises: as `load_model`, without loading anything.
    """
    folder = checkpoint_folder(settings)
    if not folder.is_dir():
        raise CheckpointInvalid(f"there is no folder {folder}", "OMNIFLEET_CHECKPOINT", _REMEDY)
    if settings.engine is not None:
        module_of(settings.engine)
        return settings.engine
    named = _read(folder / CARD).get("engine")
    # A folder may choose among the engines, and not bring code of its own.
    if named in RUN_THEIR_FOLDER:
        remedy = f"Set OMNIFLEET_ENGINE={named}, if you trust it"
        raise CheckpointInvalid(f"the engine {named!r} runs the code in {folder}", CARD, remedy)
    if named in ENGINES:
        return str(named)
    if named is not None:
        raise CheckpointInvalid(f"{folder / CARD} names an engine {named!r}, which is none", CARD, _known())
    if (folder / "model_index.json").is_file():
        return "audio-omni"
    if (folder / "config.json").is_file():
        return _engine_of_config(_read(folder / "config.json"))
    raise CheckpointInvalid(f"{folder} holds no checkpoint", "OMNIFLEET_CHECKPOINT", _REMEDY)


def module_of(engine: str) -> str:
    """Give the module of an engine: of one of the table, else the installed module of that name.

    Raises:
        InvalidSetting: there is neither.
    """
    if engine in ENGINES:
        return ENGINES[engine]
    with suppress(ImportError, ValueError):  # of a package that is not there, or no name at all
        if find_spec(engine) is not None:
            return engine
    raise InvalidSetting(f"there is no engine {engine!r}", "OMNIFLEET_ENGINE", _known())


def _engine_of_config(config: dict[str, Any]) -> str:
    """Models that have libraries of their own say so; transformers knows the others, or refuses them."""
    if config.get("architecture") == "voxcpm2":
        return "voxcpm"
    return "omnivoice" if config.get("model_type") == "omnivoice" else "transformers"


def _known() -> str:
    return f"Use one of {', '.join(ENGINES)}, or in OMNIFLEET_ENGINE the name of a module of your own"


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise CheckpointInvalid(f"{path} is no JSON: {error}", path.name, _REMEDY) from error
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}
