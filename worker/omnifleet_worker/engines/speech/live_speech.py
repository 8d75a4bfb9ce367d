"""Speech that is heard while it is made: in pieces that become longer, whose ends depend on their length alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ...engine.request import Request
from ...jobs.speech_parts import silence_after
from ...models.speech_model import Samples

FIRST_SECONDS, MOST_SECONDS = 0.16, 1.28
"""Length of the first piece, and of those that come once each was twice as long as the one before: the first is heard
as soon as it can be, and the others do not cost the storage an object for each patch."""


class Stream(Protocol):
    """Takes the samples; see `JobStream`."""

    def add_audio(self, samples: Samples, sample_rate: int) -> None:
        """Give out the next samples, float32 [channels, n]."""
        ...


class LiveSpeech:
    """The first part of a streamed text, on its way to who hears it. Used by the job's thread alone.

    A later attempt makes the same samples, and so cuts them at the same places: that is how those which were given out
    before are known.

    Args:
        stream: of the job.
        sample_rate: in Hz.
    """

    def __init__(self, stream: Stream, sample_rate: int) -> None:
        self._stream = stream
        self._rate = sample_rate
        self._given = 0
        self._next_seconds = FIRST_SECONDS

    def watch(self, requests: Sequence[Request]) -> None:
        """Give out what one request's text has more than was given out, in whole pieces."""
        if requests[0].said:
            self._give_whole_pieces(np.concatenate(list(requests[0].said))[None])

    def finish(self, clip: Samples, part: str | None) -> None:
        """Give out the rest.

        Args:
            clip: all that was said, float32 [1, n].
            part: its text, where others follow it after a pause.
        """
        self._give_whole_pieces(clip)
        rest = clip[:, self._given :]
        if part is not None:
            rest = np.concatenate([rest, silence_after(clip, part, self._rate)], axis=1)
        if rest.size:
            self._stream.add_audio(rest, self._rate)

    def _give_whole_pieces(self, samples: Samples) -> None:
        while samples.shape[1] - self._given >= (length := round(self._next_seconds * self._rate)):
            self._stream.add_audio(samples[:, self._given : self._given + length], self._rate)
            self._given += length
            self._next_seconds = min(2 * self._next_seconds, MOST_SECONDS)
