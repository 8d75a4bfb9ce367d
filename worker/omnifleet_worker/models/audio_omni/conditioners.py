"""Encoders of the omni prompt, the audio prompt and the video-sync features. docs/model.md, "Conditioning"."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchaudio.functional import melscale_fbanks

from omnifleet_worker.models.diffusers_model import DiffusersModel, register_to_config


def rms_norm(hidden: Tensor) -> Tensor:
    """RMS norm over the last dimension without a learned scale, eps 1e-6."""
    return functional.rms_norm(hidden, hidden.shape[-1:], eps=1e-6)


class OmniProjection(DiffusersModel):
    """The thinker's hidden states as context tokens.

    Args:
        hidden_features: features of a thinker's hidden state.
        conditioning_features: features of a context token.
        max_tokens: longer prompts are interpolated down to this many.
    """

    @register_to_config
    def __init__(self, hidden_features: int = 2048, conditioning_features: int = 768, max_tokens: int = 2048) -> None:
        super().__init__()
        self.max_tokens = max_tokens
        self.projection = nn.Linear(hidden_features, conditioning_features)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Project hidden states [n, 2048] of any dtype to tokens [min(n, 2048), 768] float32."""
        hidden = hidden_states.to(self.projection.weight)
        if len(hidden) > self.max_tokens:
            hidden = functional.interpolate(hidden.mT[None], size=self.max_tokens, mode="linear")[0].mT
        return self.projection(rms_norm(hidden))


class AudioPromptEncoder(DiffusersModel):
    """An audio prompt (voice, or source of an edit) as 236 global tokens, by way of its log-mel spectrogram.

    Args:
        sample_rate: of the wave, Hz.
        samples: that every wave is cut or zero-padded to (10 s).
        n_fft: length of the Hann window and its transform, samples.
        hop_length: samples between mel frames.
        mel_bands: HTK mel bands from 0 Hz to half the sample rate.
        tokens: global tokens put out.
        conditioning_features: features of each.
    """

    @register_to_config
    def __init__(
        self,
        sample_rate: int = 44_100,
        samples: int = 441_000,
        n_fft: int = 1024,
        hop_length: int = 256,
        mel_bands: int = 100,
        tokens: int = 236,
        conditioning_features: int = 768,
    ) -> None:
        super().__init__()
        self.frame_projection = nn.Linear(samples // hop_length + 1, tokens)
        self.mel_projection = nn.Linear(mel_bands, conditioning_features)
        filters = melscale_fbanks(n_fft // 2 + 1, 0.0, sample_rate / 2, mel_bands, sample_rate)
        self.register_buffer("mel_filters", filters, persistent=False)
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def forward(self, wave: Tensor | None) -> Tensor:
        """Encode a mono wave [samples] at 44.1 kHz to [236, 768] float32; None is the silence it was trained on."""
        wave = torch.zeros(0) if wave is None else wave
        frames = self.frame_projection(self._log_mel(self._fit(wave)))
        return rms_norm(self.mel_projection(frames.mT))

    def _fit(self, wave: Tensor) -> Tensor:
        kept = wave[: self.config.samples].to(self.window)
        return functional.pad(kept, (0, self.config.samples - len(kept)))

    def _log_mel(self, wave: Tensor) -> Tensor:
        """[100, 1723]: natural log of the mel magnitudes, floored at 1e-5."""
        spectrum = torch.stft(
            wave, self.config.n_fft, self.config.hop_length, window=self.window, center=True, return_complex=True
        )
        return (self.mel_filters.mT @ spectrum.abs()).clamp(min=1e-5).log()


class SyncEncoder(DiffusersModel):
    """Synchformer's video features as 128 global tokens that carry the timing.

    Args:
        frames: features of one video of 10 s.
        tokens: global tokens put out.
        features: of both.
    """

    @register_to_config
    def __init__(self, frames: int = 240, tokens: int = 128, features: int = 768) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(features, eps=1e-5)
        self.feature_projection = nn.Linear(features, features)
        self.frame_projection = nn.Linear(frames, tokens)

    def forward(self, features: Tensor | None) -> Tensor:
        """Encode Synchformer features [240, 768] to [128, 768] float32; None, for no video, counts as zeros."""
        if features is None:
            features = torch.zeros(self.config.frames, self.config.features)
        hidden = self.feature_projection(self.norm(features.to(self.norm.weight)))
        return self.frame_projection(hidden.mT).mT
