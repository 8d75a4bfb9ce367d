"""The checkpoint that the demo ships: what it was trained for is heard in what it makes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from omnifleet_worker.models.audio_omni.pipeline import AudioOmniPipeline

from demo.training.checkpoint import untrained_pipeline
from demo.training.measure import Measure
from demo.training.trained import store, trained_pipeline, write_trained_checkpoint

STEPS, GUIDANCE = 12, 3.0


@pytest.fixture(scope="module")
def measure() -> Measure:
    return Measure(trained_pipeline(), STEPS, GUIDANCE)


def test_sounds_of_held_out_prompts_are_the_ones_that_were_asked_for(measure: Measure) -> None:
    figures = measure.generation(12)

    assert figures["made_sounds"] == 1
    assert figures["generation"] >= 0.9


def test_edits_keep_what_was_named_or_take_it_out(measure: Measure) -> None:
    figures = measure.edits(5)

    assert figures["extract_median_db"] > 10
    assert figures["remove_median_db"] > 10
    assert figures["remove_mean_db"] > 3


def test_an_untrained_checkpoint_would_fail_these_tests() -> None:
    figures = Measure(untrained_pipeline(), STEPS, GUIDANCE).generation(4)

    assert figures["generation"] < 0.5


def test_what_is_stored_is_what_comes_back_to_half_precision(tmp_path: Path) -> None:
    pipeline = untrained_pipeline()
    store(pipeline, tmp_path / "trained.safetensors")

    loaded = trained_pipeline(tmp_path / "trained.safetensors").transformer.state_dict()

    for name, weight in pipeline.transformer.state_dict().items():
        assert torch.equal(loaded[name], weight.half().float()), name


def test_a_checkpoint_is_written_whole_and_once(tmp_path: Path) -> None:
    write_trained_checkpoint(tmp_path)
    written = (tmp_path / "model_index.json").stat().st_mtime_ns

    write_trained_checkpoint(tmp_path)

    assert AudioOmniPipeline.from_pretrained(tmp_path).card["name"] == "audio-omni-demo"
    assert (tmp_path / "model_index.json").stat().st_mtime_ns == written
