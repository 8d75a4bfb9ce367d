"""Where an edited sound lies between left and right: what the model makes of the mid is given to both channels.

The model hears one channel, the mid, and answers with another. In every cell of time and frequency both are taken
apart into what was kept, what is gone and what is new, by how they are correlated:

- What is gone goes from where it was: from each channel as much as there is of it.
- What is new may stand for what is gone (another sound in its place, or the same with other phases): so much of it as
  has the power of that goes where that lay. The rest goes to the middle.
- All else stays. What lies in the sides alone, and the model has not heard, stays as loud against the mid.

The mono mix of the result is the model's answer, and an answer that is the mid gives back the source.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d

from .levels import BRINGS, TAKES_AWAY

Samples = NDArray[np.float32]

_FFT, _HOP = 2048, 512
_CELL = (5, 13)
"""Bins and frames over which a cell is judged: 110 Hz and 0.15 s."""
_INDEPENDENT, _FEW, _MANY = 10, 3, 30
"""Values of a cell that are independent of each other: what chance makes of them grows as they get fewer. They count as
few for a difference that the task does not make, and as many for one that it does."""
_FLOOR, _LEAST, _NOTHING = 1e-9, 1e-11, 1e-12
"""Of a cell's own power, of the loudest cell's, and power itself: less than that is nothing."""


def place(made: Samples, heard: Samples, source: Samples, task: str) -> Samples:
    """Give the source's image to what the model made of it.

    Args:
        made: the model's mid at the source's level, float32 [n].
        heard: what the model heard of the source, float32 [n]: the mean of its channels, or the one that was heard.
        source: float32 [channels, n].
        task: add, remove, extract or style; where chance may tell, nothing is gone that was added to.

    Returns:
        float32 [channels, n].
    """
    spectra = _spectra(np.stack([made, heard, *source]))
    mid, old, channels = spectra[0], spectra[1], spectra[2:]
    before, after = _power(old), _power(mid)
    floor = _FLOOR * before + _LEAST * before.max() + _NOTHING
    kept = _kept(mid, old, before, after, floor, task)
    gone, new = old - kept, mid - kept
    power_gone = _power(gone)
    changes = -_places(channels, old, gone, power_gone + floor) * gone
    stays = channels + changes
    beside = stays - _common(stays, kept) / (_power(kept) + floor) * kept
    louder = ((after + floor) / (before + floor)).sqrt().clamp(max=1)
    changes -= (1 - louder) * beside
    instead = (power_gone / (_power(new) + floor)).clamp(max=1)
    changes += (1 + instead * (_common(channels, old) - before) / (before + floor)) * new
    return source + _samples(changes, source.shape[1])


def _kept(mid: Tensor, old: Tensor, before: Tensor, after: Tensor, floor: Tensor, task: str) -> Tensor:
    """What the two have in common, by Wiener's filter: what is gone and what is new are taken for strangers to it."""
    common = torch.minimum(_common(mid, old).clamp(min=0), torch.minimum(before, after))
    gone, new = before - common, after - common
    for_gone = _FEW if task in BRINGS else _MANY if task in TAKES_AWAY else _INDEPENDENT
    for_new = _MANY if task in BRINGS else _FEW if task in TAKES_AWAY else _INDEPENDENT
    none_gone = gone.square() * for_gone <= before * new
    none_new = new.square() * for_new <= after * gone
    if task in TAKES_AWAY:
        none_gone &= ~none_new
    else:
        none_new &= ~none_gone
    gone = gone.masked_fill(none_gone, 0) + floor
    new = new.masked_fill(none_new, 0) + floor
    rest = common * (gone + new) + gone * new
    return common * (new * old + gone * mid) / rest


def _places(channels: Tensor, old: Tensor, part: Tensor, power: Tensor) -> Tensor:
    """How much of a part of the old mid each channel holds; what is not heard of it in any counts for the middle."""
    return 1 + _common(channels - old, part) / power


def _common(signals: Tensor, part: Tensor) -> Tensor:
    return _smooth(signals.real * part.real + signals.imag * part.imag)


def _power(spectrum: Tensor) -> Tensor:
    return _smooth(spectrum.real.square() + spectrum.imag.square())


def _spectra(samples: Samples) -> Tensor:
    """Spectra [signals, bins, frames] of [signals, n]."""
    signals = torch.from_numpy(samples)
    window = torch.hann_window(_FFT)
    return torch.stft(signals, _FFT, _HOP, window=window, pad_mode="constant", return_complex=True)


def _samples(spectra: Tensor, length: int) -> Samples:
    samples: Samples = torch.istft(spectra, _FFT, _HOP, window=torch.hann_window(_FFT), length=length).numpy()
    return samples


def _smooth(values: Tensor) -> Tensor:
    """Average over the cell around each bin and frame of [..., bins, frames]."""
    averaged = values.reshape(-1, 1, *values.shape[-2:])
    for side in ((_CELL[0], 1), (1, _CELL[1])):  # one after the other takes a quarter of the time of both at once
        padding = (side[0] // 2, side[1] // 2)
        averaged = avg_pool2d(averaged, side, stride=1, padding=padding, count_include_pad=False)
    return averaged.reshape(values.shape)
