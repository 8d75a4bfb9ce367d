"""Mixing of channels to one: weighted by their places, and watched for channels that cancel each other out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# ITU-R BS.775: the centre is heard as it is, front left and right at -3 dB each, the surrounds at another -3 dB, and
# the effects channel not at all.
_FRONT, _CENTRE, _SURROUND = np.sqrt(0.5), 1.0, 0.5
_WEIGHTS = {"FL": _FRONT, "FR": _FRONT, "FC": _CENTRE, "LFE": 0.0, "LFE2": 0.0, "FLC": _FRONT, "FRC": _FRONT}

# What a file with so many channels and no word of their places means, as players take it.
_USUAL_PLACES = {
    6: ("FL", "FR", "FC", "LFE", "BL", "BR"),
    8: ("FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR"),
}

_BLOCK = 65_536

_CANCELLED = 10 ** (-20 / 10)
"""Of the loudest channel's power: a mix with less of it has lost what it was to keep."""


def mono_weights(channels: int, places: Sequence[str] | None) -> NDArray[np.float64] | None:
    """Return the weight of each channel in the mono mix; None for the plain mean.

    Mono, stereo and channels of unknown places are averaged, as is 2.1 without its effects channel; layouts with a
    centre or surrounds are weighted as ITU-R BS.775 does.
    """
    named = tuple(places) if places and len(places) == channels else _USUAL_PLACES.get(channels)
    if named is None or not {"FL", "FR"} <= set(named) or set(named) == {"FL", "FR"}:
        return None
    weights = np.array([_WEIGHTS.get(name, _SURROUND) for name in named])
    return weights if set(named) - {"FL", "FR", "LFE"} else (weights > 0) / 2


class MonoMix:
    """Mixes blocks of samples to one channel, and tells afterwards what became of the level.

    Args:
        channels: number of channels.
        places: where they belong, such as `("FL", "FR", "FC")`; None where not known.
        only: takes this channel alone instead.
    """

    def __init__(self, channels: int, places: Sequence[str] | None, only: int | None = None) -> None:
        self._weights = mono_weights(channels, places)
        self._only = only
        self._power = np.zeros(channels)
        self._mixed_power = 0.0
        self._peak = self._mixed_peak = 0.0

    def mix(self, samples: NDArray[Any]) -> NDArray[Any]:
        """Mix samples [n, channels] to [n]."""
        if self._only is not None:
            return samples[:, self._only]
        mixed: NDArray[Any] = samples.mean(axis=1) if self._weights is None else samples @ self._weights
        self._power += np.einsum("nc,nc->c", samples, samples, dtype=np.float64)
        self._mixed_power += float(np.dot(mixed.astype(np.float64), mixed))
        self._peak = max(self._peak, float(np.abs(samples).max(initial=0)))
        self._mixed_peak = max(self._mixed_peak, float(np.abs(mixed).max(initial=0)))
        return mixed.astype(samples.dtype, copy=False)

    @property
    def instead(self) -> int | None:
        """The loudest channel where the mix has lost it, because channels cancel each other out; else None."""
        if self._only is not None:
            return None
        heard = self._power if self._weights is None else self._power * (self._weights > 0)
        heard = heard if heard.any() else self._power
        return int(heard.argmax()) if self._mixed_power < heard.max() * _CANCELLED else None

    @property
    def gain(self) -> float:
        """What brings the whole mix down to the channels' own peak, where weights have made it louder; else 1."""
        return self._peak / self._mixed_peak if self._mixed_peak > self._peak > 0 else 1.0


def mix_to_mono(samples: NDArray[Any], places: Sequence[str] | None) -> NDArray[Any]:
    """Mix samples [channels, n] to one channel [1, n]; the loudest one alone where they cancel each other out."""
    mix = MonoMix(len(samples), places)
    mixed = np.empty((1, samples.shape[1]), samples.dtype)
    for start in range(0, samples.shape[1], _BLOCK):
        mixed[0, start : start + _BLOCK] = mix.mix(samples[:, start : start + _BLOCK].T)
    if (instead := mix.instead) is not None:
        return samples[instead : instead + 1]
    return mixed if mix.gain == 1.0 else mixed * samples.dtype.type(mix.gain)
