"""Make the sounds that train.jsonl and validation.jsonl name: a tone, noise, and both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

RATE = 44_100
SOUNDS = Path(__file__).parent / "sounds"

SOUNDS.mkdir(exist_ok=True)
tone = 0.4 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
noise = 0.1 * np.random.default_rng(0).standard_normal(RATE)
for name, samples in {"tone": tone, "noise": noise, "both": tone + noise}.items():
    soundfile.write(SOUNDS / f"{name}.wav", samples, RATE)
print(f"{SOUNDS} holds the sounds")
