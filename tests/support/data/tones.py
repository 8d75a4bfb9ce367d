"""Sound that one can tell the seed by."""

from __future__ import annotations

import numpy as np

SAMPLE_RATE = 44_100
SEEDS = 400_000
"""Seeds below this have tones of their own."""


def tone(seed: int, samples: int) -> np.ndarray:
    """float32 [2, n] at 44.1 kHz: a sine whose pitch, and whose loudness on the right, say the seed."""
    pitch = 200 + seed % 4000
    right = 0.2 + 0.005 * (seed // 4000 % 100)
    wave = np.sin(2 * np.pi * pitch / SAMPLE_RATE * np.arange(samples))
    return np.stack([0.5 * wave, right * wave]).astype(np.float32)
