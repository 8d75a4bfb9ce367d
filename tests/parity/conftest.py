"""The tiny published checkpoint, read through the project's own loader, and the numbers it must give."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from omnifleet_worker.checkpoint.published.state_dict import load_published
from omnifleet_worker.models.audio_omni.pipeline import AudioOmniPipeline
from omnifleet_worker.models.audio_omni.tiny import tiny_processor
from safetensors.torch import load_file
from torch import Tensor

from .weights import DATA, tiny_thinker_config, write_published

log = logging.getLogger(__name__)


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory, speech_texts: list[dict[str, Any]]) -> AudioOmniPipeline:
    checkpoint = write_published(tmp_path_factory.mktemp("published") / "model.ckpt")
    components = load_published(checkpoint, DATA / "tiny_config.json", tiny_thinker_config())
    return AudioOmniPipeline(
        **components, processor=tiny_processor(), prompts={}, vocab=shown_vocab(speech_texts), card={}
    )


def shown_vocab(speech_texts: list[dict[str, Any]]) -> list[str]:
    """As much of the published vocabulary as the parity files show, in its full length."""
    shown = {place: token for text in speech_texts for token, place in zip(text["tokens"], text["ids"], strict=True)}
    return [shown.get(place, f"<{place}>") for place in range(2545)]


@pytest.fixture(scope="session")
def units() -> dict[str, Tensor]:
    return load_file(DATA / "units.safetensors")


@pytest.fixture(scope="session")
def speech_texts() -> list[dict[str, Any]]:
    return json.loads((DATA / "speech_tokens.json").read_text())


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture
def agrees(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Compare with a parity tensor, relative to its largest value; the error goes to the report."""

    def compare(found: Tensor, wanted: Tensor, within: float = 1e-5) -> None:
        assert found.shape == wanted.shape
        error = ((found - wanted).abs().max() / wanted.abs().max()).item()
        record_property("relative_error", error)
        log.info("relative error %.1e", error)
        assert error <= within

    return compare
