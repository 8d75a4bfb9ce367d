"""An Oobleck that codes sounds as levels of the demo's grains: its filters are computed, and nothing in it is trained.

Its first four strided convolutions only sort samples into channels, so that the fifth sees a whole window of 4,096;
Snakes are turned down to the identity, and residual units add zero. docs/model.md, "Parts".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from omnifleet_worker.models.audio_omni.autoencoder import AudioOmniAutoencoder
from torch import Tensor, nn

from .grains import GRAINS, LEVEL, detectors, grains

STRIDES = (2, 4, 4, 8, 8)
_SORTED = (2, 8, 32, 256)
"""Channels behind the strides that sort: as many as samples were put aside."""
_SILENT_SCALE = -20.0
"""Softplus of it is nothing: the latents have no spread."""


@torch.no_grad()
def grain_autoencoder() -> AudioOmniAutoencoder:
    """The VAE of the demo's checkpoint: exact for sounds made of grains, deaf to what is none of them."""
    vae = AudioOmniAutoencoder(
        encoder_hidden_size=1, decoder_channels=1, downsampling_ratios=STRIDES, channel_multiples=(*_SORTED, GRAINS)
    )
    for name, weight in vae.named_parameters():
        if name.endswith("alpha"):
            nn.init.constant_(weight, _SILENT_SCALE)
        elif name.endswith("weight_v"):
            nn.init.ones_(weight)
        else:
            nn.init.zeros_(weight)
    _set_encoder(vae)
    _set_decoder(vae)
    return vae


def _set_encoder(vae: AudioOmniAutoencoder) -> None:
    encoder = vae.encoder
    _set(encoder.conv1, _at_middle(torch.full((1, 2), 0.5), 7))
    for block, stride, channels in zip(encoder.block, STRIDES, (1, *_SORTED[:-1]), strict=False):
        _set(block.conv1, _sorting(channels, stride))
    heard = torch.from_numpy(detectors()).float() * LEVEL
    _set(encoder.block[-1].conv1, _by_channel(heard))
    _set(encoder.conv2, _at_middle(torch.eye(2 * GRAINS, GRAINS), 3))
    assert encoder.conv2.bias is not None
    encoder.conv2.bias[GRAINS:] = _SILENT_SCALE


def _set_decoder(vae: AudioOmniAutoencoder) -> None:
    decoder = vae.decoder
    _set(decoder.conv1, _at_middle(torch.eye(GRAINS), 7))
    made = torch.from_numpy(grains()).float() / LEVEL
    _set(decoder.block[0].conv_t1, _by_channel(made))
    for block, stride, channels in zip(decoder.block[1:], STRIDES[-2::-1], (32, 8, 2, 1), strict=True):
        _set(block.conv_t1, _sorting(channels, stride))
    _set(decoder.conv2, _at_middle(torch.ones(2, 1), 7))


def _sorting(channels: int, stride: int) -> Tensor:
    """Kernels [channels · stride, channels, 2 · stride]: output c · stride + r takes sample r of each stride of c."""
    kernels = torch.zeros(channels * stride, channels, 2 * stride)
    for channel in range(channels):
        for place in range(stride):
            kernels[channel * stride + place, channel, place + stride // 2] = 1
    return kernels


def _by_channel(waves: Tensor) -> Tensor:
    """Kernels [64, 256, 16] of waves [64, 4096], whose samples the convolutions before have sorted into 256."""
    place = torch.zeros(256, dtype=torch.long)
    for sample in range(256):
        place[_sorted_channel(sample)] = sample
    return waves.reshape(GRAINS, 16, 256)[:, :, place].transpose(1, 2).contiguous()


def _sorted_channel(sample: int, strides: Sequence[int] = STRIDES[:-1]) -> int:
    """Channel that a sample of each 256 ends in."""
    channel = 0
    for stride in strides:
        channel, sample = channel * stride + sample % stride, sample // stride
    return channel


def _at_middle(matrix: Tensor, width: int) -> Tensor:
    kernels = torch.zeros(*matrix.shape, width)
    kernels[..., width // 2] = matrix
    return kernels


def _set(conv: Any, kernels: Tensor) -> None:
    """Write a convolution's weight under torch's old weight norm: length by the first dimension, and direction."""
    length = kernels.flatten(1).norm(dim=1)[:, None, None]
    conv.weight_v.copy_(torch.where(length > 0, kernels, torch.ones_like(kernels)))
    conv.weight_g.copy_(length)
