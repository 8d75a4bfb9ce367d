"""Which engine runs a folder, and that only its module is imported for it."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from omnifleet_shared.errors import CheckpointInvalid, InvalidSetting
from omnifleet_worker.engines.table import ENGINES, choose_engine, load_model, module_of
from omnifleet_worker.settings import WorkerSettings
from support import PYTHONPATH


@pytest.mark.parametrize(
    ("files", "engine"),
    [
        ({"model_index.json": {}, "card.json": {"name": "audio-omni"}}, "audio-omni"),
        ({"config.json": {"model_type": "vits"}}, "transformers"),
        ({"card.json": {"engine": "fish"}}, "fish"),
        ({"card.json": {"engine": "openai"}, "config.json": {}}, "openai"),
    ],
)
def test_a_folder_tells_its_engine(tmp_path: Path, files: dict[str, object], engine: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))

    assert choose_engine(WorkerSettings(checkpoint=tmp_path)) == engine


def test_the_setting_comes_first(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text("{}")

    assert choose_engine(WorkerSettings(checkpoint=tmp_path, engine="transformers")) == "transformers"


def test_a_module_of_one_s_own_is_named_by_the_setting_alone(tmp_path: Path) -> None:
    assert module_of("json.tool") == "json.tool"
    (tmp_path / "card.json").write_text(json.dumps({"engine": "os.path"}))
    with pytest.raises(CheckpointInvalid, match="which is none"):
        choose_engine(WorkerSettings(checkpoint=tmp_path))


@pytest.mark.parametrize("engine", ["fsih", "", "nowhere.at_all", "base64"])
def test_an_engine_that_nobody_knows_is_refused(tmp_path: Path, engine: str) -> None:
    with pytest.raises(InvalidSetting, match="OMNIFLEET_ENGINE"):
        load_model(WorkerSettings(checkpoint=tmp_path, engine=engine))


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointInvalid, match="holds no checkpoint"):
        choose_engine(WorkerSettings(checkpoint=tmp_path))


def test_choosing_imports_no_engine(tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text(json.dumps({"engine": "fish"}))
    code = (
        "import sys; from pathlib import Path\n"
        "from omnifleet_worker.engines.table import choose_engine\n"
        "from omnifleet_worker.settings import WorkerSettings\n"
        f"assert choose_engine(WorkerSettings(checkpoint=Path({str(tmp_path)!r}))) == 'fish'\n"
        "print([name for name in sys.modules if name in ('torch', 'transformers', 'diffusers')])"
    )

    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": PYTHONPATH}
    )

    assert found.stdout == "[]\n"


@pytest.mark.parametrize("engine", ENGINES)
def test_each_engine_of_the_table_can_be_loaded(engine: str) -> None:
    assert callable(import_module(ENGINES[engine]).load)


@pytest.mark.parametrize("clones", [True, False])
def test_a_recogniser_is_for_a_model_that_clones_voices(tmp_path: Path, clones: bool) -> None:
    card = {"engine": "openai", "name": "m", "licence": "MIT", "tasks": {"generate.tts": {}}, "sample_rate": 24_000}
    (tmp_path / "card.json").write_text(json.dumps(card | {"cloning": clones}))
    settings = WorkerSettings(checkpoint=tmp_path, server_url="http://localhost:1", recogniser=tmp_path)

    # That it is no recogniser is found out only where one is of use.
    with pytest.raises(CheckpointInvalid if clones else InvalidSetting, match="OMNIFLEET_RECOGNISER"):
        load_model(settings)
