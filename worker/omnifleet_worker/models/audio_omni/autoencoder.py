"""Audio-Omni's VAE: Stable Audio's Oobleck, as diffusers has it. docs/model.md, "Parts"."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from diffusers.models.autoencoders.autoencoder_oobleck import AutoencoderOobleck
from torch import nn
from torch.nn.utils import weight_norm

from omnifleet_worker.models.diffusers_model import register_to_config


@contextmanager
def _old_weight_norm() -> Iterator[None]:
    """Allow torch's old weight norm, whose key names diffusers' checkpoints of this VAE use."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*weight_norm.* is deprecated", category=FutureWarning)
        yield


class AudioOmniAutoencoder(AutoencoderOobleck):
    """diffusers' Oobleck, but the encoder puts out mean and scale of the latents at any width.

    diffusers makes the encoder's output `encoder_hidden_size` wide, which is right at full size only, where
    that equals twice the latent channels. At full size the two classes and their files are interchangeable.

    Args:
        encoder_hidden_size: channels of the encoder's first layer.
        downsampling_ratios: strides; their product is the samples of one latent frame (2048).
        channel_multiples: widths of the blocks in units of the first layer's.
        decoder_channels: channels of the decoder's last layer.
        decoder_input_channels: latent channels.
        audio_channels: 2 for stereo.
        sampling_rate: Hz.
    """

    @register_to_config
    def __init__(
        self,
        encoder_hidden_size: int = 128,
        downsampling_ratios: Sequence[int] = (2, 4, 4, 8, 8),
        channel_multiples: Sequence[int] = (1, 2, 4, 8, 16),
        decoder_channels: int = 128,
        decoder_input_channels: int = 64,
        audio_channels: int = 2,
        sampling_rate: int = 44_100,
    ) -> None:
        with _old_weight_norm():
            super().__init__(
                encoder_hidden_size=encoder_hidden_size,
                downsampling_ratios=list(downsampling_ratios),
                channel_multiples=list(channel_multiples),
                decoder_channels=decoder_channels,
                decoder_input_channels=decoder_input_channels,
                audio_channels=audio_channels,
                sampling_rate=sampling_rate,
            )
            if encoder_hidden_size != 2 * decoder_input_channels:
                deepest = encoder_hidden_size * channel_multiples[-1]
                self.encoder.conv2 = weight_norm(nn.Conv1d(deepest, 2 * decoder_input_channels, 3, padding=1))
