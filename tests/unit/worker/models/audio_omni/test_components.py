"""What is said of the components without their classes is what their classes say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from omnifleet_worker.models.audio_omni.components import ALWAYS_FLOAT32, CONFIGS, OPTIONAL, PIPELINE
from omnifleet_worker.models.audio_omni.pipeline import COMPONENTS, AudioOmniPipeline


def test_the_pipeline_and_its_components_are_named() -> None:
    assert AudioOmniPipeline.__name__ == PIPELINE
    assert list(CONFIGS) == list(COMPONENTS)
    assert CONFIGS.keys() > OPTIONAL


def test_each_component_is_described_by_its_file(checkpoint: Path) -> None:
    index = json.loads((checkpoint / "model_index.json").read_text())

    for name, file in CONFIGS.items():
        assert name in index
        assert (checkpoint / name / file).is_file()


@pytest.mark.parametrize("component", ALWAYS_FLOAT32)
def test_modules_that_stay_float32_are_those_that_the_libraries_keep_so(component: str) -> None:
    kept = getattr(COMPONENTS[component], "_keep_in_fp32_modules", None) or ()

    assert ALWAYS_FLOAT32[component] == frozenset(kept)
