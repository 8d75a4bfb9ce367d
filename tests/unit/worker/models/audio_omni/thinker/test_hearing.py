"""Recordings are heard as transformers' tower hears them, several in one pass."""

from __future__ import annotations

import pytest
import torch
from omnifleet_worker.models.audio_omni.thinker.hearing import encode_recordings, token_count
from omnifleet_worker.models.audio_omni.tiny import tiny_thinker

TOWER = tiny_thinker(seed=2).model.audio_tower


@pytest.mark.parametrize(
    "frames",
    [[3], [4], [199], [200], [201], [203], [1000], [30, 401, 200, 3]],
    ids=lambda frames: "+".join(map(str, frames)),
)
def test_it_is_the_published_pass(frames: list[int]) -> None:
    mels = torch.zeros(len(frames), 128, max(frames))
    for mel, count in zip(mels, frames, strict=True):
        mel[:, :count] = torch.randn(128, count, generator=torch.Generator().manual_seed(count))
    together = torch.cat([mel[:, :count] for mel, count in zip(mels, frames, strict=True)], 1)

    with torch.no_grad():
        expected = TOWER(together, feature_lens=torch.tensor(frames)).last_hidden_state
        heard = encode_recordings(TOWER, mels, frames)

    assert heard.shape == expected.shape == (sum(map(token_count, frames)), 2048)
    assert (heard - expected).abs().max() < 1e-5 * expected.abs().max()
