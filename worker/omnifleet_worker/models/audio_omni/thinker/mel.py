"""Log-mel spectrograms of recordings on the device, as long as the recordings: what Whisper's feature extractor gives
for 300 s of which all but the recording is silence, without computing the silence.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import WhisperFeatureExtractor

from ...streams import to_device

_RANGE, _FLOOR = 8.0, 1e-10
"""Powers of ten below the loudest value at which values are cut, and the power that counts as none."""


class LogMel:
    """The mel of one feature extractor on one device.

    Args:
        extractor: its sizes and filters count; it has no dither.
        device: where the mel is computed.
    """

    def __init__(self, extractor: WhisperFeatureExtractor, device: torch.device) -> None:
        self._hop, self._fft, self._longest = extractor.hop_length, extractor.n_fft, extractor.n_samples
        self._filters = torch.from_numpy(extractor.mel_filters).float().T.contiguous().to(device)
        self._window = torch.hann_window(self._fft, device=device)

    def frames(self, samples: int) -> int:
        """Frames of a recording of so many samples."""
        return -(-samples // self._hop)

    def __call__(self, waves: Sequence[np.ndarray]) -> Tensor:
        """Mels [n, bands, frames] float32 of recordings at 16 kHz, zeros behind the end of the shorter ones."""
        frames = [self.frames(wave.size) for wave in waves]
        power = torch.stft(
            self._pad(waves, max(frames)), self._fft, self._hop, window=self._window, return_complex=True
        )[..., :-1]
        mel = (self._filters @ (power.abs() ** 2)).clamp(min=_FLOOR).log10()
        # The loudest value may lie in a window that begins with the recording's last samples, though no frame is kept
        # of it.
        mel = (torch.maximum(mel, mel.amax((1, 2), keepdim=True) - _RANGE) + 4.0) / 4.0
        kept = torch.arange(max(frames), device=mel.device) < to_device(torch.tensor(frames), mel.device)[:, None]
        return mel[..., : max(frames)] * kept[:, None]

    def _pad(self, waves: Sequence[np.ndarray], frames: int) -> Tensor:
        """[n, samples], with silence behind the recordings for every window that reaches into them."""
        samples = min(self._longest, (frames + 1) * self._hop + self._fft)
        rows = [functional.pad(torch.from_numpy(wave), (0, samples - wave.size)) for wave in waves]
        return to_device(torch.stack(rows), self._window.device)
