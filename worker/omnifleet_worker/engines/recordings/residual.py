"""A recording divided into what is taken out of it and what is left, which add up to it sample by sample."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...media.encode import FloatSamples, Subtype
from ...models.speech_model import Samples

_BITS: dict[Subtype, int] = {"PCM_16": 16, "PCM_24": 24}


def divide(source: FloatSamples, taken: Samples, subtype: Subtype) -> tuple[Samples, Samples]:
    """Round what is taken to the source's steps, and give it with the rest of the source.

    Args:
        source: [channels, n], full scale ±1.
        taken: float32 [channels, n].
        subtype: of both results. With 16 and 24 bits their sum is the source bit for bit, and neither goes above full
            scale: what would is left where it was. As floats the rest is the difference, rounded to float32.

    Returns:
        What is taken and what is left, float32 [channels, n].
    """
    if subtype not in _BITS:
        return taken, (source.astype(np.float64) - taken).astype(np.float32)
    top = 2 ** (_BITS[subtype] - 1)
    whole = _steps(source, top)
    part = np.clip(_steps(taken, top), np.maximum(-top, whole - (top - 1)), np.minimum(top - 1, whole + top))
    return (part / top).astype(np.float32), ((whole - part) / top).astype(np.float32)


def _steps(samples: FloatSamples, top: int) -> NDArray[np.float64]:
    steps: NDArray[np.float64] = np.clip(np.rint(samples.astype(np.float64) * top), -top, top - 1)
    return steps
