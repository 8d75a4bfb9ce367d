"""Noise, time steps and the last steps to samples."""

from __future__ import annotations

import torch
from omnifleet_worker.models.audio_omni.sampling import (
    euler_step,
    euler_times,
    normalise_peak,
    prepare_latents,
    to_int16,
)


def test_noise_belongs_to_its_seed() -> None:
    assert prepare_latents(3).shape == (64, 236)
    assert torch.equal(prepare_latents(3), prepare_latents(3))
    assert not torch.equal(prepare_latents(3), prepare_latents(4))


def test_times_go_from_noise_to_clean_in_equal_steps() -> None:
    assert euler_times(4).tolist() == [1, 0.75, 0.5, 0.25, 0]


def test_each_request_takes_its_own_step() -> None:
    times, following = torch.tensor([1.0, 0.5]), torch.tensor([0.75, 0.0])
    moved = euler_step(torch.zeros(2, 64, 236), torch.ones(2, 64, 236), times, following)
    assert moved[:, 0, 0].tolist() == [-0.25, -0.5]


def test_each_clip_is_scaled_to_its_own_peak_over_both_channels() -> None:
    clips = torch.tensor([[[0.5, 0.0], [-2.0, 1.0]], [[0.1, 0.0], [0.0, 0.0]]])
    assert normalise_peak(clips).tolist() == [[[0.25, 0.0], [-1.0, 0.5]], [[1.0, 0.0], [0.0, 0.0]]]


def test_silence_stays_silent() -> None:
    assert normalise_peak(torch.zeros(1, 2, 8)).tolist() == torch.zeros(1, 2, 8).tolist()


def test_int16_is_cut_towards_zero() -> None:
    assert to_int16(torch.tensor([1.0, -1.0, 0.00005, -0.00005])).tolist() == [32767, -32767, 1, -1]
    assert to_int16(torch.tensor([0.00003, -0.00003])).tolist() == [0, 0]
