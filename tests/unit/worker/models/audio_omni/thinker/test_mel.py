"""The mel of a recording is what the published extractor gives for it among 300 s of silence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from omnifleet_worker.models.audio_omni.thinker.mel import LogMel
from omnifleet_worker.models.audio_omni.tiny import tiny_processor

EXTRACTOR = tiny_processor().feature_extractor
RANDOM = np.random.default_rng(1)
WINDOW = EXTRACTOR.n_samples


@pytest.fixture(scope="module")
def mel() -> LogMel:
    return LogMel(EXTRACTOR, torch.device("cpu"))


def recording(samples: int, loud_end: int = 0) -> np.ndarray:
    wave = (0.01 * RANDOM.standard_normal(samples)).astype(np.float32)
    wave[samples - loud_end :] *= 50
    return wave


def published(wave: np.ndarray) -> torch.Tensor:
    made = EXTRACTOR([wave], sampling_rate=16_000, return_attention_mask=True, return_tensors="pt")
    return made["input_features"][0][:, made["attention_mask"][0].bool()]


@pytest.mark.parametrize(
    "wave",
    [
        recording(400),
        recording(401),
        recording(16_000),
        # What is loudest is heard best in frames that begin behind the end, and are not kept.
        recording(16_000, loud_end=30),
        recording(16_160, loud_end=1),
        np.zeros(5000, np.float32),
        recording(WINDOW - 300, loud_end=100),
        recording(WINDOW, loud_end=100),
    ],
    ids=lambda wave: str(wave.size),
)
def test_it_is_the_published_one(mel: LogMel, wave: np.ndarray) -> None:
    expected = published(wave)

    made = mel([wave])[0]

    assert made.shape == expected.shape == (128, mel.frames(wave.size))
    assert (made - expected).abs().max() < 1e-5


def test_recordings_together_are_as_alone_with_zeros_behind(mel: LogMel) -> None:
    waves = [recording(16_000, loud_end=30), recording(5000, loud_end=3), recording(30_000)]

    for made, wave in zip(mel(waves), waves, strict=True):
        alone = mel([wave])[0]
        assert (made[:, : alone.shape[1]] - alone).abs().max() < 1e-6
        assert not made[:, alone.shape[1] :].any()
