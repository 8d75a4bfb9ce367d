"""Many jobs at once: `Client.batch` takes them from any iterator, `omnifleet batch run` from a file.

from omnifleet.batch import edit

for outcome in omni.batch(edit("Add", clip, desc="rain sounds") for clip in clips):
    outcome.result.audio.save(f"{outcome.index}.wav")
"""

from ..request.calls import edit, generate, understand
from ..request.request import Request
from .outcome import Outcome

__all__ = ["Outcome", "Request", "edit", "generate", "understand"]
