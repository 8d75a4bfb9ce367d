"""Many jobs at once: `Client.batch` takes them from any iterator, `omnifleet batch run` from a file.

from omnifleet.batch import edit

for outcome in omni.batch(edit("Add", clip, desc="rain sounds") for clip in clips):
    outcome.result.audio.save(f"{outcome.index}.wav")
"""

from .outcome import Outcome
from .request import Request, edit, generate, understand

__all__ = ["Outcome", "Request", "edit", "generate", "understand"]
